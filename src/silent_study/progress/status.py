"""How far a workflow is, read from its results by anyone at any time: it writes nothing and waits for nothing.

What it reads may be written at the same time. Every file of the store is whole or not there, and a run that is renamed
while it is looked at is looked at again.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from silent_study.jobs.pace import PACE, Pace
from silent_study.plan.plan import ROUNDS, Plan, SelectionMissingError
from silent_study.settings import RunSettings
from silent_study.store.packs import PackSpec, Round
from silent_study.store.runs import CURVE, EVALUATION, PROGRESS, PROVENANCE, RESULT, RunStore

State = Literal["planned", "running", "stopped", "finished", "diverged"]
"""A stopped run has a folder and no process; the workflow goes on with it."""

JobState = Literal["planned", "running", "stopped", "failed", "done"]

CHECKPOINT = "checkpoint.pt"
STARTING_SECONDS = 30.0
"""A job whose log is empty may be starting for so long."""
# Enough for the last lines of a curve and of a log.
_TAIL_BYTES = 8192


@dataclass(frozen=True)
class RunStatus:
    """A run.

    Attributes:
        name: Its name.
        state: See ``State``.
        epochs: Epochs to train.
        epoch: Epochs done; all of a run that has ended.
        share: Steps done over all steps.
        bpd: Newest bits/dim on the selection split; before the first of them, the training bound.
        images_per_second: Its own, over the last minute (running only).
        seconds_left: Wall time to its end at that speed (running only).
        seconds: Time spent on it.
        checkpoint_age: Seconds since its newest checkpoint (running and stopped only); None where there is none yet.
        silent_for: Seconds since it last told how far it is (running and stopped only).
        evaluated: Whether it has the evaluation of a selected run.
    """

    name: str
    state: State
    epochs: int
    epoch: int = 0
    share: float = 0.0
    bpd: float | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    seconds: float = 0.0
    checkpoint_age: float | None = None
    silent_for: float | None = None
    evaluated: bool = False

    @property
    def cell(self) -> str:
        """``data set/experiment/method``."""
        return self.name.rpartition("/")[0]

    @property
    def ended(self) -> bool:
        """Whether it is trained to its end."""
        return self.state in ("finished", "diverged")


@dataclass(frozen=True)
class JobStatus:
    """A pack's job.

    Attributes:
        round: Its round.
        group: Its group.
        id: The pack's id.
        state: The log of a ``failed`` one ends with an error. A ``stopped`` one was asked to stop, or its process is
            gone without a word. A ``running`` one may wait for a device.
        log: Its log; None where there is none.
        news: The log's last line.
        runs: The names of its runs.
    """

    round: Round
    group: str
    id: str
    state: JobState
    log: str | None
    news: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """A job whose last attempt failed.

    Attributes:
        job: What it was to do.
        log: Its log.
        error: What went wrong.
    """

    job: str
    log: str
    error: str


@dataclass(frozen=True)
class Status:
    """The whole.

    Attributes:
        preset: The preset.
        protocol: The protocol.
        jobs: Every job that is known, in the order of the plan.
        runs: Every run of these, by name.
        failures: Jobs whose last attempt failed, those of data, selections and the report too.
        to_come: By round and cell, runs at most that are not known before a selection.
        spent_hours: Of training, on one device at a time.
        left_hours: Likewise, at most; None where nothing tells it.
        report: Whether the report is that of the plan.
    """

    preset: str
    protocol: str
    jobs: tuple[JobStatus, ...]
    runs: Mapping[str, RunStatus]
    failures: tuple[Failure, ...]
    to_come: Mapping[tuple[Round, str], int]
    spent_hours: float
    left_hours: float | None
    report: bool

    def count(self) -> Counter[State]:
        """Runs by state."""
        return Counter(run.state for run in self.runs.values())

    def of(self, state: JobState) -> list[JobStatus]:
        """Jobs in a state."""
        return [job for job in self.jobs if job.state == state]

    def by_cell(self) -> dict[tuple[Round, str], list[RunStatus]]:
        """Runs by round and cell; a run that two rounds ask for is in both."""
        found: dict[tuple[Round, str], list[RunStatus]] = {}
        for job in self.jobs:
            for name in job.runs:
                run = self.runs[name]
                found.setdefault((job.round, run.cell), []).append(run)
        return found

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        cells = [
            {"round": round_, "cell": cell, **Counter(run.state for run in runs), "runs": len(runs)}
            for (round_, cell), runs in self.by_cell().items()
        ]
        more = [{"round": round_, "cell": cell, "at_most": runs} for (round_, cell), runs in self.to_come.items()]
        return {
            "preset": self.preset,
            "protocol": self.protocol,
            "counts": dict(self.count()),
            "cells": cells,
            "to_come": more,
            "jobs": [asdict(job) for job in self.jobs],
            "runs": [asdict(run) for run in self.runs.values()],
            "failures": [asdict(failure) for failure in self.failures],
            "spent_hours": self.spent_hours,
            "left_hours": self.left_hours,
            "report": self.report,
        }


def status(plan: Plan, logs: Path) -> Status:
    """Look at everything that the plan asks for.

    Args:
        plan: The plan.
        logs: Folder of the workflow's logs.
    """
    store, now = RunStore(plan.results / "store"), time.time()
    runs: dict[str, RunStatus] = {}
    jobs: list[JobStatus] = []
    to_come: dict[tuple[Round, str], int] = {}
    settings: dict[str, RunSettings] = {}
    unknown: list[list[RunSettings]] = []
    for round_ in ROUNDS:
        for group in plan.groups():
            if round_ not in plan.rounds(group):
                continue
            packs = _packs(plan, round_, group)
            if packs is None:
                for cell in plan.cells_of(round_, group):
                    possible = plan.possible_runs(cell, round_)
                    to_come[round_, cell.name] = len(possible)
                    unknown += possible
                continue
            for pack in packs:
                for member in pack.members:
                    settings.setdefault(member.name, member)
                    if member.name not in runs:
                        runs[member.name] = _run(store, member, now)
                jobs.append(_job(plan, store, pack, [runs[member.name] for member in pack.members], logs, now))
    left = _Left(plan, settings, runs)
    return Status(
        preset=plan.params.preset,
        protocol=plan.params.protocol,
        jobs=tuple(jobs),
        runs=runs,
        failures=tuple(_failures(plan, jobs, logs)),
        to_come=to_come,
        spent_hours=sum(run.seconds for run in runs.values()) / 3600,
        left_hours=left.hours(unknown),
        report=_report_is_current(plan),
    )


def _packs(plan: Plan, round_: Round, group: str) -> list[PackSpec] | None:
    try:
        return plan.packs(round_, plan.selections(round_, group), group)
    except SelectionMissingError:
        return None


def _run(store: RunStore, settings: RunSettings, now: float) -> RunStatus:
    name, epochs = settings.name, settings.epochs
    # Twice: it may be renamed between the two looks.
    for _ in range(2):
        if store.is_finished(name):
            folder = store.folder(name)
            result, provenance = _document(folder / RESULT), _document(folder / PROVENANCE)
            if result is not None and provenance is not None:
                selection = result["selection"]
                return RunStatus(
                    name,
                    "diverged" if result["status"] == "diverged" else "finished",
                    epochs,
                    epoch=result["epochs"],
                    share=1.0,
                    bpd=None if selection is None else selection["bpd"],
                    images_per_second=provenance["images_per_second"],
                    seconds=provenance["seconds"],
                    evaluated=(folder / EVALUATION).exists(),
                )
        folder = store.working_folder(name)
        if folder.is_dir():
            found = _unfinished(store, settings, folder, now)
            # A run that ends here lets go of its lock after its folder has been renamed.
            if found.state == "running" or folder.is_dir():
                return found
    return RunStatus(name, "planned", epochs)


def _unfinished(store: RunStore, settings: RunSettings, folder: Path, now: float) -> RunStatus:
    told = _document(folder / PROGRESS) or {}
    running, curve = store.is_locked(settings.name), _entries(folder / CURVE)
    return RunStatus(
        settings.name,
        "running" if running else "stopped",
        settings.epochs,
        epoch=curve[-1]["epoch"] if curve else 0,
        share=told.get("share", 0.0),
        bpd=_newest_bound(curve),
        images_per_second=told.get("images_per_second") if running else None,
        seconds_left=told.get("seconds_left") if running else None,
        seconds=told.get("seconds", 0.0),
        checkpoint_age=_age(folder / CHECKPOINT, now),
        silent_for=_age(folder / PROGRESS, now),
    )


def _document(path: Path) -> dict[str, Any] | None:
    """A JSON object of the store; None where it is not there, or not whole."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _age(path: Path, now: float) -> float | None:
    try:
        return max(0.0, now - path.stat().st_mtime)
    except OSError:
        return None


