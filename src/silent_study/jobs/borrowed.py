"""The job of a bundle, on a machine that is lent for a while: train the rounds of a plan until the time is up."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from silent_study.data.errors import DataError
from silent_study.data.prepare import dequantize
from silent_study.jobs.bundle import BORROWED, bundled_plan, unpacked
from silent_study.jobs.lease import LeaseError, leased_device
from silent_study.jobs.pace import Pace
from silent_study.jobs.returned import write_parts
from silent_study.jobs.stopping import StopSignal, TimeLimit
from silent_study.plan.plan import GRID_ROUNDS, Plan
from silent_study.plan.selection import select
from silent_study.store.packs import PackSpec
from silent_study.store.runs import EVALUATION, RunStore, StoreError, write_json
from silent_study.words import counted, duration

if TYPE_CHECKING:
    import torch

SAVING = 20.0
"""Seconds of the limit that are kept for writing what goes back."""
MEASURED_ROUNDS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a bundle from the command line and return an exit code."""
    parser = argparse.ArgumentParser(prog="python -m silent_study.jobs", description=__doc__)
    parser.add_argument("bundle", type=Path, help="file that `silent-gradients bundle` wrote")
    parser.add_argument("--time-limit", type=float, required=True, metavar="SECONDS", help="stop before this time")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for what goes back; see absorb")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="for runs in training (default: OUT-work)")
    options = parser.parse_args(arguments)
    if not options.time_limit > SAVING:
        parser.error(f"--time-limit: expected more than {SAVING:g} seconds, which saving may take")
    limit, signalled = TimeLimit(options.time_limit - SAVING), StopSignal()
    out = options.out.resolve()
    work = options.work or out.with_name(f"{out.name}-work")
    try:
        with leased_device() as device:
            return train_bundle(
                options.bundle, out, work, device, lambda: signalled() or limit(), signalled.at_once, limit.left
            )
    except (StoreError, DataError, LeaseError) as error:
        print(error, file=sys.stderr)
        return 1


def train_bundle(
    bundle: Path,
    out: Path,
    work: Path,
    device: torch.device,
    stop: Callable[[], bool],
    evaluating: Callable[[], AbstractContextManager[None]] = nullcontext,
    left: Callable[[], float] = lambda: float("inf"),
) -> int:
    """Train what a bundle holds, round by round as the workflow does, until ``stop`` returns True.

    Args:
        bundle: File of ``silent-gradients bundle``.
        out: Folder for what goes back, written after every pack.
        work: Folder for runs in training; the same call goes on there.
        device: Device that trains.
        stop: As of ``run_pack``.
        evaluating: As of ``run_pack``.
        left: Returns the seconds until ``stop`` returns True.

    Returns:
        0, or 1 if a run failed.

    Raises:
        StoreError: The bundle cannot be used, see ``bundle.unpacked``.
    """
    from silent_study.jobs.pack import TrainingOptions, run_pack
    from silent_study.jobs.stopwatch import measured_pace
    from silent_study.training.loop import Interrupted

    document = unpacked(bundle, work)
    plan, store = bundled_plan(document["settings"], work), RunStore(work / "store")
    done, sources, execution = set(document["done"]), plan.params.sources, plan.params.execution
    checkpoints = RunStore(work / BORROWED / device.type)
    for name in checkpoints.names():
        if not store.working_folder(name).exists():
            store.working_folder(name).parent.mkdir(parents=True, exist_ok=True)
            checkpoints.working_folder(name).rename(store.working_folder(name))
    for name in plan.datasets():
        dequantize(sources[name], work / "data" / name)
    options = TrainingOptions.of(device, execution.steps, execution.stack, execution.checkpoint_seconds)
    pace = measured_pace(
        [plan.first_run(cell) for cell in plan.cells()],
        sources,
        device,
        MEASURED_ROUNDS,
        1 if options.streams else options.stack,
        captured=options.captured,
    )
    print(forecast(plan, pace, left()), flush=True)
    failed = False
    give_back = partial(_give_back, store, document, out, device)

    def run(packs: Iterable[PackSpec]) -> None:
        for pack in packs:
            # The selection after a grid compares all of its members.
            members = tuple(run for run in pack.members if pack.round in GRID_ROUNDS or run.name not in done)
            if members:
                data = work / "data" / pack.group.split("/")[0]
                own = replace(pack, members=members)
                write_json(plan.manifest(pack), run_pack(own, store, data, device, options, stop, evaluating))
                give_back()

    try:
        for group in plan.groups():
            if (selections := plan.foreseen(group)) is not None:
                # All seeds side by side: the first one alone, as a grid of one point, would take as long.
                run(plan.packs("seeds", selections, group))
            for round_ in plan.rounds(group):
                selections = plan.selections(round_, group)
                run(plan.packs(round_, selections, group))
                if round_ in GRID_ROUNDS:
                    found = select(plan, store, round_, group, selections)
                    write_json(plan.selection_file(round_, group, selections), found)
    except (Interrupted, KeyboardInterrupt):
        print("stopped before the time was up; the same command, or the next bundle, goes on", file=sys.stderr)
    except ExceptionGroup as error:
        print(error, file=sys.stderr)
        failed = True
    given, left_out = give_back()
    print(f"{counted(given, 'run')} finished, in {out}; at home: silent-gradients absorb FOLDER")
    print("".join(f"{line}\n" for line in left_out), end="")
    return int(failed)


def _give_back(store: RunStore, document: Mapping[str, Any], out: Path, device: torch.device) -> tuple[int, list[str]]:
    """Write the runs that were trained or evaluated here; return their number and what found no room."""
    brought, done = set(document["brought"]), set(document["done"])
    names = [
        name
        for name in store.names()
        if store.is_finished(name)
        and (name not in brought or (name not in done and (store.folder(name) / EVALUATION).exists()))
    ]
    return len(names), write_parts(store, names, out, device.type)


def forecast(plan: Plan, pace: Pace, seconds: float) -> str:
    """Return how long the runs of each cell take at a measured pace, and what of it fits into the time left."""
    lines = [f"{pace.hardware}: {duration(seconds)} left" if seconds < float("inf") else pace.hardware]
    shortest = float("inf")
    for cell in plan.cells():
        run = plan.first_run(cell)
        needed = pace.training(run)
        assert needed is not None, "every kind of step was measured"
        together = min(pace.stack, len(plan.params.seeds))
        shortest = min(shortest, needed * together)
        lines.append(f"{cell.name}: about {duration(needed)} a run, {duration(needed * together)} for {together}")
    if shortest > seconds:
        lines.append("no run ends in that time: only checkpoints go back, from which the next bundle goes on")
    return "\n".join(lines)
