"""Verify every run, then write tables, figures and report."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from silent_study.data.prepare import PREPARED
from silent_study.data.prepared import manifest_of
from silent_study.evaluation.known_limits import kept_factor_analysis
from silent_study.evaluation.latents import kept_latents
from silent_study.plan.plan import ROUNDS, Plan, Selections
from silent_study.plan.selection import check_selections
from silent_study.report import figures, gathered, page, tables
from silent_study.report.cells import Cell, Context, Record, cells
from silent_study.report.claims import Claim, claims, headline
from silent_study.report.forest import forest
from silent_study.report.grids import GridPoint, grid_points, grid_table
from silent_study.report.measured import measured_tables
from silent_study.report.orderings import orderings
from silent_study.report.printed import Table, latex, markdown
from silent_study.settings import EXPERIMENTS
from silent_study.store.files import write_bytes_atomically
from silent_study.store.kept import KEPT
from silent_study.store.manifests import verified_runs
from silent_study.store.provenance import source_revision
from silent_study.store.runs import as_json

LARGEST_FACTOR_ANALYSIS = 4096
"""Most dimensions of images whose factor analysis is computed: it decomposes D x D matrices many times."""

SHOWN = "snakemake-report"
"""Name of the folder, below the results, of what Snakemake's own report shows."""

CHART_LIBRARIES = "vega.js"
"""Script of the charts, which the page has inside and .dvc/plots.html reads: no chart needs a network."""

# Where the name of a figure's file begins, with the data set and the experiment in it.
_FIGURE = re.compile(rf"(?<=^figures/)(?:(\w+)-({'|'.join(EXPERIMENTS)})-)?(?=[^/]+$)")

_FOLDERS = ("tables", "figures", "curves", "metrics")
_KINDS = {".html", ".svg", ".pdf", ".png", ".csv", ".md", ".tex", ".json"}


def gather_results(plan: Plan, overrides: Mapping[str, Any]) -> str:
    """Write everything that people and machines read of the results; return the verdict and the page's path as a line.

    Raises:
        StoreError: A run is missing, altered or foreign, or a selection is not what the grid leads to.
        DataError: The manifest of a prepared data set is missing, altered or that of other data.
    """
    selections = plan.selections("seeds")
    records = list(_records(plan, selections))
    check_selections(plan, {record.name: record for record in records})
    marker = gathered.marker_of(plan, selections)
    for stale in marker.parent.glob("*.json"):
        stale.unlink()
    selection = {"selection.json": as_json(selections).encode()}
    context = _context(plan, selections, overrides, records)
    written = gather(records, context, plan.results, f"{SHOWN}/{marker.stem}", selection)
    gathered.record(marker, plan.results, (record.name for record in records), written)
    return f"{headline(claims(cells(records, context)))}; report: {plan.results / 'report.html'}"


def gather(
    records: Sequence[Record],
    context: Context,
    out: Path,
    shown: str | None = None,
    others: Mapping[str, bytes] | None = None,
) -> list[Path]:
    """Write the tables, figures, metrics and the page of a plan's runs, and return every file written.

    The same runs give the same bytes. A table without rows is in the page alone. Files of earlier gatherings that are
    not written again are removed from the folders; files of other kinds stay there.

    Args:
        records: Runs by round, in any order.
        context: The plan that they were made for.
        out: The folder to write to, ``results`` in a repository in use.
        shown: Folder, below ``out``, for copies of what Snakemake's own report shows, in the place of other plans'.
        others: Content of further files by path below ``out``.
    """
    # Packs and rounds finish in any order; nothing that is written may depend on it.
    records = sorted(records, key=lambda record: (record.round, record.name))
    contents = {**(others or {}), **_contents(records, context)}
    copied = [name for name in contents if re.search(r"(\.html|(?<!-column)\.svg)$", name)] if shown else []
    contents |= {f"{shown}/{_FIGURE.sub(_labelled, name)}": contents[name] for name in copied}
    for path in (path for folder in _FOLDERS for path in (out / folder).rglob("*.*")):
        if path.suffix in _KINDS and path.relative_to(out).as_posix() not in contents:
            path.unlink()
    if shown:
        shutil.rmtree(out / SHOWN, ignore_errors=True)
    # Declared as outputs, so that they have to exist even if a plan has nothing to draw.
    for folder in (*_FOLDERS, KEPT, *([f"{shown}/tables", f"{shown}/figures"] if shown else [])):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        # The digests in the marker show what a power cut has taken; to flush each file would take a second.
        write_bytes_atomically(out / name, content, lasting=False)
    return [out / name for name in contents]


