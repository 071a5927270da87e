"""The pages of cells and runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from silent_study.paper import PUBLISHED_MSE
from silent_study.report import printed, tables
from silent_study.report.cells import Cell, by_cell, device, revision, run_status
from silent_study.report.claims import Claim
from silent_study.report.context import Context, Record
from silent_study.report.printed import METRIC_LABELS, NOTHING, Part, Text, group_name, number
from silent_study.report.statistics import summarize
from silent_study.settings import EXPERIMENTS

# Section of the page with the reported numbers of an experiment of the paper.
_SECTIONS = {"fixed": "table-2-fixed-variance", "learnable": "table-3-bits-per-dimension"}

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


@dataclass(frozen=True)
class CellPage:
    """One cell of the plan.

    Attributes:
        title: Method, data set and experiment in words.
        bpd: Mean and interval as text.
        settings: The settings that all of its runs share.
        table: A row for each run: BPD, KL and MSE on the report split, or on the selection split where the run was not
            evaluated on the report split.
        figure: Name of the drawing with the curves of its group.
        drawn: The cells whose curves are drawn: its own, and those that claims compare it with.
        section: Id of the section with its numbers.
    """

    cell: Cell
    title: str
    bpd: str
    settings: Facts
    table: Part
    runs: tuple[RunPage, ...]
    figure: str
    drawn: tuple[str, ...]
    section: str


def cell_pages(
    found: Sequence[Cell], orderings: Sequence[Claim], records: Iterable[Record], context: Context
) -> list[CellPage]:
    """Return a page for each cell with its runs of every round, drawn beside the cells that claims compare it with."""
    runs = by_cell(records)
    pairs = [(claim.first.name, claim.second.name) for claim in orderings]
    pages = []
    for cell in found:
        compared = [name for pair in pairs if cell.name in pair for name in pair]
        pages.append(_cell_page(cell, runs.get(cell.name, []), tuple(dict.fromkeys([cell.name, *compared])), context))
    return pages


def _cell_page(cell: Cell, runs: Sequence[Record], drawn: tuple[str, ...], context: Context) -> CellPage:
    settings = {run.name: {name: printed.setting(value) for name, value in tables.leaves(run.settings)} for run in runs}
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
                "Run": Text(page.title, run.name),
                "Reported": "yes" if run.name in reported else "grid alone",
                "BPD": number(tables.number(measured.get("bpd"))),
                "KL": number(tables.number(measured.get("kl")), 2),
                METRIC_LABELS[PUBLISHED_MSE]: number(tables.number(measured.get(PUBLISHED_MSE))),
                "Split": str(measured.get("split", NOTHING)),
                "Status": run_status(run),
            }
        )
    bpd = summarize(list(cell.values("bpd").values()))
    bounds = "(one seed)" if bpd.n == 1 else printed.interval(bpd.low, bpd.high, bpd.n)
    return CellPage(
        cell,
        f"{cell.method.label}, {group_name(cell.dataset, cell.experiment, context)}",
        f"BPD {number(bpd.mean)} {bounds}" if bpd.n else "",
        tuple((printed.named(name), next(iter(settings.values()))[name]) for name in names if name not in own),
        Part.of("Runs", rows, headers=1),
        tuple(pages),
        f"{cell.dataset}-{cell.experiment}-curves",
        drawn,
        _SECTIONS.get(cell.experiment, EXPERIMENTS[cell.experiment].title.replace(" ", "-")),
    )


def _run_page(run: Record, own: Sequence[tuple[str, str]]) -> RunPage:
    named = [(printed.named(name), value) for name, value in own]
    title = ", ".join(f"{name} {value}" for name, value in named)
    return RunPage(run, title, (*named, *_results(run), *_made_by(run)))


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
    speed, versions = made.get("images_per_second"), made.get("versions") or {}
    facts = {
        "sha256 of the result": run.identity["result_sha256"],
        "device": device(run),
        "seconds of training": f"{made['seconds']:.1f}",
        "images per second": f"{speed:.0f}" if speed else "",
        "started": made.get("started"),
        "source revision": revision(run),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
    }
    return [(name, str(text)) for name, text in facts.items() if text]
