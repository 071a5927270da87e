"""The published orderings: differences on equal seeds, and what is left of them at equal budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence

from silent_study.methods import METHODS
from silent_study.report import tables
from silent_study.report.claims import Claim
from silent_study.report.context import Context, Record
from silent_study.report.equal_budgets import equal_budgets
from silent_study.report.layout.printed import Linked, Part, Table, as_rows, group_name, grouped
from silent_study.report.layout.text import DIGITS, METRIC_LABELS, NOTHING, number, pairs_interval, probability


def orderings(found: Sequence[Claim], context: Context) -> Table:
    """The verdict on each ordering, by data set and experiment; the paper's before ours."""
    data = tables.claim_table(found, context)
    groups: dict[tuple[bool, str, str], list[dict[str, str | Linked]]] = {}
    for claim in sorted(found, key=lambda claim: not claim.of_the_paper):
        digits, difference = DIGITS.get(claim.metric, 3), claim.difference
        sign = "<" if claim.expected < 0 else ">"
        groups.setdefault((not claim.of_the_paper, claim.first.dataset, claim.first.experiment), []).append(
            {
                "Ordering": f"{claim.first.method.label} {sign} {claim.second.method.label}",
                "Verdict": claim.verdict,
                "Metric": METRIC_LABELS[claim.metric],
                "Difference": Linked(number(difference.mean, digits, sign=True), claim.first.name),
                "95% interval": pairs_interval(difference.low, difference.high, difference.n, digits),
                "Pairs": str(difference.n),
                "p": probability(claim.p_value),
                "p, Holm": probability(claim.adjusted),
                "After Holm": _after_holm(claim),
                "Published": number(claim.published_difference, digits, sign=True),
                "Basis": claim.basis,
                "By seed": Linked(
                    ", ".join(number(value, digits, sign=True) for value in claim.differences) or NOTHING,
                    claim.second.name,
                ),
            }
        )
    lost = sum(claim.unpaired for claim in found)
    notes = [
        f"Preset {context.preset}, protocol {context.protocol}.",
        "Differences are first minus second on equal seeds: mean and 95% Student interval. An ordering holds or fails "
        "where the interval lies on one side of zero. Pairs are trainings, never evaluations of one. The difference "
        "leads to the first method's runs, the differences by seed to the second's.",
        _about_holm(found),
        "Basis: the sign of the difference of the published numbers, or the paper's text where it has no numbers for "
        "the data set.",
    ]
    if any(beyond for beyond, *_ in groups):
        notes.append(
            "Ours: the paper does not compare with a guide of a sampled gradient. If it is the absence of variance "
            "that helps, and not a second decoder beside the first, a silent guide has the lower BPD."
        )
    notes += [*_about_thresholds(found, context), *_about_collapse(found, context)]
    if lost:
        notes.append(
            f"{lost} {'seed' if lost == 1 else 'seeds'} had no pair, because one of the two runs diverged, is missing "
            "or has no such value."
        )
    parts = [
        Part.of(f"{group_name(dataset, experiment, context, beyond)}: orderings on equal seeds", rows, headers=1)
        for (beyond, dataset, experiment), rows in groups.items()
    ]
    return Table("claims", "Published orderings", tuple(notes), data, tuple(parts))


def _after_holm(claim: Claim) -> str:
    if math.isnan(claim.adjusted) or claim.verdict == "undecided":
        return NOTHING
    return "stands" if claim.survives else "does not stand"


def _about_thresholds(found: Sequence[Claim], context: Context) -> list[str]:
    """The threshold of each data set that epochs are counted to."""
    thresholds = {
        (claim.first.dataset, run.settings["threshold_bpd"])
        for claim in found
        if claim.metric == "epochs_to_threshold"
        for run in claim.first.runs
        if run.settings["threshold_bpd"] is not None
    }
    return [
        f"Epochs to threshold on {context.title(dataset)}: the first with an evaluation of the selection split at or "
        f"below {threshold:g} bits/dim; a run that never gets there has none, and its seed no pair."
        for dataset, threshold in sorted(thresholds)
    ]


def _about_collapse(found: Sequence[Claim], context: Context) -> list[str]:
    """Which of the compared cells have runs that collapsed."""
    compared = {cell.name: cell for claim in found for cell in (claim.first, claim.second)}
    listed = [
        f"{cell.method.label} ({group_name(cell.dataset, cell.experiment, context)}, {len(cell.collapsed)} of "
        f"{len(cell.runs)} runs)"
        for cell in compared.values()
        if cell.collapsed
    ]
    if not listed:
        return []
    return [
        f"Collapsed: {', '.join(listed)}. What is compared with such a run is compared with a model whose codes say "
        "nothing of an image."
    ]


def _about_holm(found: Sequence[Claim]) -> str:
    sizes = [
        sum(claim.of_the_paper == papers and not math.isnan(claim.adjusted) for claim in found)
        for papers in (True, False)
    ]
    ours = f", the {sizes[1]} of ours another" if sizes[1] else ""
    return (
        "p: Student's, two-sided, of the same paired differences. Holm: adjusted for the number of orderings by Holm's "
        f"procedure, over all data sets, experiments and metrics of this page at once: the {sizes[0]} orderings of the "
        f"paper with an interval are one family{ours}. An ordering that stands has an adjusted p below 0.05. The "
        "verdict takes each ordering alone, by the interval that is printed beside it."
    )


def at_equal_budgets(found: Sequence[Claim], records: Sequence[Record], context: Context) -> Table:
    """What each side of an ordering may expect of as many configurations as the other tried."""
    data = equal_budgets(found, records, context)
    parts = []
    for (dataset, experiment), group in grouped(data, "dataset", "experiment"):
        rows = [
            {
                "Ordering": " < ".join(METHODS[experiment][row[side]].label for side in ("first", "second")),
                "Tried": f"{row['tried_first']} and {row['tried_second']}",
                "Best of all": f"{number(row['best_first'])} and {number(row['best_second'])}",
                "Equal budget": str(row["budget"]),
                "Expected best": f"{number(row['expected_first'])} and {number(row['expected_second'])}",
                "Difference": number(row["expected_first"] - row["expected_second"], sign=True),
            }
            for row in as_rows(group)
        ]
        parts.append(Part.of(f"{group_name(dataset, experiment, context)}: BPD at equal budgets", rows, 1, folded=True))
    notes = (
        f"Preset {context.preset}, protocol {context.protocol}.",
        "BPD on the selection split, one seed. A method that tried more configurations is selected among more: the "
        "expected best is that of as many as the other tried, drawn at random without replacement from all of its own. "
        "Of a grid over fixed variances, the configurations of the selected one count.",
        "A guided method takes over its baseline's learning rate; the baseline's trials of rates are the baseline's.",
    )
    return Table("equal-budgets", "Equal budgets", notes, data, tuple(parts))
