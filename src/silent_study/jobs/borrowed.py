"""Train the rounds of a bundle on a borrowed machine until the time is up."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from silent_study.data.errors import DataError
from silent_study.data.prepare import dequantize
from silent_study.jobs.bundle import BORROWED, bundled_plan, done_runs, open_cells, run_state, unpacked
from silent_study.jobs.lease import LeaseError, leased_device
from silent_study.jobs.pace import Pace
from silent_study.jobs.returned import NAMES, write_parts
from silent_study.jobs.stopping import StopSignal, TimeLimit
from silent_study.plan.plan import GRID_ROUNDS, Cell, Plan
from silent_study.plan.selection import select
from silent_study.store.files import write_text_atomically
from silent_study.store.packs import PackSpec
from silent_study.store.runs import RunStore, StoreError, write_json
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
        for option, folder in (("--out", out), ("--work", work)):
            if folder.exists() and not folder.is_dir():
                raise StoreError(f"{option} {folder}: not a folder; name another")
            folder.mkdir(parents=True, exist_ok=True)
        with leased_device() as device:
            return train_bundle(
                options.bundle, out, work, device, lambda: signalled() or limit(), signalled.at_once, limit.left
            )
    except (StoreError, DataError, LeaseError, OSError) as error:
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

    ``out`` is the folder for what goes back, written after every pack, ``work`` that of runs in training, in which the
    same call goes on. ``stop`` and ``evaluating`` are as of ``run_pack``; ``left`` returns the seconds until the stop.

    Returns:
        0, or 1 if a run failed.

    Raises:
        StoreError: The bundle cannot be used, see ``bundle.unpacked``, or ``out`` holds what another call gave back.
    """
    from silent_study.jobs.pack import TrainingOptions, run_pack
    from silent_study.jobs.stopwatch import measured_pace
    from silent_study.training.loop import Interrupted

    document = unpacked(bundle, work)
    _claim(out, work / "out")
    plan, store = bundled_plan(document["settings"], work), RunStore(work / "store")
    done = done_runs(plan, store).union(document["done"])  # need nothing more as selected ones
    _put_checkpoints(RunStore(work / BORROWED / device.type), store)
    for name in plan.datasets():
        dequantize(plan.params.sources[name], work / "data" / name)
    execution = plan.params.execution
    options = TrainingOptions.of(device, execution.steps, execution.stack, execution.checkpoint_seconds)
    failed: list[PackSpec] = []

    def train(packs: Iterable[PackSpec]) -> bool:
        """Train packs; return False if a run failed."""
        before = len(failed)
        for pack in packs:
            # The selection after a grid compares all of its members.
            members = tuple(run for run in pack.members if pack.round in GRID_ROUNDS or run.name not in done)
            if not members:
                continue
            own, data = replace(pack, members=members), work / "data" / pack.group.split("/")[0]
            try:
                write_json(plan.manifest(pack), run_pack(own, store, data, device, options, stop, evaluating))
            except ExceptionGroup as error:
                print(error, file=sys.stderr)
                failed.append(pack)
            _give_back(store, document["brought"], out, device)
        return len(failed) == before

    try:
        counts = open_cells(plan, store, done)
        cells = {cell: counts[cell.name] for cell in plan.cells() if cell.name in counts}
        runs, stack = [plan.first_run(cell) for cell in cells], 1 if options.streams else options.stack
        captured = options.captured
        pace = measured_pace(runs, plan.params.sources, device, MEASURED_ROUNDS, stack, captured=captured, stop=stop)
        print(forecast(plan, cells, pace, left()), flush=True)
        for group in plan.groups():
            _train_rounds(plan, store, group, train)
    except (Interrupted, KeyboardInterrupt):
        print("stopped before the time was up; the same command, or the next bundle, goes on", file=sys.stderr)
    finally:
        given, left_out = _give_back(store, document["brought"], out, device)
        print(f"{counted(given, 'run')} finished, in {out}; at home: silent-gradients absorb FOLDER")
        print("".join(f"{line}\n" for line in left_out), end="")
    return int(bool(failed))


def _claim(out: Path, owner: Path) -> None:
    """Let the file ``owner`` name the folder for what goes back, in which nothing of another call may be."""
    if any(out.glob(NAMES)) and not (owner.exists() and owner.read_text() == str(out)):
        raise StoreError(f"{out}: holds what another call gave back; absorb that at home, and name another --out")
    write_text_atomically(owner, str(out))


def _put_checkpoints(brought: RunStore, store: RunStore) -> None:
    """Move the checkpoints of a bundle to where training goes on from them."""
    for name in brought.names():
        working = store.working_folder(name)
        if not working.exists():
            working.parent.mkdir(parents=True, exist_ok=True)
            brought.working_folder(name).rename(working)


def _train_rounds(plan: Plan, store: RunStore, group: str, train: Callable[[Iterable[PackSpec]], bool]) -> None:
    """Train the rounds of a group, up to the first one in which a run fails."""
    # All seeds side by side: the first one alone, as a grid of one point, would take as long.
    if (foreseen := plan.foreseen(group)) is not None and not train(plan.packs("seeds", foreseen, group)):
        return
    for round_ in plan.rounds(group):
        selections = plan.selections(round_, group)
        if not train(plan.packs(round_, selections, group)):
            return
        if round_ in GRID_ROUNDS:
            found = select(plan, store, round_, group, selections)
            write_json(plan.selection_file(round_, group, selections), found)


def _give_back(
    store: RunStore, brought: Mapping[str, Sequence[str]], out: Path, device: torch.device
) -> tuple[int, list[str]]:
    """Write the runs that were trained or evaluated here; return their number and what found no room."""
    states = {name: run_state(store, name) for name in store.names() if store.is_finished(name)}
    names = [name for name, state in states.items() if state != brought.get(name)]
    # Last those whose weights came from home.
    names.sort(key=lambda name: states[name][:1] == brought.get(name, [])[:1])
    return len(names), write_parts(store, names, out, device.type)


def forecast(plan: Plan, cells: Mapping[Cell, int], pace: Pace, seconds: float) -> str:
    """Return how long the open runs of each cell, as many as ``cells`` has, take at a pace in the ``seconds`` left."""
    lines = [f"{pace.hardware}: {duration(seconds)} left" if seconds < float("inf") else pace.hardware]
    shortest = float("inf")
    for cell, count in cells.items():
        training = pace.training(plan.first_run(cell))
        assert training is not None, "every kind of step was measured"
        together = min(pace.stack, len(plan.params.seeds))
        shortest = min(shortest, training * together)
        lines.append(
            f"{cell.name}: {counted(count, 'run')} at most, about {duration(training)} each, "
            f"{duration(training * together)} for {together}"
        )
    if shortest > seconds:
        lines.append("no run ends in that time: only checkpoints go back, from which the next bundle goes on")
    return "\n".join(lines)
