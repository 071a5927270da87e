"""The pages of cells and runs: settings, curves beside those of compared cells, results, origin, and training time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from silent_study.methods import METHODS
from silent_study.paper import PUBLISHED_MSE
from silent_study.report.cells import Cell, by_cell, described, device, revision, run_status
from silent_study.report.charts import Chart, Line, LineStyle, chart, thinned
from silent_study.report.claims import Claim
from silent_study.report.context import Context, Record
from silent_study.report.figures import cell_styles
from silent_study.report.layout.printed import (
    METRIC_LABELS,
    NOTHING,
    Linked,
    Part,
    group_name,
    interval,
    number,
    setting,
    significant,
)
from silent_study.report.statistics import summarize
from silent_study.report.tables import leaves

_POINTS_OF_A_CELL = 80
_POINTS_OF_A_RUN = 40
_TITLE = "Bits per dimension by epoch"

Facts = tuple[tuple[str, str], ...]
"""Pairs of a name and a text."""


@dataclass(frozen=True)
class RunPage:
    """One run.

    Attributes:
        title: The settings in which it differs from the other runs of its cell.
        reported: True if the cell's numbers are means over this run and others.
        measured: BPD, KL and MSE as text: on the report split, or on the selection split if it was not evaluated there.
        split: The split of ``measured``.
        facts: Settings of its own, results, and what made it.
        digests: SHA-256 by file.
    """

    name: str
    title: str
    reported: bool
    status: str
    measured: tuple[str, ...]
    split: str
    facts: Facts
    digests: Mapping[str, str]
    chart: Chart | None


@dataclass(frozen=True)
class CellPage:
    """One cell of the plan.

    Attributes:
        title: Method, data set and experiment in words.
        bpd: Mean and interval as text.
        settings: The settings that all of its runs share.
    """

    cell: Cell
    title: str
    bpd: str
    settings: Facts
    runs: tuple[RunPage, ...]
    chart: Chart | None


@dataclass(frozen=True)
class Pair:
    """The curves of two compared cells; ``group`` is data set and experiment in words."""

    group: str
    first: Cell
    second: Cell
    chart: Chart


def cell_pages(
    found: Sequence[Cell], orderings: Sequence[Claim], records: Iterable[Record], context: Context
) -> list[CellPage]:
    """Return a page for each cell.

    Args:
        found: Cells of the plan with the runs of their selected points.
        orderings: The claims, which decide what a cell is compared with.
        records: Every run of every round.
        context: The plan.
    """
    runs, own, others = by_cell(records), cell_styles(found, "own"), cell_styles(found, "other")
    pages = []
    for cell in found:
        compared = {
            other.name: other
            for claim in orderings
            for other, one in ((claim.first, claim.second), (claim.second, claim.first))
            if one.name == cell.name
        }
        lines = [*_lines(cell, own), *(line for other in compared.values() for line in _lines(other, others))]
        pages.append(_cell_page(cell, runs.get(cell.name, []), chart(lines, _TITLE), context))
    return pages


def pairs(found: Sequence[Cell], orderings: Iterable[Claim], context: Context) -> list[Pair]:
    """Return the curves of every two cells that a claim on the BPD compares, the one with silent gradients first."""
    styles, made = cell_styles(found, "other"), []
    for claim in orderings:
        first, second = claim.first, claim.second
        if claim.metric == "bpd" and (drawn := chart([*_lines(first, styles), *_lines(second, styles)], _TITLE)):
            made.append(Pair(group_name(first.dataset, first.experiment, context), first, second, drawn))
    return made


def device_time(records: Iterable[Record], context: Context) -> Part | None:
    """Return device time by cell as the runs recorded it: training alone, each run of a stack its share."""
    records = list(records)
    reported = {record.name for record in records if record.round == "seeds"}
    runs = by_cell(records)
    spent = {cell: sum(_seconds(run) for run in members) for cell, members in runs.items()}
    total = sum(spent.values())
    unit, seconds = ("hours", 3600) if total >= 3 * 3600 else ("minutes", 60)
    rows: list[dict[str, str | Linked]] = []
    for cell, members in sorted(runs.items(), key=lambda entry: -spent[entry[0]]):
        dataset, experiment, method = cell.split("/")
        speeds = [speed for run in members if (speed := run.provenance.get("images_per_second"))]
        rows.append(
            {
                "Cell": f"{METHODS[experiment][method].label}, {group_name(dataset, experiment, context)}",
                "Trainings": str(len(members)),
                f"Device {unit}": Linked(number(spent[cell] / seconds, 2), cell),
                "of these reported runs": number(
                    sum(_seconds(run) for run in members if run.name in reported) / seconds, 2
                ),
                "Share": f"{spent[cell] / total:.1%}" if total else NOTHING,
                "Images per second, median": significant(median(speeds)) if speeds else NOTHING,
                "Device": described([device(run) for run in members]),
            }
        )
    caption = f"Device {unit} of training by cell, {number(total / seconds, 2)} in all"
    return Part.of(caption, rows, headers=1) if rows else None


def _seconds(run: Record) -> float:
    return float(run.provenance["seconds"])


def _lines(cell: Cell, styles: Mapping[str, LineStyle]) -> list[Line]:
    return [
        Line(cell.method.label, styles[cell.name], thinned(run.curve, "selection_bpd", _POINTS_OF_A_CELL))
        for run in cell.runs
    ]


def _cell_page(cell: Cell, runs: Sequence[Record], drawn: Chart | None, context: Context) -> CellPage:
    settings = {run.name: {name: setting(value) for name, value in leaves(run.settings)} for run in runs}
    names = dict.fromkeys(name for values in settings.values() for name in values)
    differing = [name for name in names if len({values.get(name) for values in settings.values()}) > 1]
    # The seed is each run's own, even if there is a single run.
    own = list(dict.fromkeys(["seed", *differing]))
    reported = {run.name for run in cell.runs}
    bpd = summarize(list(cell.values("bpd").values()))
    bounds = "(one seed)" if bpd.n == 1 else interval(bpd.low, bpd.high, bpd.n)
    return CellPage(
        cell,
        f"{cell.method.label}, {group_name(cell.dataset, cell.experiment, context)}",
        f"BPD {number(bpd.mean)} {bounds}" if bpd.n else "",
        tuple((name, next(iter(settings.values()))[name]) for name in names if name not in own),
        tuple(
            _run_page(run, [(name, settings[run.name].get(name, NOTHING)) for name in own], run.name in reported)
            for run in sorted(runs, key=lambda run: (run.name not in reported, run.seed, run.name))
        ),
        drawn,
    )


def _run_page(run: Record, own: Sequence[tuple[str, str]], reported: bool) -> RunPage:
    measured = run.metrics("report") or run.metrics("selection")
    lines = [
        Line(label, LineStyle(role), thinned(run.curve, column, _POINTS_OF_A_RUN))
        for label, role, column in (("selection split", "own", "selection_bpd"), ("training", "other", "train_bpd"))
    ]
    digests = {**run.identity["files"]}
    if "result_sha256" in run.identity:
        digests["result"] = run.identity["result_sha256"]
    return RunPage(
        run.name,
        ", ".join(f"{name} {value}" for name, value in own),
        reported,
        run_status(run),
        tuple(
            number(measured[name], digits) if measured.get(name) is not None else NOTHING
            for name, digits in (("bpd", 3), ("kl", 2), (PUBLISHED_MSE, 3))
        ),
        str(measured.get("split", NOTHING)),
        (*own, *_results(run, measured), *_made_by(run)),
        digests,
        chart(lines, _TITLE),
    )


def _results(run: Record, measured: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in measured.items():
        if value is not None and not isinstance(value, Mapping | list):
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            yield METRIC_LABELS.get(name, name.replace("_", " ")), text
    yield "epochs", str(run.result["epochs"])
    if run.result["epochs_to_threshold"] is not None:
        yield METRIC_LABELS["epochs_to_threshold"], str(run.result["epochs_to_threshold"])


def _made_by(run: Record) -> Iterable[tuple[str, str]]:
    made = run.provenance
    yield "id", str(run.identity["id"])
    yield "device", device(run)
    yield "seconds of training", f"{made['seconds']:.1f}"
    if made.get("images_per_second"):
        yield "images per second", f"{made['images_per_second']:.0f}"
    if made.get("started"):
        yield "started", str(made["started"])
    yield "source revision", revision(run)
    if made.get("versions"):
        yield "versions", ", ".join(f"{name} {version}" for name, version in sorted(made["versions"].items()))
