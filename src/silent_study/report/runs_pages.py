"""The pages of cells and runs: settings, curves beside those of compared cells, results, origin, and training time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from silent_study.methods import METHODS
from silent_study.paper import PUBLISHED_MSE
from silent_study.report import tables
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
        facts: Settings of its own, results, and what made it.
    """

    record: Record
    title: str
    facts: Facts
    chart: Chart | None


@dataclass(frozen=True)
class CellPage:
    """One cell of the plan.

    Attributes:
        title: Method, data set and experiment in words.
        bpd: Mean and interval as text.
        settings: The settings that all of its runs share.
        table: A row for each run: BPD, KL and MSE on the report split, or on the selection split where the run was not
            evaluated on the report split.
    """

    cell: Cell
    title: str
    bpd: str
    settings: Facts
    table: Part
    runs: tuple[RunPage, ...]
    chart: Chart | None


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


def pairs(found: Sequence[Cell], orderings: Iterable[Claim]) -> list[tuple[Cell, Cell, Chart]]:
    """Return the two cells of each claim on the BPD, the one with silent gradients first, and their curves."""
    styles = cell_styles(found, "other")
    compared = [(claim.first, claim.second) for claim in orderings if claim.metric == "bpd"]
    drawn = [(*pair, chart([line for cell in pair for line in _lines(cell, styles)], _TITLE)) for pair in compared]
    return [(first, second, curves) for first, second, curves in drawn if curves]


def device_time(records: Iterable[Record], context: Context) -> Part | None:
    """Return device time by cell as the runs recorded it: training alone, each run of a stack its share."""
    records = list(records)
    reported = {record.name for record in records if record.round == "seeds"}
    runs = by_cell(records)
    spent = {cell: sum(_seconds(run) for run in members) for cell, members in runs.items()}
    total = sum(spent.values())
    unit, seconds = ("hours", 3600) if total >= 3 * 3600 else ("minutes", 60)
    rows = []
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
    settings = {run.name: {name: setting(value) for name, value in tables.leaves(run.settings)} for run in runs}
    names = dict.fromkeys(name for values in settings.values() for name in values)
    differing = [name for name in names if len({values.get(name) for values in settings.values()}) > 1]
    # The seed is each run's own, even if there is a single run.
    own = list(dict.fromkeys(["seed", *differing]))
    reported = {run.name for run in cell.runs}
    pages, rows = [], []
    for run in sorted(runs, key=lambda run: (run.name not in reported, run.seed, run.name)):
        page = _run_page(run, [(name, settings[run.name].get(name, NOTHING)) for name in own])
        measured = _measured(run)
        pages.append(page)
        rows.append(
            {
                "Run": Linked(page.title, run.name),
                "Reported": "yes" if run.name in reported else "grid alone",
                "BPD": number(tables.number(measured.get("bpd"))),
                "KL": number(tables.number(measured.get("kl")), 2),
                METRIC_LABELS[PUBLISHED_MSE]: number(tables.number(measured.get(PUBLISHED_MSE))),
                "Split": str(measured.get("split", NOTHING)),
                "Status": run_status(run),
            }
        )
    bpd = summarize(list(cell.values("bpd").values()))
    bounds = "(one seed)" if bpd.n == 1 else interval(bpd.low, bpd.high, bpd.n)
    return CellPage(
        cell,
        f"{cell.method.label}, {group_name(cell.dataset, cell.experiment, context)}",
        f"BPD {number(bpd.mean)} {bounds}" if bpd.n else "",
        tuple((name, next(iter(settings.values()))[name]) for name in names if name not in own),
        Part.of("Runs", rows, headers=1),
        tuple(pages),
        drawn,
    )


def _run_page(run: Record, own: Sequence[tuple[str, str]]) -> RunPage:
    lines = [
        Line(label, LineStyle(role), thinned(run.curve, column, _POINTS_OF_A_RUN))
        for label, role, column in (("selection split", "own", "selection_bpd"), ("training", "other", "train_bpd"))
    ]
    title = ", ".join(f"{name} {value}" for name, value in own)
    return RunPage(run, title, (*own, *_results(run), *_made_by(run)), chart(lines, _TITLE))


def _measured(run: Record) -> Mapping[str, Any]:
    return run.metrics("report") or run.metrics("selection")


def _results(run: Record) -> Iterable[tuple[str, str]]:
    for name, value in _measured(run).items():
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
