"""Train and evaluate the runs of a pack in one process."""

from __future__ import annotations

import errno
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from silent_study.data.batches import RunData
from silent_study.data.prepared import PreparedData
from silent_study.evaluation.runs import OpenRun, evaluate_selected
from silent_study.settings import EvaluationSettings, RunSettings
from silent_study.store.code import evaluation_code, training_code
from silent_study.store.documents import Manifest
from silent_study.store.files import write_bytes_atomically
from silent_study.store.manifests import is_usable, keep_needed_weights, manifest, print_outcome
from silent_study.store.packs import PackSpec
from silent_study.store.provenance import provenance
from silent_study.store.runs import (
    CODE,
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
from silent_study.training.stack import cut_into_stacks
from silent_study.training.steps import Stepper
from silent_study.words import counted, duration

if TYPE_CHECKING:
    import torch

    from silent_study.training.events import CurveEvents

REPORT_SECONDS = 5.0
"""Seconds between the lines that a run in training prints."""


@dataclass(frozen=True)
class TrainingOptions:
    """How a pack is trained: none of it is part of a run's id."""

    checkpoint_seconds: float = 30.0  # wall time between a run's checkpoints
    stack: int = 1  # most runs that are trained side by side, see ``stack.py``; 1 trains one after another, unstacked
    captured: bool = False  # capture steps as CUDA graphs, see ``steps.CapturedStep``
    streams: bool = False  # train runs side by side on CUDA streams, unstacked; they may differ in any setting
    tensorboard: Path | None = None  # folder for the curves as TensorBoard events, see ``events.py``

    @classmethod
    def of(
        cls, device: torch.device, steps: str, stack: int, checkpoint_seconds: float, tensorboard: Path | None = None
    ) -> TrainingOptions:
        """Return the options on a device for the settings ``execution.steps`` and ``execution.stack``."""
        on_gpu, streams = device.type == "cuda", steps == "streams"
        return cls(
            checkpoint_seconds,
            stack if on_gpu or not streams else 1,
            captured=steps != "eager" and on_gpu,
            streams=streams and on_gpu,
            tensorboard=tensorboard,
        )


def run_pack(
    spec: PackSpec,
    store: RunStore,
    data_folder: Path,
    device: torch.device,
    options: TrainingOptions,
    stop: Callable[[], bool] = lambda: False,
    evaluating: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Manifest:
    """Train the members that the store lacks, evaluate where asked, and return the pack's manifest.

    Args:
        spec: The pack; its members share their data.
        store: Store of the runs.
        data_folder: Folder of the prepared data set.
        device: Device that trains and evaluates.
        options: How to train.
        stop: Called after every step and before every evaluation; True saves a checkpoint and ends the pack.
        evaluating: Called for a context around every evaluation, which may be interrupted: it has nothing to save.

    Raises:
        Interrupted: ``stop`` returned True; everything done so far is kept.
        ExceptionGroup: Members failed, each with an exception whose note is its name; the others are done and kept.
        OSError: The disk is full.
        DataError: The prepared data set is missing or altered.
        SettingsError: ``options.tensorboard`` is set, and the package is not installed.
    """
    job = _Job(spec, store, data_folder, device, options, stop, evaluating)
    runs = job.train()
    if spec.evaluation is not None:
        job.evaluate(runs, spec.evaluation)
    job.raise_failures()
    return manifest(spec, keep_needed_weights(store, spec, runs))


@dataclass
class _Job:
    """A pack with its data on the device; for the arguments see ``run_pack``."""

    spec: PackSpec
    store: RunStore
    data_folder: Path
    device: torch.device
    options: TrainingOptions
    stop: Callable[[], bool]
    evaluating: Callable[[], AbstractContextManager[None]]

    def __post_init__(self) -> None:
        self.curve_events: type[CurveEvents] | None = None
        if self.options.tensorboard is not None:  # a missing package is an error before the training
            from silent_study.training.events import CurveEvents

            self.curve_events = CurveEvents
            self.options.tensorboard.mkdir(parents=True, exist_ok=True)
        # Digests of the source as it is now: an edit during the training does not change what is imported.
        self.code = {run.name: training_code(run.estimator) for run in self.spec.members}
        for run in self.spec.members:
            evaluation_code(run.estimator)
        self.failures: dict[str, Exception] = {}  # by name of the run
        first = self.spec.members[0]
        self.prepared = PreparedData.open(self.data_folder, first.data.sha256)
        self.data = RunData.load(self.prepared, first, self.device)

    def train(self) -> list[StoredRun]:
        """Train the members that the store lacks; return all members in order, but those that failed."""
        members, trunks = self.spec.members, self.spec.trunks
        first = [run for run in members if trunks[run.name] == run]
        forks = [run for run in members if trunks[run.name] != run]
        groups = [group for wave in (first, forks) for group in self._side_by_side(wave)]
        runs = {run.name: run for group in groups for run in self._train_isolated(group)}
        return [runs[settings.name] for settings in members if settings.name in runs]

    def _side_by_side(self, runs: Sequence[RunSettings]) -> list[list[RunSettings]]:
        """Return the runs in groups that are trained together."""
        size = self.options.stack
        if self.options.streams:
            return [list(runs[start : start + size]) for start in range(0, len(runs), size)]
        return cut_into_stacks(runs, size, self.device)

    def _train_isolated(self, group: Sequence[RunSettings]) -> list[StoredRun]:
        """Train a group; if that fails, each of its runs by itself, and keep the error of each that fails then."""
        try:
            return self._train_group(group)
        except Exception as error:  # noqa: BLE001 - raised once the others are trained
            self._fail(group, error)
        return [run for settings in group for run in self._train_isolated([settings])] if len(group) > 1 else []

    def _fail(self, group: Sequence[RunSettings], error: Exception) -> None:
        """Keep the error of a run; raise one that would meet the other runs, too: a request to stop, a full disk."""
        if isinstance(error, Interrupted) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise error
        if len(group) > 1:
            print(f"{len(group)} runs failed together ({error}); training each by itself", file=sys.stderr)
            return
        traceback.clear_frames(error.__traceback__)  # which hold the run's tensors
        name = group[0].name
        error.add_note(name)
        self.failures[name] = error
        print(f"FAILED {name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)

    def raise_failures(self) -> None:
        """Raise the errors of the members that failed, if there are any."""
        if self.failures:
            failed = f"{len(self.failures)} of {counted(len(self.spec.members), 'run')} failed"
            message = f"{failed}: {', '.join(self.failures)}; all others are done and kept"
            raise ExceptionGroup(message, list(self.failures.values()))

    def _train_group(self, group: Sequence[RunSettings]) -> list[StoredRun]:
        """Train the runs of a group side by side, but those that the store has; return all."""
        runs: list[StoredRun] = []
        trainers: list[tuple[Trainer, StoredRun | None]] = []
        with ExitStack() as held:
            for settings in group:
                held.enter_context(self.store.locked(settings.name))
                run = _stored(self.store, settings)
                if run is not None and is_usable(self.spec, run):
                    runs.append(run)
                    print_outcome(self._number(settings), len(self.spec.members), "already trained", run)
                else:
                    trainers.append((self._trainer(settings, held), run))
            started, options = datetime.now(UTC), self.options
            stacked = options.stack > 1 and not options.streams
            stepper = Stepper(stacked=stacked, captured=options.captured, streams=options.streams)
            train([trainer for trainer, _ in trainers], stepper.advance, options.checkpoint_seconds, self.stop)
            for trainer, replaced in trainers:
                runs.append(_seal(self.store, trainer, started, replaced))
                print_outcome(self._number(trainer.settings), len(self.spec.members), "trained", runs[-1])
        return runs

    def _number(self, settings: RunSettings) -> int:
        return 1 + self.spec.members.index(settings)

    def _trainer(self, settings: RunSettings, held: ExitStack) -> Trainer:
        title = f"[{self._number(settings)}/{len(self.spec.members)}] {settings.name}"
        reports: list[Callable[[Trainer], None]] = [epoch_report(title), self._fork]
        if self.curve_events is not None and self.options.tensorboard is not None:
            reports.append(events := self.curve_events(self.options.tensorboard / settings.name))
            held.callback(events.close)

        def report(trainer: Trainer) -> None:
            for each in reports:
                each(trainer)

        folder = self.store.working_folder(settings.name)
        if not self.store.has_checkpoint(settings.name):
            write_json(folder / CODE, self.code[settings.name])
        return Trainer(settings, self.data, folder, self.device, report=report)

    def _fork(self, trunk: Trainer) -> None:
        """Begin the runs whose cut-off the trunk has reached by its state, unless they have begun already.

        A trunk that goes on in the middle of an epoch has gone past the cut-off: a run that lacks its state then is
        trained from its start.
        """
        for run in self.spec.members if trunk.step == 0 else ():
            if run.unfrozen_epochs != trunk.epoch or self.spec.trunks[run.name] != trunk.settings:
                continue
            begun = self.store.is_finished(run.name) or self.store.has_checkpoint(run.name)
            if run != trunk.settings and not begun and not self.store.is_locked(run.name):
                with self.store.locked(run.name):
                    trunk.fork(run, self.store.working_folder(run.name))

    def evaluate(self, runs: Sequence[StoredRun], evaluation: EvaluationSettings) -> None:
        """Evaluate the runs, in the order of the members; keep the error of each that fails."""
        members = {settings.name: settings for settings in self.spec.members}
        for run in runs:
            if self.stop():
                raise Interrupted
            settings = members[run.name]
            print(f"[{self._number(settings)}/{len(members)}] evaluating {run.name}", flush=True)
            try:
                with self.evaluating():
                    evaluate_selected(OpenRun(run, settings, self.prepared, self.data, self.device), evaluation)
            except Exception as error:  # noqa: BLE001 - raised once the others are evaluated
                self._fail([settings], error)


def epoch_report(title: str) -> Callable[[Trainer], None]:
    """Return a function that prints the progress of a run after ``title``, at most every ``REPORT_SECONDS``."""
    last = time.monotonic()

    def report(trainer: Trainer) -> None:
        nonlocal last
        now = time.monotonic()
        if not trainer.curve or now - last < REPORT_SECONDS:
            return
        last = now
        parts = [f"epoch {trainer.epoch} of {trainer.settings.epochs}"]
        bounds = [entry["selection_bpd"] for entry in trainer.curve if entry["selection_bpd"] is not None]
        if bounds:
            parts.append(f"{bounds[-1]:.4f} bits/dim")
        speed, left = trainer.speed.images_per_second, trainer.seconds_left
        if speed is not None and left is not None:
            parts += [f"{speed:,.0f} images/s", f"about {duration(left)} left"]
        print(f"{title}: {', '.join(parts)}", flush=True)

    return report


def _stored(store: RunStore, settings: RunSettings) -> StoredRun | None:
    try:
        return store.find(settings.name, settings.id)
    except StoreError as error:
        print(f"{error}; training this run again", file=sys.stderr, flush=True)
        shutil.rmtree(store.folder(settings.name))
        return None


def _seal(store: RunStore, trainer: Trainer, started: datetime, replaces: StoredRun | None) -> StoredRun:
    """Write the files of a trained run and seal it in the store."""
    settings, working = trainer.settings, trainer.folder
    result, images = trainer.result(), (trainer.epoch - trainer.shared_epochs) * len(trainer.data.batches)
    write_json(working / SETTINGS, settings.to_json())
    write_json(working / RESULT, result)
    write_json(working / PROVENANCE, provenance(started, trainer.seconds, images, trainer.device))
    if result["status"] == "finished":
        write_bytes_atomically(working / WEIGHTS, checkpoint.serialized(trainer.snapshot()))
    else:
        for path in working.glob("snapshot-*.pt"):
            path.unlink()
    for name in (checkpoint.CURRENT, checkpoint.PREVIOUS, PROGRESS):
        (working / name).unlink(missing_ok=True)
    return store.seal(settings, replaces)
