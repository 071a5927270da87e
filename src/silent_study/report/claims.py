"""The paper's orderings and our own, tested on equal seeds: methods with the silent gradient against those without."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from silent_study.paper import PUBLISHED_MSE, published
from silent_study.report.cells import Cell
from silent_study.report.statistics import CONFIDENCE, Summary, holm, p_value, summarize
from silent_study.settings import EXPERIMENTS

VERDICTS = ("holds", "fails", "undecided", "not measured")
OURS = "ours"
"""Basis of a claim that the paper does not make."""

_FIXED_VARIANCE = {"silent-gaussian": ("reparameterization",), "silent-bernoulli": ("gumbel-softmax", "reinforce")}


@dataclass(frozen=True)
class Claim:
    """One ordering between two methods and its test on equal seeds.

    Attributes:
        first: Cell with the silent gradient.
        second: Cell that it is compared with.
        metric: Name of the compared metric.
        expected: -1 if the first is expected to be lower, +1 if higher.
        basis: Source of the expectation: ``published numbers``, ``text`` if the paper has no such numbers, or ``ours``.
        published_difference: First minus second as published; ``nan`` without.
        differences: First minus second of each paired seed, in the order of the seeds.
        unpaired: Number of seeds for which one of the two or both lack the metric.
        adjusted: P-value of the difference after Holm's correction over the claims of its family: the paper's, or ours.
    """

    first: Cell
    second: Cell
    metric: str
    expected: int
    basis: str
    published_difference: float
    differences: tuple[float, ...]
    unpaired: int
    adjusted: float = math.nan

    @property
    def of_the_paper(self) -> bool:
        """True if the paper states the ordering."""
        return self.basis != OURS

    @property
    def difference(self) -> Summary:
        """Summary of the paired differences."""
        return summarize(self.differences)

    @property
    def verdict(self) -> str:
        """One of ``VERDICTS``: ``holds`` or ``fails`` if the 95% interval lies on one side of zero.

        One pair has no interval and is ``undecided``.
        """
        if not self.differences:
            return "not measured"
        ends = self.expected * self.difference.low, self.expected * self.difference.high
        return "holds" if min(ends) > 0 else "fails" if max(ends) < 0 else "undecided"

    @property
    def p_value(self) -> float:
        """Student's two-sided p-value of the difference, not corrected."""
        return p_value(self.difference)

    @property
    def survives(self) -> bool:
        """True if the claim is decided and stays so after Holm's correction."""
        return self.verdict in ("holds", "fails") and self.adjusted < 1 - CONFIDENCE


def claims(cells: Sequence[Cell]) -> list[Claim]:
    """Return every ordering between two cells of the plan that the paper states, and our own.

    Fixed variance (Table 2, Section 3.2): a silent gradient has the lower BPD, the lower MSE and, for continuous
    latents, needs fewer epochs. Learnable variance (Tables 3 and 4): each estimator with a silent gradient has the
    lower BPD and the higher KL than without, and the silent gradient alone has the lower BPD than REINFORCE.

    Ours: a silent gradient of the guide gives the lower BPD than a sampled one of the same guide on the same schedule.
    If the absence of variance helps, and not the second decoder, this ordering holds as well.
    """
    named = {cell.name: cell for cell in cells}
    found = []
    for cell in cells:
        for other, metric, expected, basis in _orderings(cell):
            second = named.get(f"{cell.dataset}/{cell.experiment}/{other}")
            if second is not None:
                found.append(_compare(cell, second, metric, expected, basis))
    for papers in (True, False):
        family = [place for place, claim in enumerate(found) if claim.of_the_paper == papers]
        for place, adjusted in zip(family, holm([found[place].p_value for place in family]), strict=True):
            found[place] = replace(found[place], adjusted=adjusted)
    return found


def _orderings(cell: Cell) -> Iterator[tuple[str, str, int, str]]:
    """Yield the orderings with a cell as the first: the other's method, the metric, the expected sign, the basis."""
    name, method = cell.method.name, cell.method
    if EXPERIMENTS[cell.experiment].fixed_variance:
        for other in _FIXED_VARIANCE.get(name, ()):
            yield other, "bpd", -1, "text"
            yield other, PUBLISHED_MSE, -1, "text"
            if method.posterior == "gaussian":
                yield other, "epochs_to_threshold", -1, "text"
    elif not EXPERIMENTS[cell.experiment].linear and not method.beyond:
        if method.silent and method.sampled_estimator != "none":
            yield method.sampled_estimator, "bpd", -1, "text"
            yield method.sampled_estimator, "kl", 1, "text"
        elif name == "silent-bernoulli":
            yield "reinforce", "bpd", -1, "text"
    if name.endswith("+silent"):
        yield name.removesuffix("+silent") + "+sampled", "bpd", -1, OURS


def _compare(first: Cell, second: Cell, metric: str, expected: int, basis: str) -> Claim:
    ours, theirs = published(first.name, metric), published(second.name, metric)
    known = math.nan if ours is None or theirs is None else ours - theirs
    if known and not math.isnan(known):
        # The paper's text has exceptions in its own tables (the KL of Gumbel-Softmax on CIFAR-10): the numbers decide.
        basis, expected = "published numbers", int(math.copysign(1, known))
    a, b = first.values(metric), second.values(metric)
    paired = sorted(a.keys() & b.keys())
    seeds = {run.seed for run in (*first.runs, *second.runs)}
    differences = tuple(a[seed] - b[seed] for seed in paired)
    return Claim(first, second, metric, expected, basis, known, differences, len(seeds) - len(paired))
