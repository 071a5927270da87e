"""A pack: runs of one data set and experiment in one round, trained by one process on one device."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType

import torch

from silent_study.data.batches import RunData
from silent_study.data.prepared import PreparedData
from silent_study.evaluation.selected import evaluate_selected
from silent_study.settings import RunSettings
from silent_study.store.documents import Manifest
from silent_study.store.manifests import is_usable, keep_best_weights, manifest, print_outcome
from silent_study.store.packs import PackSpec
from silent_study.store.provenance import provenance
from silent_study.store.runs import (
    PROGRESS,
    PROVENANCE,
    RESULT,
    SETTINGS,
    WEIGHTS,
    RunStore,
    StoredRun,
    StoreError,
    write_json,
)
from silent_study.training import checkpoint
from silent_study.training.loop import Interrupted, Trainer, train
from silent_study.training.stack import stacks
from silent_study.training.steps import Stepper
from silent_study.words import duration

REPORT_SECONDS = 5.0
"""A run in training says as often what epoch it is in."""


class StopSignal:
    """Turns the first SIGTERM or SIGINT into a request to stop at the next checkpoint."""

    def __init__(self) -> None:
        self.number: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None:  # asked twice: do not wait for a checkpoint
            raise KeyboardInterrupt
        self.number = number

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None


class TimeLimit:
    """Asks for a stop so long before a limit that whatever was done between two questions could be done once more.

    Args:
        seconds: The limit, counted from now.
        clock: Tells the time in seconds.
    """

    RESERVE = 10.0
    """Seconds kept for saving a checkpoint, at least."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.last = clock()
        self.end = self.last + seconds
        self.longest = 0.0

    def __call__(self) -> bool:
        """Whether it is time to stop."""
        now = self.clock()
        self.longest = max(self.longest, now - self.last)
        self.last = now
        return now + max(self.RESERVE, 1.5 * self.longest) > self.end


