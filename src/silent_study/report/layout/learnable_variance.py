"""Tables 3 and 4: a metric without and with silent gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from silent_study.methods import GUIDANCE, METHODS
from silent_study.report import tables
from silent_study.report.context import Context
from silent_study.report.layout.notes import (
    ABOUT_FACTOR_ANALYSIS,
    about_controls,
    about_published,
    about_weighted,
    facts,
    made_from,
)
from silent_study.report.layout.printed import BEYOND, Linked, Part, Table, as_rows, grouped
from silent_study.report.layout.text import (
    DIGITS,
    METRIC_LABELS,
    NOTHING,
    interval,
    monte_carlo,
    number,
    weighted_text,
)
from silent_study.report.summary import Cell
from silent_study.settings import EXPERIMENTS


def by_guidance(name: str, title: str, metric: str, cells: Sequence[Cell], context: Context) -> Table:
    """A metric of the cells with a learnable variance: compact as in the paper, then in detail."""
    weighted = tables.importance_weighted(cells, "learnable") if metric == "bpd" else ()
    data = tables.measurements(cells, context, "learnable", (metric, *weighted))
    digits, label = DIGITS[metric], METRIC_LABELS[metric]
    rows: dict[tuple[str, str], dict[tuple[str, str], str | Linked]] = {}
    details: dict[tuple[str, bool], list[dict[str, str | Linked]]] = {}
    papers: set[tuple[str, str]] = {_FACTOR_ANALYSIS}
    for (dataset, name_of_method), group_of_rows in grouped(data, "dataset", "method"):
        by_metric = {row["metric"]: row for row in as_rows(group_of_rows)}
        row, method = by_metric[metric], METHODS["learnable"][name_of_method]
        key = (method.space, method.estimator_label)
        if not method.beyond:
            papers.add(key)
        cell = rows.setdefault(key, {("", "Posterior"): key[0], ("", "Estimator"): key[1]})
        group = context.title(dataset)
        measured = partial(Linked, target=f"{dataset}/learnable/{name_of_method}")
        cell[(group, _COLUMNS[method.guidance])] = measured(_with_interval(row, digits))
        cell[(group, f"published {method.guidance}")] = number(row["published"], 2)
        details.setdefault((group, method.beyond), []).append(
            {
                "Posterior": method.space,
                "Method": method.label,
                label: measured(number(row["measured"], digits)),
                "sd": number(row["sd"], digits),
                "95% interval": interval(row["low"], row["high"], row["seeds"], digits),
                "Published": number(row["published"], 2),
                "Difference": number(row["difference"], digits, sign=True),
                **({"Monte-Carlo error": monte_carlo(row["monte_carlo_error"])} if metric == "bpd" else {}),
                "Importance-weighted": measured(weighted_text(by_metric.get(tables.IMPORTANCE_WEIGHTED))),
                **{column: text for (_, column), text in made_from(row).items()},
            }
        )
    for dataset in dict.fromkeys(row["dataset"] for row in as_rows(data)):
        reached = tables.factor_analysis(context, dataset, "learnable", metric)
        if not math.isnan(reached):
            key = _FACTOR_ANALYSIS
            cell = rows.setdefault(key, {("", "Posterior"): key[0], ("", "Estimator"): key[1]})
            cell[(context.title(dataset), "without SG")] = number(reached, digits)
    notes = [
        *facts(data, context),
        f"{label} in {'bits/dim' if metric == 'bpd' else 'nats per image'}: mean over seeds with its 95% Student "
        "interval. SG: the silent gradient of a linear decoder guides the encoder. A star marks a cell whose status, "
        "in its details below, says more.",
        *about_published(data),
    ]
    notes += [*about_controls(data), *(about_weighted(cells, "learnable") if weighted else [])]
    if len(data) and data["closed_form"].notna().any():
        notes.append(f"Factor analysis: {ABOUT_FACTOR_ANALYSIS}")
    if any(row["guidance"] == "with sampled guide" for row in as_rows(data)):
        notes.append(
            "Sampled guide: the same guide and schedule with a gradient that is estimated as the reported decoder's; "
            "what it lacks beside SG is silence alone."
        )
    groups = [(group, column) for group in dict.fromkeys(group for group, _ in details) for column in _GUIDANCE]
    parts = []
    for beyond in (False, True):
        compact = [
            {column: row.get(column, NOTHING) for column in (*_ROW_NAMES, *groups)}
            for key, row in rows.items()
            if (key not in papers) == beyond
        ]
        if compact:
            caption = f"{'Beyond the paper: ' if beyond else ''}{label} without and with silent gradients"
            parts.append(Part.of(caption, compact, headers=2))
    for (group, beyond), lines in details.items():
        mark = f", {BEYOND}" if beyond else ""
        caption = f"{group}, {EXPERIMENTS['learnable'].title}{mark}: {label} in detail"
        parts.append(Part.of(caption, lines, 2, folded=True))
    return Table(name, title, tuple(notes), data, tuple(parts))


_ROW_NAMES = (("", "Posterior"), ("", "Estimator"))


_FACTOR_ANALYSIS = ("Continuous", "Factor analysis")


_COLUMNS = {guidance: guidance for guidance in GUIDANCE[:2]} | {GUIDANCE[2]: f"{GUIDANCE[2]} ({BEYOND})"}


_GUIDANCE = (*_COLUMNS.values(), *(f"published {guidance}" for guidance in GUIDANCE[:2]))


def _with_interval(row: dict[str, Any], digits: int) -> str:
    if not row["seeds"]:
        return str(row["status"])
    star = "" if row["status"] == "complete" else " *"
    bounds = "(one seed)" if row["seeds"] == 1 else interval(row["low"], row["high"], row["seeds"], digits)
    return f"{number(row['measured'], digits)} {bounds}{star}"