def _labelled(stem: re.Match[str]) -> str:
    """Return the folders by which Snakemake's report labels a figure: its data set and its experiment."""
    return "/".join((stem[1] or "all", stem[2] or "all", ""))


def tables_of(
    found: Sequence[Cell], ordered: Sequence[Claim], points: Sequence[GridPoint], context: Context
) -> list[Table]:
    """Return every table in the page's order: the orderings, Tables 1 to 4, what is beyond the paper, the grids."""
    return [orderings(ordered, points, context), *measured_tables(found, context), grid_table(points, context)]


def _contents(records: Sequence[Record], context: Context) -> dict[str, bytes]:
    """Return the content of every file of the report by its path below the results, the page last."""
    found, points = cells(records, context), grid_points(records, context)
    ordered = claims(found)
    laid_out = tables_of(found, ordered, points, context)
    drawings = [*forest(ordered, context), *figures.draw(found, context)]
    texts = {}
    # A table without rows is mentioned in the page; its files would be hard to read.
    for table in (table for table in laid_out if not table.data.empty):
        texts[f"tables/{table.name}.csv"] = _csv(table.data)
        texts[f"tables/{table.name}.md"] = markdown(table)
        texts[f"tables/{table.name}.tex"] = latex(table)
        texts[f"tables/{table.name}.html"] = page.render_table(table)
    texts |= {f"curves/{group}.csv": _csv(curve) for group, curve in tables.curves_by_group(records).items()}
    metrics = tables.metrics(found, context)
    texts["metrics.json"] = _json(metrics)
    # DVC shows a file as a line.
    texts |= {f"metrics/{cell.name}.json": _json(tables.cell_metrics(cell)) for cell in found}
    texts["runs.csv"] = _csv(tables.runs(records))
    texts[CHART_LIBRARIES] = page.chart_libraries()
    texts["report.html"] = page.render(found, ordered, laid_out, texts, drawings, points, records, context)
    images = {f"figures/{name}": content for drawing in drawings for name, content in drawing.files.items()}
    return images | {name: text.encode() for name, text in texts.items()}


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, indent=1, allow_nan=False) + "\n"


def _csv(frame: pd.DataFrame) -> str:
    # Nine digits keep the precision of a float32 evaluation; more would show noise in comparisons of two tables.
    text: str = frame.to_csv(index=False, lineterminator="\n", float_format="%.9g")
    return text


def _records(plan: Plan, selections: Selections) -> Iterator[Record]:
    packs = [pack for round_ in ROUNDS for pack in plan.packs(round_, selections)]
    for pack, runs in zip(packs, verified_runs(plan.store, packs, plan.manifest), strict=True):
        for run in runs:
            yield Record(run.name, run.folder, run.identity, pack.round)


def _context(plan: Plan, selections: Selections, overrides: Mapping[str, Any], records: Sequence[Record]) -> Context:
    planned = plan.cells()
    first: dict[str, Record] = {}
    for run in sorted(records, key=lambda run: run.seed):
        if run.round == "seeds" and run.metrics("report"):
            first.setdefault(run.cell, run)
    return Context(
        preset=plan.params.preset,
        protocol=plan.params.protocol,
        expected_cells=tuple(cell.name for cell in planned),
        selections=selections,
        grid_axes={
            cell.name: tuple(
                axis if axis in EXPERIMENTS[cell.experiment].axes else f"silent.{axis}" for axis in cell.method.axes
            )
            for cell in planned
        },
        seeds=tuple(plan.params.seeds),
        datasets={name: manifest_of(PREPARED / name, plan.params.sources[name].sha256) for name in plan.datasets()},
        revision=source_revision()["revision"],
        overrides=overrides,
        factor_analysis=_factor_analysis(plan),
        latents={cell: kept_latents(run, PREPARED / run.dataset, plan.results) for cell, run in first.items()},
    )


def _factor_analysis(plan: Plan) -> dict[str, dict[str, Any]]:
    runs = {cell.group: plan.first_run(cell) for cell in plan.cells() if cell.method.posterior == "gaussian"}
    return {
        group: kept_factor_analysis(run, PREPARED / run.data.name, plan.results)
        for group, run in runs.items()
        if run.variance is None and run.data.dimensions <= LARGEST_FACTOR_ANALYSIS
    }
