"""Read how far a workflow is, without writing.

Other processes may write these files at the same time. Every file of the store is whole or missing, and a run whose
folder is renamed while it is read is read once more.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from silent_study.jobs.pace import PACE, Pace
from silent_study.plan.plan import ROUNDS, Plan, SelectionMissingError, Training
from silent_study.progress.logs import error_in, tail
from silent_study.progress.overview import at_most, longest
from silent_study.report.gathered import is_current, marker_of
from silent_study.settings import RunSettings
from silent_study.store.packs import PackSpec, Round
from silent_study.store.runs import CHECKPOINTS, CURVE, EVALUATION, PROGRESS, RunStore, StoreError, read_json
from silent_study.store.stale import stale_message, stale_runs

State = Literal["planned", "running", "stopped", "finished", "diverged"]
"""A ``stopped`` run has a folder and no process; the workflow continues it."""

JobState = Literal["planned", "running", "stopped", "failed", "done"]
"""The log of a ``failed`` job ends with an error; the process of a ``stopped`` one was interrupted or killed; a
``running`` one may wait for a device."""

STARTING_SECONDS = 30.0
"""Age up to which an empty log is that of a job that is starting."""


@dataclass(frozen=True)
class RunStatus:
    """The state of a run; speed and time left are of running runs, ages of running and stopped ones."""

    name: str  # in the store
    state: State
    epochs: int  # to train
    epoch: int = 0  # epochs trained
    share: float = 0.0  # steps done over all steps
    bpd: float | None = None  # newest on the selection split; before the first evaluation, the training bound
    images_per_second: float | None = None  # over the last minute
    seconds_left: float | None = None  # wall time to the end at this speed
    seconds: float = 0.0  # spent
    checkpoint_age: float | None = None  # seconds since the newest checkpoint; None before the first
    silent_for: float | None = None  # seconds since progress.json was last written
    evaluated: bool = False  # whether it has the evaluation of a selected run

    @property
    def cell(self) -> str:
        """``data set/experiment/method``."""
        return self.name.rpartition("/")[0]

    @property
    def ended(self) -> bool:
        """True if the training has ended."""
        return self.state in ("finished", "diverged")


@dataclass(frozen=True)
class JobStatus:
    """The state of a pack's job."""

    round: Round
    group: str
    id: str
    state: JobState
    log: str | None  # path; None where there is none
    news: str  # last line of the log
    runs: tuple[str, ...]  # names

    @property
    def title(self) -> str:
        """Round and group."""
        return f"{self.round} {self.group}"


@dataclass(frozen=True)
class Failure:
    """A job whose last attempt failed."""

    job: str  # round and group, or verb and data set
    log: str  # path
    error: str  # the last one in the log


@dataclass(frozen=True)
class Status:
    """The state of a plan."""

    preset: str
    protocol: str
    jobs: tuple[JobStatus, ...]  # every known one, in the order of the plan
    runs: Mapping[str, RunStatus]  # of these jobs, by name
    failures: tuple[Failure, ...]  # of trainings, data, selections and the report
    to_come: Mapping[tuple[Round, str], int]  # upper bound, by round and cell, of runs that wait for a selection
    spent_hours: float  # of training, summed over jobs
    left_hours: float | None  # upper bound, likewise; None where it is not known
    report: bool  # whether the report is the plan's
    stale: str  # what other source code than the present one trained or evaluated, and the ways on; "" if nothing

    def count(self) -> Counter[State]:
        """Count the runs by state."""
        return Counter(run.state for run in self.runs.values())

    def by_cell(self) -> dict[tuple[Round, str], list[RunStatus]]:
        """Return the runs by round and cell; a run of two rounds is in both."""
        found: dict[tuple[Round, str], list[RunStatus]] = {}
        for job in self.jobs:
            for name in job.runs:
                run = self.runs[name]
                found.setdefault((job.round, run.cell), []).append(run)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        cells = [
            {"round": round_, "cell": cell, **Counter(run.state for run in runs), "runs": len(runs)}
            for (round_, cell), runs in self.by_cell().items()
        ]
        more = [{"round": round_, "cell": cell, "at_most": runs} for (round_, cell), runs in self.to_come.items()]
        return {
            **vars(self),
            "counts": dict(self.count()),
            "cells": cells,
            "to_come": more,
            "jobs": [asdict(job) for job in self.jobs],
            "runs": [asdict(run) for run in self.runs.values()],
            "failures": [asdict(failure) for failure in self.failures],
        }


