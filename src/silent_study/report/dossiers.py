"""Where a number comes from: for every cell its settings, its curves beside those it is compared with, and its runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from silent_study.report.charts import Chart, Line, Look, chart, thinned
from silent_study.report.claims import Claim
from silent_study.report.context import Context, Record
from silent_study.report.figures import figure_looks
from silent_study.report.grid_maps import shown
from silent_study.report.layout.text import METRIC_LABELS, NOTHING, interval, number
from silent_study.report.summary import Cell, revision, summarize
from silent_study.report.tables import leaves, run_status
from silent_study.settings import EXPERIMENTS

_POINTS_OF_A_CELL = 80
_POINTS_OF_A_RUN = 40
_TITLE = "Bits per dimension by epoch"


@dataclass(frozen=True)
class RunDossier:
    """One run.

    Attributes:
        name: Its name in the store.
        title: The settings that tell it from the other runs of its cell.
        reported: Whether the cell's numbers are means over this run and others.
        status: What became of it.
        measured: BPD, KL and MSE as text: of the report split, or of the selection split where no other was evaluated.
        split: The split of these.
        facts: Pairs of a name and a text: settings of its own, results, what made it.
        digests: SHA-256 by file.
    """

    name: str
    title: str
    reported: bool
    status: str
    measured: tuple[str, str, str]
    split: str
    facts: tuple[tuple[str, str], ...]
    digests: Mapping[str, str]
    chart: Chart | None


@dataclass(frozen=True)
class CellDossier:
    """One cell of the plan.

    Attributes:
        title: Method, data set and experiment in words.
        bpd: Mean and interval as text.
        settings: The settings that all of its runs share.
    """

    cell: Cell
    title: str
    bpd: str
    settings: tuple[tuple[str, str], ...]
    runs: tuple[RunDossier, ...]
    chart: Chart | None


@dataclass(frozen=True)
class Pair:
    """The curves of two cells that are compared.

    Attributes:
        group: Data set and experiment in words.
    """

    group: str
    first: Cell
    second: Cell
    chart: Chart


def dossiers(
    found: Sequence[Cell], orderings: Sequence[Claim], records: Sequence[Record], context: Context
) -> list[CellDossier]:
    """A dossier for each cell.

    Args:
        found: Cells of the plan with the runs of their selected points.
        orderings: The claims, which say what a cell is compared with.
        records: Every run of every round.
        context: The plan.
    """
    runs: dict[str, dict[str, Record]] = {}
    for record in records:
        runs.setdefault(record.cell, {})[record.name] = record
    looks = cell_looks(found)
    return [_dossier(cell, list(runs.get(cell.name, {}).values()), orderings, looks, context) for cell in found]


def pairs(found: Sequence[Cell], orderings: Iterable[Claim], context: Context) -> list[Pair]:
    """The curves of every two cells that a claim on the BPD compares, the one with silent gradients first."""
    made, looks = [], cell_looks(found)
    for claim in orderings:
        if claim.metric == "bpd":
            first, second = claim.first, claim.second
            drawn = chart(
                [line for cell in (first, second) for line in _lines(cell, Look("other", *looks[cell.name]))], _TITLE
            )
            if drawn is not None:
                group = f"{context.title(first.dataset)}, {EXPERIMENTS[first.experiment].title}"
                made.append(Pair(group, first, second, drawn))
    return made


def cell_looks(found: Sequence[Cell]) -> dict[str, tuple[str, tuple[float, ...]]]:
    """Colour and dashes of each cell's curves, as the figures of its data set and experiment draw them."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in found:
        groups.setdefault((cell.dataset, cell.experiment), []).append(cell)
    return {cell.name: look for members in groups.values() for cell, look in figure_looks(members)}


