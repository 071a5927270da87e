"""The orderings as a table: differences on equal seeds with the verdicts on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from silent_study.report import printed
from silent_study.report.claims import Claim
from silent_study.report.context import Context
from silent_study.report.printed import METRIC_LABELS, NOTHING, Linked, Part, Table, group_name, number
from silent_study.words import counted


def orderings(found: Sequence[Claim], context: Context) -> Table:
    """Return the verdict on each ordering, by data set and experiment; the paper's before ours."""
    groups: dict[tuple[bool, str, str], list[dict[str, str]]] = {}
    for claim in sorted(found, key=lambda claim: not claim.of_the_paper):
        digits, difference = printed.DIGITS.get(claim.metric, 3), claim.difference
        by_seed = ", ".join(number(value, digits, sign=True) for value in claim.differences) or NOTHING
        decided = not math.isnan(claim.adjusted) and claim.verdict != "undecided"
        groups.setdefault((not claim.of_the_paper, claim.first.dataset, claim.first.experiment), []).append(
            {
                "Ordering": f"{claim.first.method.label} {'<' if claim.expected < 0 else '>'} "
                f"{claim.second.method.label}",
                "Verdict": claim.verdict,
                "Metric": METRIC_LABELS[claim.metric],
                "Difference": Linked(number(difference.mean, digits, sign=True), claim.first.name),
                "95% interval": printed.interval(
                    difference.low, difference.high, difference.n, digits, "pair", sign=True
                ),
                "Pairs": str(difference.n),
                "p": printed.probability(claim.p_value),
                "p, Holm": printed.probability(claim.adjusted),
                "After Holm": ("stands" if claim.survives else "does not stand") if decided else NOTHING,
                "Published": number(claim.published_difference, digits, sign=True),
                "Basis": claim.basis,
                "By seed": Linked(by_seed, claim.second.name),
            }
        )
    parts = [
        Part.of(f"{group_name(dataset, experiment, context, beyond)}: orderings on equal seeds", rows, headers=1)
        for (beyond, dataset, experiment), rows in groups.items()
    ]
    data = pd.DataFrame([_numbers(claim, context) for claim in found])
    return Table("claims", "Published orderings", tuple(_notes(found, context)), data, tuple(parts))


def _numbers(claim: Claim, context: Context) -> dict[str, object]:
    return {
        "preset": context.preset,
        "protocol": context.protocol,
        "dataset": claim.first.dataset,
        "experiment": claim.first.experiment,
        "first": claim.first.method.name,
        "second": claim.second.method.name,
        "metric": claim.metric,
        "expected": "lower" if claim.expected < 0 else "higher",
        "basis": claim.basis,
        "difference": claim.difference.mean,
        "low": claim.difference.low,
        "high": claim.difference.high,
        "p": claim.p_value,
        "p_holm": claim.adjusted,
        "pairs": claim.difference.n,
        "seeds_without_pair": claim.unpaired,
        "published_difference": claim.published_difference,
        "verdict": claim.verdict,
    }


def _notes(found: Sequence[Claim], context: Context) -> Iterator[str]:
    yield f"Preset {context.preset}, protocol {context.protocol}."
    yield (
        "Differences are first minus second on equal seeds: mean and 95% Student interval. An ordering holds or fails "
        "where the interval lies on one side of zero. Pairs are trainings, never evaluations of one. The difference "
        "leads to the first method's runs, the differences by seed to the second's."
    )
    papers, ours = (
        sum(claim.of_the_paper == papers and not math.isnan(claim.adjusted) for claim in found)
        for papers in (True, False)
    )
    yield (
        "p: Student's, two-sided, of the same paired differences. Holm: adjusted for the number of orderings by Holm's "
        f"procedure, over all data sets, experiments and metrics of this page at once: the {papers} orderings of the "
        f"paper with an interval are one family{f', the {ours} of ours another' if ours else ''}. An ordering that "
        "stands has an adjusted p below 0.05. The verdict takes each ordering alone, by the interval that is printed "
        "beside it."
    )
    yield (
        "Basis: the sign of the difference of the published numbers, or the paper's text where it has no numbers for "
        "the data set."
    )
    if not all(claim.of_the_paper for claim in found):
        yield (
            "Ours: the paper does not compare with a guide of a sampled gradient. If it is the absence of variance "
            "that helps, and not a second decoder beside the first, a silent guide has the lower BPD."
        )
    thresholds = {
        (claim.first.dataset, run.settings["threshold_bpd"])
        for claim in found
        if claim.metric == "epochs_to_threshold"
        for run in claim.first.runs
        if run.settings["threshold_bpd"] is not None
    }
    for dataset, threshold in sorted(thresholds):
        yield (
            f"Epochs to threshold on {context.title(dataset)}: the first with an evaluation of the selection split at "
            f"or below {threshold:g} bits/dim; a run that never gets there has none, and its seed no pair."
        )
    compared = {cell.name: cell for claim in found for cell in (claim.first, claim.second)}
    collapsed = [
        f"{cell.method.label} ({group_name(cell.dataset, cell.experiment, context)}, {len(cell.collapsed)} of "
        f"{len(cell.runs)} runs)"
        for cell in compared.values()
        if cell.collapsed
    ]
    if collapsed:
        yield (
            f"Collapsed: {', '.join(collapsed)}. What is compared with such a run is compared with a model whose codes "
            "say nothing of an image."
        )
    lost = sum(claim.unpaired for claim in found)
    if lost:
        yield (
            f"{counted(lost, 'seed')} had no pair, because one of the two runs diverged, is missing "
            "or has no such value."
        )
