"""The orderings of the paper and our own, with verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property

from silent_study.paper import PUBLISHED_MSE, THRESHOLD_BPD, published
from silent_study.report.cells import Cell, unequal
from silent_study.report.statistics import CONFIDENCE, Summary, holm, mcnemar_p, sign_flip_p, summarize
from silent_study.settings import EXPERIMENTS
from silent_study.words import counted

FEWEST_PAIRS = 6
"""Below this number of pairs an ordering is reproduced "so far" at most, and there is no sign-flip test."""

VERDICTS = {
    "reproduced": "good",
    "reproduced so far": "good",
    "same direction, other size": "good",
    "same direction": "good",
    "contradicted": "bad",
    "undecided": "open",
    "not comparable": "open",
    "not measured": "open",
}
"""The verdicts in the order of the report, and how it colours them."""

DECIDED = frozenset(verdict for verdict, colour in VERDICTS.items() if colour != "open")

EPOCHS = "epochs_to_threshold"
FAMILIES = {"bpd": "bits/dim", "kl": "KL", PUBLISHED_MSE: "squared error", EPOCHS: "speed"}
"""The family of an ordering of the paper by its metric: bits/dim is the primary one, the others are secondary."""
PRIMARY = FAMILIES["bpd"]
OURS = "ours"
"""Basis and family of a claim that the paper does not make."""

_FIXED_VARIANCE = {"silent-gaussian": ("reparameterization",), "silent-bernoulli": ("gumbel-softmax", "reinforce")}


@dataclass(frozen=True)
class Arm:
    """The runs of one method in a comparison."""

    values: Mapping[int, float]  # the compared metric by seed
    collapsed: Mapping[int, bool] = field(default_factory=dict)  # by seed, whether an evaluated run has collapsed
    seeds: Set[int] = frozenset()  # of all runs
    lengths: Set[tuple[str, ...]] = frozenset()  # what decides the number of steps of each run, see ``cells.length``
    raster: float = 0.0  # epochs between two evaluations if the metric is an epoch read off a curve

    @property
    def lost(self) -> int:
        """Number of collapsed runs."""
        return sum(self.collapsed.values())


@dataclass(frozen=True)
class Comparison:
    """A method and its baseline on equal seeds, and the verdict on an expected sign of their differences."""

    method: Arm
    baseline: Arm
    expected: int  # -1 if the method is expected to be lower, +1 if higher
    published_difference: float  # method minus baseline; ``nan`` without

    @cached_property
    def differences(self) -> dict[int, float]:
        """Method minus baseline by seed, of the seeds for which both have the metric."""
        paired = sorted(self.method.values.keys() & self.baseline.values.keys())
        return {seed: self.method.values[seed] - self.baseline.values[seed] for seed in paired}

    @property
    def unpaired(self) -> int:
        """Number of seeds for which one of the two or both lack the metric."""
        return len(self.method.seeds | self.baseline.seeds) - len(self.differences)

    @property
    def difference(self) -> Summary:
        """Summary of the differences; of epochs with the uncertainty of the rasters on which they were read."""
        return summarize(list(self.differences.values()), self._rasters)

    @property
    def conditional(self) -> Summary:
        """Summary of the differences of the pairs in which neither run collapsed: conditional on the outcome."""
        return summarize([value for seed, value in self.differences.items() if not self._lost(seed)], self._rasters)

    @property
    def p_value(self) -> float:
        """Student's two-sided p-value; of epochs the larger one of that with missing pairs counted against."""
        return max(summarize(values, self._rasters).p for values in self._counted)

    @property
    def sign_flip_p(self) -> float:
        """P-value of the exact sign-flip test, as ``p_value``; ``nan`` below ``FEWEST_PAIRS`` pairs."""
        enough = len(self.differences) >= FEWEST_PAIRS
        return max(sign_flip_p(values, self._rasters) for values in self._counted) if enough else math.nan

    @property
    def mcnemar_p(self) -> float:
        """P-value of McNemar's exact test that the runs of both collapse equally often; ``nan`` without pairs."""
        both = self.method.collapsed.keys() & self.baseline.collapsed.keys()
        outcomes = [(self.method.collapsed[seed], self.baseline.collapsed[seed]) for seed in both]
        return mcnemar_p(outcomes.count((True, False)), outcomes.count((False, True))) if outcomes else math.nan

    @property
    def steps(self) -> tuple[str, str]:
        """What the numbers of steps of the two differ by, in words; empty if they are equal or one has no run."""
        method, baseline = unequal([self.method.lengths, self.baseline.lengths])
        return method, baseline

    @property
    def verdict(self) -> str:
        """One of ``VERDICTS``, by sign, size and baseline.

        ``not comparable``: a run of the baseline collapsed, which the published one did not. ``undecided``: the
        interval contains zero, or there is one pair. ``contradicted``: it lies on the other side. ``reproduced``: it
        lies on the expected side and contains the published difference; ``so far`` below ``FEWEST_PAIRS`` pairs.
        ``same direction``: it lies there; ``other size`` if it does not contain the published difference.

        A missing pair of a number of epochs is counted against the ordering, with the largest of the differences.
        """
        if not self.differences:
            return "not measured"
        if self.baseline.lost:
            return "not comparable"
        if self._sides(self.difference)[1] < 0:
            return "contradicted"
        if not all(self._sides(summarize(values, self._rasters))[0] > 0 for values in self._counted):
            return "undecided"
        if math.isnan(self.published_difference):
            return "same direction"
        if not self.difference.low <= self.published_difference <= self.difference.high:
            return "same direction, other size"
        return "reproduced" if len(self.differences) >= FEWEST_PAIRS else "reproduced so far"

    @property
    def _rasters(self) -> tuple[float, float]:
        return self.method.raster, self.baseline.raster

    @property
    def _counted(self) -> list[list[float]]:
        """The differences, and those with missing pairs counted against the ordering, where that is to be done."""
        values = list(self.differences.values())
        if not (values and self.unpaired and any(self._rasters)):
            return [values]
        against = -self.expected * max(map(abs, values))
        return [values, values + [against] * self.unpaired]

    def _lost(self, seed: int) -> bool:
        return self.method.collapsed.get(seed, False) or self.baseline.collapsed.get(seed, False)

    def _sides(self, found: Summary) -> tuple[float, float]:
        """Return the ends of an interval, the expected side upwards."""
        ends = self.expected * found.low, self.expected * found.high
        return min(ends), max(ends)