class StatusReader:
    """Reads the state of a plan, with its logs, again and again; the results of a finished run are read once."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._finished: dict[str, tuple[int, RunStatus]] = {}  # by name, with the time of the run's record

    def read(self, plan: Plan) -> Status:
        """Read the present state."""
        store, now, trainings = plan.store, time.time(), list(plan.trainings())
        present = set(store.names())
        runs: dict[str, RunStatus] = {}
        jobs: list[JobStatus] = []
        for round_ in ROUNDS:
            for group in plan.groups():
                packs = plan.known_packs(round_, group) or []
                done = {path.stem for path in plan.manifest(packs[0]).parent.glob("*.json")} if packs else set[str]()
                for pack in packs:
                    for member in pack.members:
                        if (name := member.name) not in runs:
                            there = name in present
                            runs[name] = self._run(store, member, now) if there else _planned(member)
                    members = [runs[member.name] for member in pack.members]
                    jobs.append(_job(plan, store, pack, members, self._logs, now, pack.id in done))
        return Status(
            preset=plan.params.preset,
            protocol=plan.params.protocol,
            jobs=tuple(jobs),
            runs=runs,
            failures=tuple(_failures(plan, jobs, self._logs)),
            to_come=at_most(trainings),
            spent_hours=sum(run.seconds for run in runs.values()) / 3600,
            left_hours=_left_hours(plan, trainings, runs),
            report=is_current(plan),
            stale=stale_message(stale_runs(store, plan.all_known_packs())),
        )

    def _run(self, store: RunStore, settings: RunSettings, now: float) -> RunStatus:
        name = settings.name
        # Twice: another process may rename its folder in between.
        for _ in range(2):
            if (recorded := store.finished_at(name)) is not None:
                evaluated = os.path.exists(f"{store.root}/{name}/{EVALUATION}")  # noqa: PTH110 - several times faster
                if (known := self._finished.get(name)) and known[0] == recorded:
                    return known[1] if known[1].evaluated == evaluated else replace(known[1], evaluated=evaluated)
                with suppress(StoreError, KeyError, TypeError):  # damaged, or just removed
                    run = store.unverified(name)
                    found = RunStatus(
                        name,
                        "diverged" if run.diverged else "finished",
                        settings.epochs,
                        epoch=run.result["epochs"],
                        share=1.0,
                        bpd=run.metrics("selection").get("bpd"),
                        images_per_second=run.provenance["images_per_second"],
                        seconds=run.provenance["seconds"],
                        evaluated=evaluated,
                    )
                    self._finished[name] = recorded, found
                    return found
            folder = store.working_folder(name)
            if folder.is_dir():
                found = _unfinished(store, settings, folder, now)
                # A run that ends meanwhile releases its lock after its folder is renamed.
                if found.state == "running" or folder.is_dir():
                    return found
        return _planned(settings)


def _planned(settings: RunSettings) -> RunStatus:
    return RunStatus(settings.name, "planned", settings.epochs)


def _unfinished(store: RunStore, settings: RunSettings, folder: Path, now: float) -> RunStatus:
    progress = _progress(folder / PROGRESS)
    running, curve = store.is_locked(settings.name), _entries(folder / CURVE)
    # A run that waits for its job to come to it has the state of another at its cut-off, and no process yet.
    state: State = "running" if running else "stopped" if (folder / PROGRESS).exists() else "planned"
    return RunStatus(
        settings.name,
        state,
        settings.epochs,
        epoch=curve[-1]["epoch"] if curve else 0,
        share=progress.get("share", 0.0),
        bpd=_newest_bound(curve),
        images_per_second=progress.get("images_per_second") if running else None,
        seconds_left=progress.get("seconds_left") if running else None,
        seconds=progress.get("seconds", 0.0),
        checkpoint_age=_age(folder / CHECKPOINTS[0], now),
        silent_for=_age(folder / PROGRESS, now),
    )


def _progress(path: Path) -> Mapping[str, Any]:
    """Return the content of progress.json; empty if the file is missing or half written."""
    with suppress(StoreError):
        document = read_json(path)
        if isinstance(document, dict):
            return document
    return {}


def _age(path: Path, now: float) -> float | None:
    try:
        return max(0.0, now - path.stat().st_mtime)
    except OSError:
        return None


def _entries(curve: Path) -> list[dict[str, Any]]:
    """Return the last entries of a curve."""
    found = []
    for line in tail(curve):
        with suppress(ValueError):  # the first line may be cut
            found.append(json.loads(line))
    return [entry for entry in found if isinstance(entry, dict)]


def _newest_bound(curve: Sequence[Mapping[str, Any]]) -> float | None:
    for key in ("selection_bpd", "train_bpd"):
        if bounds := [entry[key] for entry in curve if entry.get(key) is not None]:
            return float(bounds[-1])
    return None


def _job(
    plan: Plan, store: RunStore, pack: PackSpec, runs: Sequence[RunStatus], logs: Path, now: float, done: bool
) -> JobStatus:
    path, names = f"{logs}/packs/{pack.round}/{pack.group}/{pack.id}.log", tuple(run.name for run in runs)
    shown = path if os.path.exists(path) else None  # noqa: PTH110 - several times faster
    # The lock first: a job writes its manifest before it releases its lock.
    running = not done and store.is_locked(pack.lock)
    if done or plan.manifest(pack).exists():
        return JobStatus(pack.round, pack.group, pack.id, "done", shown, "", names)
    log = Path(path)
    lines = tail(log)
    error = error_in(lines, "train")
    news = error or next((line.strip() for line in reversed(lines) if line.strip()), "")
    state: JobState
    if running or (not lines and (_age(log, now) or STARTING_SECONDS) < STARTING_SECONDS):
        state = "running"
    elif error:
        state = "failed"
    elif news.startswith("stopped") or any(run.state == "stopped" for run in runs):
        state = "stopped"
    else:
        state = "planned"
    return JobStatus(pack.round, pack.group, pack.id, state, shown, news, names)


def _failures(plan: Plan, jobs: Iterable[JobStatus], logs: Path) -> Iterator[Failure]:
    """Yield the jobs whose last attempt failed; every attempt begins its log anew."""
    for job in jobs:
        if job.state == "failed" and job.log is not None:
            yield Failure(job.title, job.log, job.news)
    others = [(verb, name, name) for name in plan.datasets() for verb in ("download", "prepare", "dequantize")]
    for group in plan.groups():
        with suppress(SelectionMissingError):
            for round_ in plan.rounds(group)[:-1]:
                number = plan.selection_id(round_, group, plan.selections(round_, group))
                others.append(("select", f"{round_} {group}", f"{group}/{round_}-{number}"))
    with suppress(SelectionMissingError):
        name = marker_of(plan, plan.selections("seeds")).stem
        others.append(("gather", name, name))
    for verb, what, file in others:
        log = logs / verb / f"{file}.log"
        if error := error_in(tail(log), verb):
            yield Failure(f"{verb} {what}", str(log), error)


def _left_hours(plan: Plan, trainings: Iterable[Training], runs: Mapping[str, RunStatus]) -> float | None:
    """Return an upper bound of the hours of training left; None if the time of a run is not known.

    The time of an epoch is estimated from epochs of the same cell, else by the measured pace, else from epochs of the
    same group.
    """
    pace = Pace.read(plan.results / PACE, plan.params.sources)
    spent: defaultdict[str, float] = defaultdict(float)
    epochs: defaultdict[str, float] = defaultdict(float)
    for run in runs.values():
        for whole in (run.cell, run.cell.rpartition("/")[0]):
            spent[whole] += run.seconds
            epochs[whole] += run.epoch if run.ended else run.share * run.epochs
    per_epoch = {whole: spent[whole] / epochs[whole] for whole in spent if epochs[whole]}

    def training(run: RunSettings) -> float | None:
        if run.cell in per_epoch:
            return per_epoch[run.cell] * run.epochs
        measured, of_group = pace.training(run), per_epoch.get(run.cell.rpartition("/")[0])
        return measured if measured is not None or of_group is None else of_group * run.epochs

    total = 0.0
    for each in trainings:
        begun = runs.get(each.candidates[0].name) if each.known else None
        if each.repeated or (begun is not None and begun.ended):
            continue
        seconds = longest(each.candidates, training)
        if seconds is None:
            return None
        total += each.count * seconds * (1 - begun.share if begun is not None else 1)
    return total / 3600
