"""Statistics over seeds: means with intervals, p-values and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean of independent values with its Student interval; ``nan`` where there are too few values.

    Attributes:
        n: Number of values.
        sd: Standard deviation with ``n - 1`` in the denominator.
        low: Lower end of the 95% interval of the mean.
        high: Upper end.
    """

    n: int
    mean: float = math.nan
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan


def summarize(values: Sequence[float]) -> Summary:
    """Return mean, standard deviation and Student's 95% interval of the mean: ``mean +- t(n - 1) sd / sqrt(n)``.

    One value has no interval, no value has no mean: these are ``nan``.
    """
    n = len(values)
    if n < 2:
        return Summary(n, *map(float, values))
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def p_value(summary: Summary) -> float:
    """Return Student's two-sided p-value of the mean against zero: below 0.05 if the 95% interval excludes zero.

    It is ``nan`` for fewer than two values, and 0 for equal values that are not zero.
    """
    if summary.n < 2:
        return math.nan
    if summary.sd == 0:
        return float(summary.mean == 0)
    return 2 * float(stdtr(summary.n - 1, -abs(summary.mean) * math.sqrt(summary.n) / summary.sd))


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
