"""The state of a running workflow, from Snakemake's events."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from silent_study.progress.logs import last_line, seconds_waited, trained_in
from silent_study.words import counted


@dataclass(frozen=True)
class Job:
    """A job that Snakemake has started."""

    rule: str
    wildcards: tuple[str, ...]  # values, without ids
    outputs: tuple[Path, ...]
    started: float  # in seconds since the Unix epoch
    log: Path | None = None

    @property
    def manifest(self) -> Path | None:
        """The manifest that the job writes, ``<results>/packs/<round>/<group>/<pack id>.json``; None without a pack."""
        if self.rule != "train_pack":
            return None
        return next((path for path in self.outputs if "packs" in path.parts[:-1]), None)

    @property
    def name(self) -> str:
        """Round and group of a pack, else the rule with its wildcards."""
        if self.manifest is None:
            return " ".join([self.rule, *self.wildcards])
        round_, *group = self.manifest.parts[self.manifest.parts.index("packs") + 1 : -1]
        return f"{round_} {'/'.join(group)}"

    def seconds(self, now: float) -> float:
        """Return the seconds of work since the start, without a pack's wait for a device."""
        waited = seconds_waited(self.log) if self.manifest and self.log else 0.0
        return 0.0 if waited is None else max(0.0, now - self.started - waited)

    @property
    def newest_line(self) -> str:
        """The last line in the log of a pack's job, else ""."""
        return last_line(self.log) if self.manifest and self.log else ""


def pack_results(manifest: Path) -> str:
    """Describe a finished pack: its runs, the diverged ones, and the best bound on the selection split.

    An ``OSError``, ``ValueError`` or ``KeyError`` has what is wrong with its manifest or a result.
    """
    members = json.loads(manifest.read_text())["members"]
    store = Path(*manifest.parts[: manifest.parts.index("packs")]) / "store"
    results = [json.loads((store / member["name"] / "result.json").read_text()) for member in members]
    parts = [counted(len(results), "run")]
    if diverged := sum(result["status"] == "diverged" for result in results):
        parts.append(f"{diverged} diverged")
    bounds = [result["selection"]["bpd"] for result in results if result["status"] != "diverged"]
    return ", ".join([*parts, *([f"best {min(bounds):.3f} bits/dim"] if bounds else [])])


@dataclass
class Progress:
    """Running jobs, number of finished jobs, and an estimate of the time left; jobs go by Snakemake's numbers."""

    started: float  # start of the workflow, in seconds since the Unix epoch
    done: int = 0
    total: int = 0  # of jobs known to be needed; grows when a checkpoint adds jobs
    running: dict[int, Job] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)  # without those that succeeded when repeated
    stopped: set[int] = field(default_factory=set)  # the failed ones that stopped at a checkpoint and can continue
    planned: Counter[str] = field(default_factory=Counter)  # jobs by rule
    runs: int = 0  # to be trained in all, at most; 0 if that is unknown
    trained: set[str] = field(default_factory=set)  # names of runs
    # Bytes of logs in which trained runs have been counted: a long training writes megabytes.
    _counted: dict[Path, int] = field(default_factory=dict)
    # One thread appends while another reads, which a list allows.
    _finished: list[tuple[str, float]] = field(default_factory=list)

    def finish(self, number: int, now: float) -> Job | None:
        """Record the success of a job and return it; None if its start was not recorded."""
        self.failed.discard(number)
        self.stopped.discard(number)
        job = self._ended(number)
        if job is not None:
            self._finished.append((job.rule, job.seconds(now)))
        return job

    def _ended(self, number: int) -> Job | None:
        job = self.running.pop(number, None)
        if job is not None:
            self._count(job)
        return job

    def _count(self, job: Job) -> None:
        if job.manifest and job.log:
            names, self._counted[job.log] = trained_in(job.log, self._counted.get(job.log, 0))
            self.trained |= names

    def runs_done(self) -> int:
        """Return how many runs are trained; those that running jobs have finished count."""
        for job in list(self.running.values()):
            self._count(job)
        return min(self.runs, len(self.trained))

    def fail(self, number: int) -> Job | None:
        """Record the failure of a job and return it; None if its start was not recorded."""
        self.failed.add(number)
        return self._ended(number)

    def seconds_left(self, now: float) -> float | None:
        """Estimate the time left in seconds; None until each running rule has a finished job.

        A planned job is expected to take the mean time of its rule or, if none has finished, of all jobs, with as many
        jobs at once as so far.
        """
        under_way = [(job.rule, job.seconds(now)) for job in list(self.running.values())]
        finished = Counter(rule for rule, _ in self._finished)
        if not finished or now <= self.started or any(rule not in finished for rule, _ in under_way):
            return None
        spent = sum(seconds for _, seconds in [*self._finished, *under_way])
        work = sum((planned - finished[rule]) * self._expected(rule) for rule, planned in self.planned.items())
        work += max(0, self.total - self.planned.total()) * self._expected(None)
        work -= sum(min(seconds, self._expected(rule)) for rule, seconds in under_way)
        jobs_at_once = max(1.0, spent / (now - self.started))
        return max(0.0, work) / jobs_at_once

    def _expected(self, rule: str | None) -> float:
        """Return the mean seconds of the finished jobs of a rule, or of all finished jobs."""
        seconds = [s for of_rule, s in self._finished if of_rule == rule] or [s for _, s in self._finished]
        return sum(seconds) / len(seconds)
