"""The selected point of each cell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from silent_study.plan.plan import Cell, Plan, Point, Selections
from silent_study.store.documents import Selected, Selection
from silent_study.store.manifests import verified_runs
from silent_study.store.packs import Round
from silent_study.store.runs import RunStore, StoredRun, StoreError


@dataclass(frozen=True)
class _Tried:
    """A grid point of a cell and its run."""

    cell: Cell
    point: Point
    run: StoredRun


def check_selections(plan: Plan, runs: Mapping[str, StoredRun]) -> None:
    """Compare every selection of a plan with what its rule selects of the verified runs, by name.

    Raises ``StoreError`` if one differs, as after an edit by hand. A selection from runs some of which were trained
    again since is not compared: they may have rounded differently.
    """
    for group in plan.groups():
        found: dict[str, Mapping[str, Any]] = {}
        for round_ in plan.rounds_before("seeds", group):
            stated, expected = plan.selected(round_, group, found), _chosen(plan, runs, round_, group, found)
            members = [run for pack in plan.packs(round_, found, group) for run in pack.members]
            replaced = any(runs[run.name].identity["replaces"] for run in members)
            if stated != expected and not replaced:
                wrong = {name: cell["point"] for name, cell in expected.items() if stated.get(name) != cell}
                points = [f"{name}: {stated.get(name, {}).get('point')}, not {point}" for name, point in wrong.items()]
                raise StoreError(
                    f"{plan.selection_path(round_, group, found)}: not what the runs of the grid lead to "
                    f"({'; '.join(points) or 'other cells'}); delete it: the workflow makes it again"
                )
            found |= stated


def select(plan: Plan, store: RunStore, round_: Round, group: str, selections: Selections) -> Selection:
    """Select each cell's point of least final bits/dim in a group; ties go to the point that the settings list first.

    An axis that the group's methods share is selected first: the value under which the fewest methods diverge and,
    among equals, the sum over the methods of each one's least bits/dim is least. A cell without a finished run has the
    status ``diverged`` and its first point.
    """
    packs = plan.packs(round_, selections, group)
    runs = {run.name: run for members in verified_runs(store, packs, plan.manifest) for run in members}
    cells = _chosen(plan, runs, round_, group, selections)
    return {"round": round_, "group": group, "id": plan.selection_id(round_, group, selections), "cells": cells}


def _chosen(
    plan: Plan, runs_by_name: Mapping[str, StoredRun], round_: Round, group: str, selections: Selections
) -> dict[str, Selected]:
    tried = [
        _Tried(cell, point, runs_by_name[plan.run(cell, point, plan.grid_seed).name])
        for cell in plan.cells_of(round_, group)
        for point in plan.points(cell, selections)
    ]
    shared = _select_shared(plan.shared_axes(group), tried)
    cells: dict[str, Selected] = {}
    for cell in plan.cells_of(round_, group):
        own = [each for each in tried if each.cell == cell]
        allowed = [each for each in own if all(each.point.get(axis, value) == value for axis, value in shared.items())]
        best = min(allowed, key=lambda each: each.run.final_bpd)
        runs = {each.run.name: each.run for each in own}
        cells[cell.name] = {
            "status": "diverged" if best.run.diverged else "selected",
            "point": best.point,
            "run": best.run.name,
            "bpd": None if best.run.diverged else best.run.final_bpd,
            "configurations": len(runs),
            "diverged": sum(run.diverged for run in runs.values()),
        }
    return cells


def _select_shared(shared_axes: Iterable[str], tried: Sequence[_Tried]) -> dict[str, Any]:
    """Return the selected value of each shared axis that some of the tried cells have."""
    shared = {}
    for axis in shared_axes:
        least: dict[Any, dict[str, float]] = {}
        for each in tried:
            if axis in each.cell.method.axes:
                of_value = least.setdefault(each.point[axis], {})
                of_value[each.cell.name] = min(each.run.final_bpd, of_value.get(each.cell.name, math.inf))
        cells = {cell for of_value in least.values() for cell in of_value}
        if least:
            # A method whose grid lacks a value counts as diverged there.
            shared[axis] = min(least, key=lambda value: _total(least[value].get(cell, math.inf) for cell in cells))
    return shared


def _total(bpds: Iterable[float]) -> tuple[int, float]:
    # A method that diverges at every value would make all plain sums infinite, and hide the other methods.
    bpds = list(bpds)
    finite = [bpd for bpd in bpds if math.isfinite(bpd)]
    return len(bpds) - len(finite), math.fsum(finite)