def _dossier(
    cell: Cell,
    runs: Sequence[Record],
    orderings: Sequence[Claim],
    looks: Mapping[str, tuple[str, tuple[float, ...]]],
    context: Context,
) -> CellDossier:
    settings = {run.name: {name: shown(value) for name, value in leaves(run.settings)} for run in runs}
    names = dict.fromkeys(name for values in settings.values() for name in values)
    differing = [name for name in names if len({values.get(name) for values in settings.values()}) > 1]
    # The seed is each run's own, even where there is but one run.
    own = ["seed", *(name for name in differing if name != "seed")]
    reported = {run.name for run in cell.runs}
    compared = {
        other.name: other
        for claim in orderings
        for other, one in ((claim.first, claim.second), (claim.second, claim.first))
        if one.name == cell.name
    }
    lines = list(_lines(cell, Look("own", *looks[cell.name])))
    for other in compared.values():
        lines += _lines(other, Look("other", *looks[other.name]))
    bpd = summarize(list(cell.values("bpd").values()))
    text = (
        f"BPD {number(bpd.mean)} {'(one seed)' if bpd.n == 1 else interval(bpd.low, bpd.high, bpd.n)}" if bpd.n else ""
    )
    return CellDossier(
        cell,
        f"{cell.method.label}, {context.title(cell.dataset)}, {EXPERIMENTS[cell.experiment].title}",
        text,
        tuple((name, next(iter(settings.values()))[name]) for name in names if name not in own),
        tuple(
            _run(run, [(name, settings[run.name].get(name, NOTHING)) for name in own], run.name in reported)
            for run in sorted(runs, key=lambda run: (run.name not in reported, run.seed, run.name))
        ),
        chart(lines, _TITLE),
    )


def _lines(cell: Cell, look: Look) -> Iterable[Line]:
    for run in cell.runs:
        points = thinned(run.curve, "selection_bpd", _POINTS_OF_A_CELL)
        yield Line(cell.method.label, look, points[["epoch", "selection_bpd"]])


def _run(run: Record, own: Sequence[tuple[str, str]], reported: bool) -> RunDossier:
    measured = run.metrics("report") or run.metrics("selection")
    lines = [
        Line(label, Look(role), thinned(run.curve, column, _POINTS_OF_A_RUN)[["epoch", column]])
        for label, role, column in (("selection split", "own", "selection_bpd"), ("training", "other", "train_bpd"))
    ]
    return RunDossier(
        run.name,
        ", ".join(f"{name} {value}" for name, value in own),
        reported,
        run_status(run),
        (_metric(measured, "bpd", 3), _metric(measured, "kl", 2), _metric(measured, "mse_sampled_clamped", 3)),
        str(measured.get("split", NOTHING)),
        (*own, *_results(run, measured), *_made_by(run)),
        {
            **run.identity["files"],
            **({"result": run.identity["result_sha256"]} if "result_sha256" in run.identity else {}),
        },
        chart(lines, _TITLE),
    )


def _results(run: Record, measured: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in measured.items():
        if value is not None and not isinstance(value, Mapping | list):
            yield (
                METRIC_LABELS.get(name, name.replace("_", " ")),
                f"{value:.6g}" if isinstance(value, float) else str(value),
            )
    yield "epochs", str(run.result["epochs"])
    if run.result["epochs_to_threshold"] is not None:
        yield METRIC_LABELS["epochs_to_threshold"], str(run.result["epochs_to_threshold"])


def _made_by(run: Record) -> Iterable[tuple[str, str]]:
    made = run.provenance
    yield "id", str(run.identity["id"])
    yield "device", f"{made['device']}, {made['hardware']}"
    yield "seconds of training", f"{made['seconds']:.1f}"
    if made.get("images_per_second"):
        yield "images per second", f"{made['images_per_second']:.0f}"
    if made.get("started"):
        yield "started", str(made["started"])
    yield "source revision", revision(run)
    if made.get("versions"):
        yield "versions", ", ".join(f"{name} {version}" for name, version in sorted(made["versions"].items()))


def _metric(measured: Mapping[str, Any], name: str, digits: int) -> str:
    return number(measured[name], digits) if measured.get(name) is not None else NOTHING
