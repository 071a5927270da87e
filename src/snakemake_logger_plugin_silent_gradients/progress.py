"""The state of a workflow that is running, as told by Snakemake's events."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from . import packs


@dataclass(frozen=True)
class Job:
    """A job that Snakemake has started.

    Attributes:
        rule: Name of its rule.
        wildcards: The values of the rule's wildcards.
        outputs: The files it makes.
        started: When it began, in seconds since the epoch of Unix.
        log: Where it logs.
    """

    rule: str
    wildcards: tuple[str, ...]
    outputs: tuple[Path, ...]
    started: float
    log: Path | None = None

    @property
    def manifest(self) -> Path | None:
        """The manifest that the job makes; None if it trains no pack."""
        if self.rule != packs.RULE:
            return None
        return next((path for path in self.outputs if "packs" in path.parts[:-1]), None)

    @property
    def name(self) -> str:
        """Round and cell of a pack, else the rule with its wildcards or, without them, its first output."""
        if self.manifest is not None:
            return packs.title(self.manifest)
        return " ".join([self.rule, *(self.wildcards or map(str, self.outputs[:1]))])


@dataclass
class Progress:
    """Which jobs are running, how many are done, and how long the others may take.

    Attributes:
        started: When the workflow began, in seconds since the epoch of Unix.
        done: Jobs that have finished.
        total: Jobs that are known to be needed; grows when a checkpoint has shown what else is to be done.
        running: The jobs now running, by Snakemake's number.
        failed: The numbers of the jobs that failed and were not repeated with success.
        stopped: Those of them that were asked to stop and go on from where they are.
    """

    started: float
    done: int = 0
    total: int = 0
    running: dict[int, Job] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)
    _planned: Counter[str] = field(default_factory=Counter)
    # One thread appends while another reads, which a list allows.
    _finished: list[tuple[str, float]] = field(default_factory=list)

    def plan(self, jobs_of_rules: dict[str, int]) -> None:
        """Learn how many jobs of each rule there will be."""
        self._planned = Counter(jobs_of_rules)
        self.total = self._planned.total()

    def start(self, number: int, job: Job) -> None:
        """A job begins, perhaps once more."""
        self.running[number] = job

    def finish(self, number: int, now: float) -> Job | None:
        """A job ends well; None if its beginning was not told."""
        self.failed.discard(number)
        self.stopped.discard(number)
        job = self.running.pop(number, None)
        if job is not None:
            self._finished.append((job.rule, now - job.started))
        return job

    def fail(self, number: int) -> Job | None:
        """A job ends badly; None if its beginning was not told."""
        self.failed.add(number)
        return self.running.pop(number, None)

    def seconds_left(self, now: float) -> float | None:
        """A rough guess at the time left, in seconds; None before each of the running rules has a finished job.

        Each job to come is taken to last as long as the mean of its rule, or, where there is none yet, as the mean of
        all jobs; and as many jobs at once are taken to run as did until now.
        """
        under_way = [(job.rule, now - job.started) for job in list(self.running.values())]
        finished = Counter(rule for rule, _ in self._finished)
        if not finished or now <= self.started or any(rule not in finished for rule, _ in under_way):
            return None
        spent = sum(seconds for _, seconds in [*self._finished, *under_way])
        work = sum((planned - finished[rule]) * self._expected(rule) for rule, planned in self._planned.items())
        work += max(0, self.total - self._planned.total()) * self._expected(None)
        work -= sum(min(seconds, self._expected(rule)) for rule, seconds in under_way)
        jobs_at_once = max(1.0, spent / (now - self.started))
        return max(0.0, work) / jobs_at_once

    def _expected(self, rule: str | None) -> float:
        """Mean seconds of the finished jobs of a rule, or of all finished jobs."""
        seconds = [s for of_rule, s in self._finished if of_rule == rule] or [s for _, s in self._finished]
        return sum(seconds) / len(seconds)