@dataclass(frozen=True)
class Claim(Comparison):
    """One ordering between two cells of the plan and its test."""

    first: Cell  # with the silent gradient, the method of the comparison
    second: Cell  # the baseline
    metric: str
    basis: str  # of the expectation: ``published numbers``, ``text`` if the paper has no such numbers, or ``ours``
    adjusted: float = math.nan  # p-value after Holm's correction over the claims of its family

    @property
    def of_the_paper(self) -> bool:
        """True if the paper states the ordering."""
        return self.basis != OURS

    @property
    def family(self) -> str:
        """The claims over which its p-value is corrected."""
        return FAMILIES[self.metric] if self.of_the_paper else OURS

    @property
    def survives(self) -> bool:
        """True if the claim is decided and stays so after Holm's correction."""
        return self.verdict in DECIDED and self.adjusted < 1 - CONFIDENCE


def claims(cells: Sequence[Cell]) -> list[Claim]:
    """Return every ordering between two cells of the plan that the paper states, and our own.

    Fixed variance (Table 2, Section 3.2): a silent gradient has the lower BPD, the lower MSE and, for continuous
    latents, needs fewer epochs. Learnable variance (Tables 3 and 4): each estimator with a silent gradient has the
    lower BPD and the higher KL than without, and the silent gradient alone has the lower BPD than REINFORCE.

    Ours: a silent gradient has the lower BPD with a two-layer decoder, and as a guide the lower than a sampled one.
    """
    named = {cell.name: cell for cell in cells}
    found = []
    for cell in cells:
        for other, metric, expected, basis in _orderings(cell):
            second = named.get(f"{cell.dataset}/{cell.experiment}/{other}")
            if second is not None:
                found.append(_compare(cell, second, metric, expected, basis))
    adjusted = adjusted_by_family([(claim.family, claim.p_value) for claim in found])
    return [replace(claim, adjusted=value) for claim, value in zip(found, adjusted, strict=True)]


