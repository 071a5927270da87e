"""The paper's orderings and one of ours, checked on equal seeds: with against without the silent gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from silent_study.paper import PUBLISHED_MSE, published
from silent_study.report.summary import CONFIDENCE, Cell, Summary, holm, p_value, summarize
from silent_study.settings import EXPERIMENTS

OURS = "ours"
"""Basis of a claim that goes beyond the paper."""


@dataclass(frozen=True)
class Claim:
    """One ordering between two methods and what equal seeds say of it.

    Attributes:
        first: Cell with the silent gradient.
        second: Cell that it is compared with.
        metric: Name of the compared metric.
        expected: -1 where the first is to be lower, +1 where higher.
        basis: Where the expectation is from: ``published numbers``, ``text`` where the paper has no such numbers, or
            ``ours``.
        published_difference: First minus second as published; ``nan`` without.
        difference: Summary of first minus second over the paired seeds.
        unpaired: Number of seeds for which only one of the two, or neither, has the metric.
        differences: First minus second of each paired seed, in the order of the seeds.
        adjusted: P-value of the difference after Holm's correction over the claims of its family: the paper's, or ours.
    """

    first: Cell
    second: Cell
    metric: str
    expected: int
    basis: str
    published_difference: float
    difference: Summary
    unpaired: int
    differences: tuple[float, ...] = ()
    adjusted: float = math.nan

    @property
    def of_the_paper(self) -> bool:
        """Whether the paper states the ordering."""
        return self.basis != OURS

    @property
    def verdict(self) -> str:
        """``holds`` or ``fails`` where the 95% interval lies on one side of zero, else ``undecided``.

        ``not measured`` is a claim without a pair of runs; one pair has no interval and decides nothing.
        """
        if not self.difference.n:
            return "not measured"
        if self.difference.n == 1:
            return "undecided"
        low, high = sorted((self.expected * self.difference.low, self.expected * self.difference.high))
        return "holds" if low > 0 else "fails" if high < 0 else "undecided"

    @property
    def p_value(self) -> float:
        """Student's two-sided p-value of the difference, not corrected."""
        return p_value(self.difference)

    @property
    def survives(self) -> bool:
        """Whether the verdict is a decision that Holm's correction leaves standing."""
        return self.verdict in ("holds", "fails") and self.adjusted < 1 - CONFIDENCE


def claims(cells: Sequence[Cell]) -> list[Claim]:
    """Every ordering between two cells of the plan that the paper states, and ours.

    Fixed variance (Table 2, Section 3.2): a silent gradient has the lower BPD, the lower MSE and, for continuous
    latents, needs fewer epochs. Learnable variance (Tables 3 and 4): each estimator with a silent gradient has the
    lower BPD and the higher KL than without, and the silent gradient alone has the lower BPD than REINFORCE.

    Ours: a silent gradient of the guide gives the lower BPD than a sampled one of the same guide on the same schedule.
    If it is the absence of variance that helps, and not the second decoder, this ordering holds as well.
    """
    named = {cell.name: cell for cell in cells}
    found = []
    for cell in cells:
        orderings = [("text", *ordering) for ordering in _orderings(cell)]
        if cell.method.name.endswith("+silent"):
            orderings.append((OURS, cell.method.name.removesuffix("+silent") + "+sampled", "bpd", -1))
        for basis, other, metric, expected in orderings:
            second = named.get(f"{cell.dataset}/{cell.experiment}/{other}")
            if second is not None:
                found.append(_compare(cell, second, metric, expected, basis))
    return _corrected(found)


def _corrected(found: Sequence[Claim]) -> list[Claim]:
    """The claims with their adjusted p-values: the paper's are one family, ours another."""
    adjusted: dict[int, float] = {}
    for papers in (True, False):
        family = [place for place, claim in enumerate(found) if claim.of_the_paper == papers]
        adjusted |= zip(family, holm([found[place].p_value for place in family]), strict=True)
    return [replace(claim, adjusted=adjusted[place]) for place, claim in enumerate(found)]


def _orderings(cell: Cell) -> Iterator[tuple[str, str, int]]:
    """The paper's orderings with a cell as the first: the other's method, the metric and the expected sign."""
    method = cell.method.name
    if cell.method.beyond:
        return
    if EXPERIMENTS[cell.experiment].fixed_variance:
        others = {"silent-gaussian": ("reparameterization",), "silent-bernoulli": ("gumbel-softmax", "reinforce")}
        for other in others.get(method, ()):
            yield other, "bpd", -1
            yield other, PUBLISHED_MSE, -1
        if method == "silent-gaussian":
            yield "reparameterization", "epochs_to_threshold", -1
    elif EXPERIMENTS[cell.experiment].linear:
        return
    elif cell.method.silent and cell.method.sampled_estimator != "none":
        yield cell.method.sampled_estimator, "bpd", -1
        yield cell.method.sampled_estimator, "kl", 1
    elif method == "silent-bernoulli":
        yield "reinforce", "bpd", -1


def _compare(first: Cell, second: Cell, metric: str, expected: int, basis: str) -> Claim:
    ours, theirs = published(first.name, metric), published(second.name, metric)
    known = None if ours is None or theirs is None else ours - theirs
    if known:
        basis = "published numbers"
        # The paper's text has exceptions in its own tables (the KL of Gumbel-Softmax on CIFAR-10): the numbers decide.
        expected = int(math.copysign(1, known))
    a, b = first.values(metric), second.values(metric)
    paired = sorted(a.keys() & b.keys())
    seeds = {run.seed for run in (*first.runs, *second.runs)}
    differences = tuple(a[seed] - b[seed] for seed in paired)
    return Claim(
        first,
        second,
        metric,
        expected,
        basis,
        math.nan if known is None else known,
        summarize(differences),
        len(seeds) - len(paired),
        differences,
    )
