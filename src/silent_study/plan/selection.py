"""Reading back what packs promised, and selecting a point per cell by its final bits/dim."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from silent_study.plan.plan import ROUNDS, Cell, Plan, Point, Selections
from silent_study.store.files import sha256_of
from silent_study.store.packs import PackSpec, Round
from silent_study.store.runs import EVALUATION, RECONSTRUCTIONS, RunStore, StoredRun, StoreError, read_json

SHOWN_PROBLEMS = 10
"""As many fit into the end of a job's log that Snakemake's display shows."""


def verified_runs(plan: Plan, store: RunStore, packs: Sequence[PackSpec]) -> list[list[StoredRun]]:
    """The runs of each pack, checked against the pack's manifest and the ids that the plan asks for.

    Raises:
        StoreError: Runs are missing, altered or foreign; the message names them and the command that remakes them.
    """
    runs, problems, wrong = [], [], []
    for pack in packs:
        found = list(_checked(plan, store, pack))
        runs.append([run for run in found if isinstance(run, StoredRun)])
        if errors := [error for error in found if isinstance(error, StoreError)]:
            problems += [str(error) for error in errors]
            wrong.append(pack)
    if not problems:
        return runs
    problems = list(dict.fromkeys(problems))
    if more := len(problems[SHOWN_PROBLEMS:]):
        problems[SHOWN_PROBLEMS:] = [f"... and {more} more"]
    raise StoreError("\n".join([*problems, f"remake what is missing or wrong with: {_remedy(plan, wrong)}"]))


def _remedy(plan: Plan, packs: Sequence[PackSpec]) -> str:
    # Round after round: a pack of seeds keeps and evaluates what a grid's pack may just be training again.
    by_round = (" ".join(str(plan.manifest(pack)) for pack in packs if pack.round == round_) for round_ in ROUNDS)
    return " && ".join(
        f"snakemake --cores all --resources gpu=8 --force -- {manifests}" for manifests in by_round if manifests
    )


def _checked(plan: Plan, store: RunStore, pack: PackSpec) -> Iterator[StoredRun | StoreError]:
    """Each member, or what is wrong with it."""
    manifest = plan.manifest(pack)
    try:
        promised = read_json(manifest)
        if promised["pack"] != pack.id or [member["id"] for member in promised["members"]] != [
            member.id for member in pack.members
        ]:
            raise StoreError(f"{manifest}: it lists other runs than the plan asks for")
    except StoreError as error:
        yield error
        return
    for settings, member in zip(pack.members, promised["members"], strict=True):
        try:
            yield _verified(store, settings.name, settings.id, member)
        except StoreError as error:
            yield error


def _verified(store: RunStore, name: str, run_id: str, member: Mapping[str, Any]) -> StoredRun:
    run = store.verified(name, run_id)
    if not run.answers_to(member["result_sha256"]):
        raise StoreError(f"{name}: its result is not the one that its pack's manifest names")
    expected = member["evaluation_sha256"]
    if expected is None:
        return run
    path = run.folder / EVALUATION
    if not path.exists() or sha256_of(path) != expected:
        raise StoreError(f"{path}: missing, or not the evaluation that its pack's manifest names")
    pictures, promised = run.folder / RECONSTRUCTIONS, read_json(path)["reconstructions_sha256"]
    if promised is not None and (not pictures.exists() or sha256_of(pictures) != promised):
        raise StoreError(f"{pictures}: missing, or not those that {EVALUATION} names")
    return run


@dataclass(frozen=True)
class Tried:
    """One grid point of a cell with its run."""

    cell: Cell
    point: Point
    run: StoredRun
    bpd: float
    """Final bits/dim on the selection split; infinite for a diverged run."""


def tried_points(plan: Plan, store: RunStore, round_: Round, group: str, selections: Selections) -> list[Tried]:
    """Every grid point of a group's round, verified; several may stand for one run."""
    packs = plan.packs(round_, selections, group)
    runs = {run.name: run for members in verified_runs(plan, store, packs) for run in members}
    tried = []
    for cell in plan.cells_of(round_, group):
        for point in plan.points(cell, selections):
            run = runs[plan.run(cell, point, plan.params.seeds[0]).name]
            tried.append(Tried(cell, point, run, _final_bpd(run)))
    return tried


def _final_bpd(run: StoredRun) -> float:
    selection = run.result["selection"]
    return math.inf if selection is None else float(selection["bpd"])


def select(plan: Plan, store: RunStore, round_: Round, group: str, selections: Selections) -> dict[str, Any]:
    """Select each cell's point of least final bits/dim in a group; ties go to the point that the settings list first.

    An axis that the group's methods share is settled first: the value under which the fewest methods diverge and, among
    those, whose best runs are best, summed over the methods.

    Returns:
        ``{"round", "group", "id", "cells": {cell name: {"status", "point", "run", "bpd", "configurations",
        "diverged"}}}``; status ``diverged`` where no point finished, with the first point.
    """
    tried = tried_points(plan, store, round_, group, selections)
    settled = _settle(plan.shared_axes(group), tried)
    cells = {}
    for cell in plan.cells_of(round_, group):
        own = [each for each in tried if each.cell == cell]
        allowed = [each for each in own if _agrees(each.point, settled)]
        best = min(allowed, key=lambda each: each.bpd)
        finished = math.isfinite(best.bpd)
        final_bpds = {each.run.name: each.bpd for each in own}
        cells[cell.name] = {
            "status": "selected" if finished else "diverged",
            "point": best.point,
            "run": best.run.name,
            "bpd": best.bpd if finished else None,
            "configurations": len(final_bpds),
            "diverged": sum(not math.isfinite(bpd) for bpd in final_bpds.values()),
        }
    return {"round": round_, "group": group, "id": plan.selection_id(round_, group, selections), "cells": cells}


def _agrees(point: Point, settled: Mapping[str, Any]) -> bool:
    return all(point[axis] == value for axis, value in settled.items() if axis in point)


def _settle(shared_axes: Iterable[str], tried: Sequence[Tried]) -> dict[str, Any]:
    settled = {}
    for axis in shared_axes:
        concerned = list(dict.fromkeys(each.cell for each in tried if axis in each.cell.axes))
        values = _values(axis, (each for each in tried if each.cell in concerned))
        totals = {value: _total(_best(tried, cell, axis, value) for cell in concerned) for value in values}
        if totals:
            settled[axis] = min(totals, key=lambda value: totals[value])
    return settled


def _total(bpds: Iterable[float]) -> tuple[int, float]:
    # A method that diverges at every value would make all plain sums infinite, and so take the others' say away.
    bpds = list(bpds)
    finite = [bpd for bpd in bpds if math.isfinite(bpd)]
    return len(bpds) - len(finite), math.fsum(finite)


def _values(axis: str, tried: Iterator[Tried]) -> list[Any]:
    return list(dict.fromkeys(each.point[axis] for each in tried))


def _best(tried: Iterable[Tried], cell: Cell, axis: str, value: Any) -> float:
    return min((each.bpd for each in tried if each.cell == cell and each.point[axis] == value), default=math.inf)