class EpochReport:
    """Prints a line on a run's epochs every now and then.

    Args:
        title: What the line begins with.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.last = time.monotonic()

    def __call__(self, trainer: Trainer) -> None:
        """Print if the last line is ``REPORT_SECONDS`` old."""
        now = time.monotonic()
        if trainer.curve and now - self.last >= REPORT_SECONDS:
            self.last = now
            print(f"{self.title}: {', '.join(self._parts(trainer))}", flush=True)

    def _parts(self, trainer: Trainer) -> Iterator[str]:
        yield f"epoch {trainer.epoch} of {trainer.settings.epochs}"
        bounds = [entry["selection_bpd"] for entry in trainer.curve if entry["selection_bpd"] is not None]
        if bounds:
            yield f"{bounds[-1]:.4f} bits/dim"
        speed, left = trainer.speed.images_per_second, trainer.seconds_left
        if speed is not None and left is not None:
            yield f"{speed:,.0f} images/s"
            yield f"about {duration(left)} left"


def run_pack(
    spec: PackSpec,
    store: RunStore,
    data_folder: Path,
    device: torch.device,
    *,
    checkpoint_seconds: float,
    stop: Callable[[], bool],
    stack: int = 1,
    captured: bool = False,
    streams: bool = False,
    tensorboard: Path | None = None,
) -> Manifest:
    """Train the members that the store lacks, evaluate where asked, and return the pack's manifest.

    Args:
        spec: The pack; its members share their data.
        store: Where finished runs lie and new ones go.
        data_folder: Folder of the prepared data set.
        device: Device that trains and evaluates.
        checkpoint_seconds: Wall time between a run's checkpoints.
        stop: Asked after every step and before every evaluation; True saves a checkpoint and ends the pack.
        stack: Most runs that are trained side by side, see ``stack.py``; 1 is one after another, without a stack.
        captured: Steps are CUDA graphs, see ``capture.py``.
        streams: Runs side by side are on CUDA streams of their own instead, each by itself; they may be of any kind.
        tensorboard: Folder for the curves as TensorBoard's events, see ``events.py``; None is nowhere.

    Raises:
        Interrupted: ``stop`` said so; everything done so far is kept.
        DataError: The prepared data set is missing or altered.
        SettingsError: ``tensorboard`` is asked for and not installed.
    """
    if tensorboard is not None:
        from silent_study.training.events import CurveEvents
    first = spec.members[0]
    prepared = PreparedData.open(data_folder, first.data.sha256)
    data = RunData.load(prepared, first, device)
    numbers = {settings.name: number for number, settings in enumerate(spec.members)}
    trained: dict[str, StoredRun] = {}
    for group in _side_by_side(spec.members, stack) if streams else stacks(spec.members, stack, device):
        with ExitStack() as locks:
            replaced: dict[str, StoredRun | None] = {}
            for settings in group:
                locks.enter_context(store.locked(settings.name))
                run = _stored(store, settings)
                if run is not None and is_usable(spec, run):
                    trained[settings.name] = run
                    print_outcome(numbers[settings.name] + 1, len(numbers), "already trained", run)
                else:
                    replaced[settings.name] = run
            trainers = []
            for settings in group:
                if settings.name in replaced:
                    reports: list[Callable[[Trainer], None]] = [
                        EpochReport(f"[{numbers[settings.name] + 1}/{len(numbers)}] {settings.name}")
                    ]
                    if tensorboard is not None:
                        reports.append(events := CurveEvents(tensorboard / settings.name))
                        locks.callback(events.close)
                    report = partial(_report_all, reports)
                    trainers.append(Trainer(settings, data, store.working_folder(settings.name), device, report=report))
            started = datetime.now(UTC)
            stepper = Stepper(stacked=stack > 1 and not streams, captured=captured, streams=streams)
            train(trainers, stepper.advance, checkpoint_seconds, stop)
            for trainer in trainers:
                name = trainer.settings.name
                trained[name] = _seal(store, trainer, started, replaced[name])
                print_outcome(numbers[name] + 1, len(numbers), "trained", trained[name])
    members = [trained[settings.name] for settings in spec.members]
    if spec.evaluation is not None:
        for position, (run, settings) in enumerate(zip(members, spec.members, strict=True)):
            if stop():
                raise Interrupted
            print(f"[{position + 1}/{len(members)}] evaluating {run.name}", flush=True)
            evaluate_selected(run, settings, spec.evaluation, prepared, data, device)
    return manifest(spec, members if spec.round == "seeds" else keep_best_weights(store, members))


def _side_by_side(runs: Sequence[RunSettings], size: int) -> list[list[RunSettings]]:
    """Runs cut into groups of at most ``size``, in their order; no step is shared, so that any will do."""
    return [list(runs[start : start + size]) for start in range(0, len(runs), size)]


def _report_all(reports: Sequence[Callable[[Trainer], None]], trainer: Trainer) -> None:
    for report in reports:
        report(trainer)


def _stored(store: RunStore, settings: RunSettings) -> StoredRun | None:
    try:
        return store.find(settings.name, settings.id)
    except StoreError as error:
        print(f"{error}; training this run again", file=sys.stderr, flush=True)
        shutil.rmtree(store.folder(settings.name))
        return None


def _seal(store: RunStore, trainer: Trainer, started: datetime, replaces: StoredRun | None) -> StoredRun:
    """Write what is known of a run that has been trained, and hand it over to the store."""
    settings, working = trainer.settings, trainer.folder
    result, images = trainer.result(), trainer.epoch * len(trainer.data.batches)
    write_json(working / SETTINGS, settings.to_json())
    write_json(working / RESULT, result)
    write_json(working / PROVENANCE, provenance(started, trainer.seconds, images, trainer.device))
    if result["status"] == "finished":
        torch.save(trainer.snapshot(), working / WEIGHTS)
    else:
        for path in working.glob("snapshot-*.pt"):
            path.unlink()
    # A process that was killed while it wrote leaves its half of a file.
    leftovers = (working / name for name in (checkpoint.CURRENT, checkpoint.PREVIOUS, PROGRESS))
    for path in (*leftovers, *working.glob(".*.tmp")):
        path.unlink(missing_ok=True)
    return store.seal(settings, replaces)