def headline(found: Sequence[Claim]) -> str:
    """Return the verdicts on the paper's orderings in bits/dim in one line."""
    verdicts = [claim.verdict for claim in found if claim.family == PRIMARY]
    if not verdicts:
        return "No two cells of this plan are ordered by the paper"
    early = any(claim.difference.n < FEWEST_PAIRS for claim in found if claim.family == PRIMARY)
    good = sum(VERDICTS[verdict] == "good" for verdict in verdicts)
    sized = sum(verdict.startswith("reproduced") for verdict in verdicts)
    others = [f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS if VERDICTS[verdict] == "open"]
    return (
        f"{good} of {counted(len(verdicts), 'ordering')} {'so far ' * early}as published"
        f"{f' ({sized} in size as well)' if sized else ''}, {verdicts.count('contradicted')} contradicted, "
        + ", ".join(text for text in others if not text.startswith("0 ") or text.endswith("undecided"))
    )


def adjusted_by_family(p_values: Sequence[tuple[str, float]]) -> list[float]:
    """Return the p-values after Holm's correction, each over those of the same family, which it stands beside."""
    adjusted = [math.nan] * len(p_values)
    for family in dict.fromkeys(name for name, _ in p_values):
        places = [place for place, (name, _) in enumerate(p_values) if name == family]
        for place, value in zip(places, holm([p_values[place][1] for place in places]), strict=True):
            adjusted[place] = value
    return adjusted


def _orderings(cell: Cell) -> Iterator[tuple[str, str, int, str]]:
    """Yield the orderings with a cell as the first: the other's method, the metric, the expected sign, the basis."""
    name, method = cell.method.name, cell.method
    if EXPERIMENTS[cell.experiment].fixed_variance:
        for other in _FIXED_VARIANCE.get(name, ()):
            yield other, "bpd", -1, "text"
            yield other, PUBLISHED_MSE, -1, "text"
            if method.posterior == "gaussian":
                yield other, EPOCHS, -1, "text"
    elif EXPERIMENTS[cell.experiment].decoder == "two-layer":
        for other in _FIXED_VARIANCE.get(name, ()):
            yield other, "bpd", -1, OURS
    elif not EXPERIMENTS[cell.experiment].exact and not method.beyond:
        if method.silent and method.sampled_estimator != "none":
            yield method.sampled_estimator, "bpd", -1, "text"
            yield method.sampled_estimator, "kl", 1, "text"
        elif name == "silent-bernoulli":
            yield "reinforce", "bpd", -1, "text"
    if name.endswith("+silent"):
        yield name.removesuffix("+silent") + "+sampled", "bpd", -1, OURS


def _compare(first: Cell, second: Cell, metric: str, expected: int, basis: str) -> Claim:
    thresholds = {run.settings["threshold_bpd"] for run in (*first.runs, *second.runs)}
    ours, theirs = published(first.name, metric), published(second.name, metric)
    # Epochs are published for one threshold.
    comparable = metric != EPOCHS or thresholds <= {THRESHOLD_BPD}
    known = math.nan if ours is None or theirs is None or not comparable else ours - theirs
    if abs(known) > 0:
        # The paper's text has exceptions in its own tables (the KL of Gumbel-Softmax on CIFAR-10): the numbers decide.
        basis, expected = "published numbers", int(math.copysign(1, known))
    return Claim(_arm(first, metric), _arm(second, metric), expected, known, first, second, metric, basis)


def _arm(cell: Cell, metric: str) -> Arm:
    return Arm(
        cell.values(metric),
        cell.collapsed,
        {run.seed for run in cell.runs},
        cell.lengths,
        max((float(run.settings["evaluate_every"]) for run in cell.runs), default=0.0) if metric == EPOCHS else 0.0,
    )
