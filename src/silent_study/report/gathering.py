"""From the store to the report: verify every run that the plan asks for, then write tables, figures and the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from silent_study.data.prepare import PREPARED
from silent_study.evaluation.known_limits import kept_factor_analysis
from silent_study.plan.plan import ROUNDS, Cell, Plan, Selections
from silent_study.report import gathered
from silent_study.report.context import Context, Record
from silent_study.report.gather import gather
from silent_study.settings import EXPERIMENTS
from silent_study.store.manifests import verified_runs
from silent_study.store.provenance import source_revision
from silent_study.store.runs import RunStore, read_json, write_json

LARGEST_FACTOR_ANALYSIS = 4096
"""Most dimensions of images whose factor analysis is computed: it decomposes D x D matrices, many times."""

SHOWN = "snakemake-report"
"""Name of the folder, below the results, of what Snakemake's own report shows."""


def gather_results(plan: Plan, overrides: Mapping[str, Any]) -> Path:
    """Write everything that people and machines read of the results; returns the page's path.

    Raises:
        StoreError: A run is missing, altered or foreign.
    """
    selections = plan.selections("seeds")
    store = RunStore(plan.results / "store")
    records = list(_records(plan, store, selections))
    marker = plan.gathered_marker(selections)
    for stale in marker.parent.glob("*.json"):
        stale.unlink()
    gather(records, _context(plan, selections, overrides), plan.results)
    write_json(plan.results / "selection.json", selections)
    _show(plan.results, marker.stem)
    gathered.record(marker, plan.results, (record.name for record in records))
    return plan.results / "report.html"


def _show(results: Path, plan: str) -> None:
    """Copy what Snakemake's own report shows into a folder of the plan's, in the place of those of other plans."""
    shutil.rmtree(results / SHOWN, ignore_errors=True)
    folder = results / SHOWN / plan
    for pattern in ("report.html", "tables/*.html", "figures/*.svg", "figures/*.png"):
        for path in results.glob(pattern):
            copy = folder / path.relative_to(results)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
    # Declared, so that they have to be there also in a plan that has nothing to draw.
    (folder / "figures").mkdir(exist_ok=True)


def _records(plan: Plan, store: RunStore, selections: Selections) -> Iterator[Record]:
    packs = [pack for round_ in ROUNDS for pack in plan.packs(round_, selections)]
    for pack, runs in zip(packs, verified_runs(store, packs, plan.manifest), strict=True):
        for run in runs:
            yield Record(run.name, run.folder, run.identity, pack.round)


def _context(plan: Plan, selections: Selections, overrides: Mapping[str, Any]) -> Context:
    cells = plan.cells()
    return Context(
        preset=plan.params.preset,
        protocol=plan.params.protocol,
        expected_cells=tuple(cell.name for cell in cells),
        selections=selections,
        grid_axes={cell.name: _setting_names(cell) for cell in cells},
        seeds=tuple(plan.params.seeds),
        datasets={name: _data_manifest(name) for name in plan.datasets()},
        revision=source_revision()["revision"],
        overrides=overrides,
        factor_analysis=_factor_analysis(plan),
    )


def _factor_analysis(plan: Plan) -> dict[str, dict[str, Any]]:
    gaussian = [
        cell
        for cell in plan.cells()
        if not EXPERIMENTS[cell.experiment].fixed_variance and cell.method.posterior == "gaussian"
    ]
    runs = {cell.group: plan.first_run(cell) for cell in gaussian}
    return {
        group: kept_factor_analysis(run, PREPARED / run.data.name, plan.results)
        for group, run in runs.items()
        if run.data.dimensions <= LARGEST_FACTOR_ANALYSIS
    }


def _setting_names(cell: Cell) -> tuple[str, ...]:
    own = EXPERIMENTS[cell.experiment].axes
    return tuple(axis if axis in own else f"silent.{axis}" for axis in cell.axes)


def _data_manifest(dataset: str) -> dict[str, Any]:
    document: dict[str, Any] = read_json(PREPARED / dataset / "manifest.json")
    return document
