"""Intervals, p-values and Holm's correction over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, stdtr, stdtrit

CONFIDENCE = 0.95
MOST_FLIPPED = 22
"""Most values of an exact sign-flip test, which sums over all 2^n choices of signs."""


@dataclass(frozen=True)
class Summary:
    """Mean of independent values with its Student interval; ``nan`` where there are too few values."""

    n: int  # number of values
    mean: float = math.nan
    sd: float = math.nan  # with ``n - 1`` in the denominator
    low: float = math.nan  # lower end of the 95% interval of the mean
    high: float = math.nan
    p: float = math.nan  # two-sided, of the mean against zero; below 0.05 if the interval excludes zero


def summarize(values: Sequence[float], rasters: tuple[float, float] = (0.0, 0.0)) -> Summary:
    """Return mean, standard deviation, Student's 95% interval ``mean +- t(n - 1) sd / sqrt(n)`` and its p-value.

    One value has no interval, no value has no mean: these are ``nan``. Equal values that are not zero have p = 0.

    Args:
        values: The values, or differences of two readings each.
        rasters: Distances between the points at which the two readings of a difference were possible. A reading lies
            up to one such distance above what is read. The standard deviation is at least that of two such errors
            ``sqrt((r1^2 + r2^2) / 12)``, and the interval is longer by ``r1`` below and ``r2`` above.
    """
    n = len(values)
    if n < 2:
        return Summary(n, *map(float, values))
    mean = float(np.mean(values))
    sd = max(float(np.std(values, ddof=1)), math.hypot(*rasters) / math.sqrt(12))
    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * sd / math.sqrt(n)
    beyond = _beyond(mean, rasters)
    p = 2 * float(stdtr(n - 1, -abs(beyond) * math.sqrt(n) / sd)) if sd else float(beyond == 0)
    return Summary(n, mean, sd, mean - half - rasters[0], mean + half + rasters[1], p)


def sign_flip_p(values: Sequence[float], rasters: tuple[float, float] = (0.0, 0.0)) -> float:
    """Return the two-sided p-value of the exact sign-flip test of a mean against zero.

    It is the share of the ``2^n`` choices of signs whose sum is at least as far from zero as the sum of the values
    (Fisher 1935), and needs symmetry about zero alone. Of differences read on rasters (see ``summarize``) counts what
    lies beyond them. ``nan`` for no value and for more than ``MOST_FLIPPED``.
    """
    sizes = np.abs([_beyond(value, rasters) for value in values])
    if not 0 < len(sizes) <= MOST_FLIPPED:
        return math.nan
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums - size, sums + size])
    # Sums that differ by rounding alone are equal.
    least = abs(sum(_beyond(value, rasters) for value in values)) - 1e-9 * float(sizes.sum())
    return float(np.mean(np.abs(sums) >= least))


def mcnemar_p(first_alone: int, second_alone: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (1947) of the pairs in which one alone has an outcome."""
    return min(1.0, 2 * float(bdtr(min(first_alone, second_alone), first_alone + second_alone, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down procedure (1979), which is valid under any dependence.

    ``nan`` stays ``nan`` and does not count.
    """
    ascending = sorted((value, place) for place, value in enumerate(p_values) if not math.isnan(value))
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for done, (value, place) in enumerate(ascending):
        largest = adjusted[place] = max(largest, min(1.0, (len(ascending) - done) * value))
    return adjusted


def mean_error(errors: Sequence[float]) -> float:
    """Return the Monte-Carlo error of a mean of independent values with given errors: ``sqrt(sum e^2) / n``."""
    return math.sqrt(sum(error**2 for error in errors)) / len(errors) if errors else math.nan


def _beyond(value: float, rasters: tuple[float, float]) -> float:
    """Return by how much a difference is farther from zero than the rasters of its two readings may explain."""
    return max(0.0, value - rasters[0]) if value > 0 else min(0.0, value + rasters[1])