def _entries(curve: Path) -> list[dict[str, Any]]:
    """The last entries of a curve."""
    found = []
    for line in _tail(curve):
        with suppress(ValueError):  # the part of a line that the tail begins with
            found.append(json.loads(line))
    return [entry for entry in found if isinstance(entry, dict)]


def _newest_bound(curve: Sequence[Mapping[str, Any]]) -> float | None:
    for key in ("selection_bpd", "train_bpd"):
        if bounds := [entry[key] for entry in curve if entry.get(key) is not None]:
            return float(bounds[-1])
    return None


def _tail(path: Path) -> list[str]:
    """The last whole lines of a file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            return file.read().decode(errors="replace").split("\n")[:-1]
    except OSError:
        return []


def _job(plan: Plan, store: RunStore, pack: PackSpec, runs: Sequence[RunStatus], logs: Path, now: float) -> JobStatus:
    log = logs / "packs" / pack.round / pack.group / f"{pack.id}.log"
    lines = _tail(log)
    # In this order: a job writes its manifest before it lets go of its lock.
    running = store.is_locked(pack.lock)
    error = _error_in(lines, "train")
    news = error or next((line.strip() for line in reversed(lines) if line.strip()), "")
    if plan.manifest(pack).exists():
        state: JobState = "done"
    elif running or (not lines and (_age(log, now) or STARTING_SECONDS) < STARTING_SECONDS):
        state = "running"
    elif error:
        state = "failed"
    elif news.startswith("stopped") or any(run.state == "stopped" for run in runs):
        state = "stopped"
    else:
        state = "planned"
    names = tuple(run.name for run in runs)
    return JobStatus(pack.round, pack.group, pack.id, state, str(log) if log.exists() else None, news, names)


def _error_in(log: Sequence[str], verb: str) -> str:
    """The error that the log of a call of ``silent-gradients`` ends with; "" where there is none."""
    for line in log:
        if line.startswith(f"silent-gradients {verb}: "):
            return line.strip()
    return log[-1].strip() if any(line.startswith("Traceback") for line in log) else ""


def _failures(plan: Plan, jobs: Iterable[JobStatus], logs: Path) -> Iterator[Failure]:
    """What failed at its last attempt: a log is begun anew with every one."""
    for job in jobs:
        if job.state == "failed" and job.log is not None:
            yield Failure(f"{job.round} {job.group}", job.log, job.news)
    others = [
        (verb, dataset, logs / verb / f"{dataset}.log")
        for dataset in plan.datasets()
        for verb in ("download", "prepare", "dequantize")
    ]
    for group in plan.groups():
        with suppress(SelectionMissingError):
            for round_ in plan.rounds(group)[:-1]:
                selections = plan.selections(round_, group)
                name = f"{round_}-{plan.selection_id(round_, group, selections)}.log"
                others.append(("select", f"{round_} {group}", logs / "select" / group / name))
    with suppress(SelectionMissingError):
        marker = plan.gathered_marker(plan.selections("seeds"))
        others.append(("gather", marker.stem, logs / "gather" / f"{marker.stem}.log"))
    for verb, what, log in others:
        if error := _error_in(_tail(log), verb):
            yield Failure(f"{verb} {what}", str(log), error)


class _Left:
    """What is left to train and how long it takes.

    An epoch is taken to last as those of the same cell did, else as the device's measured pace says, else as those of
    the same group did.
    """

    def __init__(self, plan: Plan, settings: Mapping[str, RunSettings], runs: Mapping[str, RunStatus]) -> None:
        self.plan, self.settings, self.runs = plan, settings, runs
        self.pace = Pace.read(plan.results / PACE, plan.params.sources)
        spent: defaultdict[str, float] = defaultdict(float)
        epochs: defaultdict[str, float] = defaultdict(float)
        for run in runs.values():
            for whole in (run.cell, run.cell.rpartition("/")[0]):
                spent[whole] += run.seconds
                epochs[whole] += run.epoch if run.ended else run.share * run.epochs
        self.seconds_per_epoch = {whole: spent[whole] / epochs[whole] for whole in spent if epochs[whole]}

    def hours(self, unknown: Iterable[Sequence[RunSettings]]) -> float | None:
        """Hours of training; None where some of it cannot be told.

        Args:
            unknown: Runs that wait for a selection, each as those that it may be.
        """
        parts = list(self._parts(unknown))
        known = [part for part in parts if part is not None]
        return sum(known) / 3600 if len(known) == len(parts) else None

    def _parts(self, unknown: Iterable[Sequence[RunSettings]]) -> Iterator[float | None]:
        counted = set(self.runs)
        for name, run in self.runs.items():
            if not run.ended:
                whole = self._training(self.settings[name])
                yield None if whole is None else (1 - run.share) * whole
        for candidates in unknown:
            if any(run.name not in counted for run in candidates):
                counted.update(run.name for run in candidates)
                times = [self._training(run) for run in candidates]
                yield None if None in times else max(time for time in times if time is not None)

    def _training(self, run: RunSettings) -> float | None:
        measured = None if self.pace is None else self.pace.training(run)
        of_cell, of_group = (self.seconds_per_epoch.get(whole) for whole in (run.cell, run.cell.rpartition("/")[0]))
        if of_cell is None and measured is not None:
            return measured
        each = of_group if of_cell is None else of_cell
        return None if each is None else each * run.epochs


def _report_is_current(plan: Plan) -> bool:
    from silent_study.report.gathered import is_current

    try:
        return is_current(plan.gathered_marker(plan.selections("seeds")), plan.results)
    except (SelectionMissingError, OSError):
        return False
