"""The orderings as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import pandas as pd

from silent_study.report import printed
from silent_study.report.cells import Context
from silent_study.report.claims import DECIDED, EPOCHS, FEWEST_PAIRS, OURS, PRIMARY, Claim
from silent_study.report.grids import GridPoint
from silent_study.report.printed import METRIC_LABELS, NOTHING, Part, Table, Text, number
from silent_study.report.statistics import Summary
from silent_study.words import counted


def orderings(found: Sequence[Claim], points: Sequence[GridPoint], context: Context) -> Table:
    """Return the verdict on each ordering, by data set and experiment; the paper's before ours."""
    groups: dict[tuple[bool, str, str], list[dict[str, str]]] = {}
    for claim in sorted(found, key=lambda claim: not claim.of_the_paper):
        group = not claim.of_the_paper, claim.first.dataset, claim.first.experiment
        groups.setdefault(group, []).append(_printed(claim, marks(claim, points)))
    parts = [
        Part.of(
            f"{context.group(dataset, experiment, beyond)}: orderings on equal seeds",
            rows,
            headers=1,
            main={"Verdict", "Metric", "Published", "Difference", "95% interval", "After Holm"},
        )
        for (beyond, dataset, experiment), rows in groups.items()
    ]
    data = pd.DataFrame([_numbers(claim, marks(claim, points), context) for claim in found])
    return Table("claims", "Published orderings", tuple(_notes(found, points, context)), data, tuple(parts))


def labels(claim: Claim) -> tuple[str, str]:
    """Return the names of both methods, each with what the numbers of steps of the two differ by."""
    sides = zip((claim.first, claim.second), claim.steps, strict=True)
    first, second = (f"{cell.method.label}{f' ({steps})' if steps else ''}" for cell, steps in sides)
    return first, second


def marks(claim: Claim, points: Sequence[GridPoint]) -> str:
    """Return what limits a comparison by its grids: unequal numbers of configurations, points selected at an edge."""
    cells = (claim.first, claim.second)
    grids = [[point for point in points if point.run.cell == cell.name] for cell in cells]
    tried, other_tried = map(len, grids)
    found = [f"of {tried} and {other_tried} configurations"] if 0 < tried != other_tried > 0 else []
    edges = [next((", ".join(point.edges) for point in grid if point.edges), "") for grid in grids]
    if edges[0] and edges[0] == edges[1]:
        found.append(f"both at the edge of {edges[0]}")
    else:
        named = zip(cells, edges, strict=True)
        found += [f"{cell.method.label} at the edge of {axes}" for cell, axes in named if axes]
    return "; ".join(found)


def collapses(claim: Claim) -> str:
    """Return how many runs of each method collapsed; empty if none did."""
    counts = [f"{arm.lost} of {len(arm.collapsed)}" for arm in (claim.method, claim.baseline)]
    return " and ".join(counts) if claim.method.lost or claim.baseline.lost else ""


def _printed(claim: Claim, limits: str) -> dict[str, str]:
    digits, difference, rest = printed.DIGITS.get(claim.metric, 3), claim.difference, claim.conditional
    by_seed = ", ".join(number(value, digits, sign=True) for value in claim.differences.values()) or NOTHING
    decided = not math.isnan(claim.adjusted) and claim.verdict in DECIDED
    lost = collapses(claim)

    def interval(found: Summary) -> str:
        return printed.interval(found.low, found.high, found.n, digits, "pair", sign=True)

    conditional = " ".join(filter(None, [number(rest.mean, digits, sign=True), interval(rest) if rest.n > 1 else ""]))
    return {
        "Ordering": (" < " if claim.expected < 0 else " > ").join(labels(claim)),
        "Verdict": claim.verdict,
        "Metric": METRIC_LABELS[claim.metric].partition(",")[0],
        "Published": number(claim.published_difference, digits, sign=True),
        "Difference": Text(number(difference.mean, digits, sign=True), claim.first.name),
        "95% interval": interval(difference),
        "Pairs": f"{difference.n}{f', {claim.unpaired} missing' if claim.unpaired else ''}",
        "p": printed.probability(claim.p_value),
        "p, sign flips": printed.probability(claim.sign_flip_p),
        "p, Holm": printed.probability(claim.adjusted),
        "After Holm": ("stands" if claim.survives else "does not stand") if decided else NOTHING,
        "Collapsed": f"{lost}, p {printed.probability(claim.mcnemar_p)}" if lost else NOTHING,
        "Conditional: neither collapsed": f"{conditional}, n = {rest.n}" if lost else NOTHING,
        "Basis": claim.basis,
        "Marks": printed.named(limits) or NOTHING,
        "By seed": Text(by_seed, claim.second.name),
    }


def _numbers(claim: Claim, limits: str, context: Context) -> dict[str, object]:
    return {
        "preset": context.preset,
        "protocol": context.protocol,
        "dataset": claim.first.dataset,
        "experiment": claim.first.experiment,
        "first": claim.first.method.name,
        "second": claim.second.method.name,
        "metric": claim.metric,
        "family": claim.family,
        "expected": "lower" if claim.expected < 0 else "higher",
        "basis": claim.basis,
        "difference": claim.difference.mean,
        "low": claim.difference.low,
        "high": claim.difference.high,
        "p": claim.p_value,
        "p_sign_flip": claim.sign_flip_p,
        "p_holm": claim.adjusted,
        "pairs": claim.difference.n,
        "seeds_without_pair": claim.unpaired,
        "published_difference": claim.published_difference,
        "collapsed_first": claim.method.lost,
        "collapsed_second": claim.baseline.lost,
        "p_mcnemar": claim.mcnemar_p,
        **{f"conditional_{key}": getattr(claim.conditional, key) for key in ("mean", "low", "high", "n")},
        "steps_first": claim.steps[0],
        "steps_second": claim.steps[1],
        "marks": limits,
        "verdict": claim.verdict,
    }


def _notes(found: Sequence[Claim], points: Sequence[GridPoint], context: Context) -> Iterator[str]:
    yield f"Preset {context.preset}, protocol {context.protocol}."
    yield (
        "Differences are first minus second on equal seeds: mean and 95% Student interval over pairs of trainings. The "
        "difference leads to the first method's runs, the differences by seed to the second's."
    )
    yield (
        'Reproduced: the interval excludes 0 and contains the published difference, "so far" below '
        f"{FEWEST_PAIRS} pairs. Same direction: it excludes 0, and the paper has no number for the data set, or the "
        "size is another one. Contradicted: it lies on the other side. Not comparable: a run of the second method "
        "collapsed, which the published one did not. Undecided: it contains 0, or there is one pair."
    )
    sizes = Counter(claim.family for claim in found)
    yield (
        f"p: Student's, two-sided. Sign flips: the exact test that needs symmetry alone, from {FEWEST_PAIRS} pairs on. "
        "Holm: Student's p, adjusted by Holm's procedure within its family, over all data sets and experiments of "
        f"this page: {', '.join(f'{family} ({size})' for family, size in sizes.items()) or 'none'}. The paper's "
        f"orderings in {PRIMARY} are the primary family, all others are secondary. An ordering that stands has an "
        "adjusted p below 0.05. The verdict takes each ordering alone, by the interval beside it."
    )
    yield "Basis: the sign of the published difference, or the paper's text where it has no numbers for the data set."
    if any(claim.family == OURS for claim in found):
        yield (
            "Ours: the paper does not compare with a guide of a sampled gradient. If it is the absence of variance "
            "that helps, and not a second decoder beside the first, a silent guide has the lower BPD."
        )
    read = [claim for claim in found if claim.metric == EPOCHS]
    thresholds = {(claim.first.dataset, run.settings["threshold_bpd"]) for claim in read for run in claim.first.runs}
    for dataset, threshold in sorted((name, value) for name, value in thresholds if value is not None):
        yield (
            f"Epochs to threshold on {context.title(dataset)}: the first with an evaluation of the selection split at "
            f"or below {threshold:g} bits/dim. Evaluations lie some epochs apart: the interval is wider by that "
            "distance. A seed that never gets there counts against the ordering, with the largest of the differences."
        )
    if any(map(collapses, found)):
        yield (
            "Collapsed: runs of the first and of the second method whose latent variables carry next to no "
            "information on an image, with the p-value of McNemar's exact test. A difference to such a run is one to "
            "another model; the difference over the pairs in which neither collapsed is conditional on the outcome."
        )
    reported = {(run.cell, run.seed) for claim in found for cell in (claim.first, claim.second) for run in cell.runs}
    grids = Counter((point.run.cell, point.run.seed) for point in points)
    if selecting := sorted({seed for (cell, seed), tried in grids.items() if tried > 1 and (cell, seed) in reported}):
        seeds = ", ".join(map(str, selecting))
        yield f"Seed {seeds} selected the configurations and is reported as well, which favours the selected ones."
    if missing := sum(claim.unpaired for claim in found):
        yield f"{counted(missing, 'seed')} had no pair: one of the two runs diverged, is missing or has no such value."
