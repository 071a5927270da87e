"""The state of a running workflow, from Snakemake's events."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from silent_study.progress.logs import last_line
from silent_study.words import counted


@dataclass(frozen=True)
class Job:
    """A job that Snakemake has started."""

    rule: str
    wildcards: tuple[str, ...]  # values
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
        """Round and group of a pack, else the rule with its wildcards or, without them, its first output."""
        if self.manifest is None:
            return " ".join([self.rule, *(self.wildcards or map(str, self.outputs[:1]))])
        round_, *group = self.manifest.parts[self.manifest.parts.index("packs") + 1 : -1]
        return f"{round_} {'/'.join(group)}"

    @property
    def newest_line(self) -> str:
        """The last line in the log of a pack's job, else ""."""
        return last_line(self.log) if self.manifest and self.log else ""


def pack_results(manifest: Path) -> str:
    """Describe a finished pack: its runs, the diverged ones, and the best bound on the selection split.

    Raises:
        OSError: The manifest or the result of a member cannot be read.
        ValueError: One of them is not JSON.
        KeyError: One of them lacks a key.
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
    """Running jobs and numbers of jobs; jobs go by Snakemake's numbers."""

    started: float  # start of the workflow, in seconds since the Unix epoch
    done: int = 0
    total: int = 0  # of jobs known to be needed; grows when a checkpoint adds jobs
    running: dict[int, Job] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)  # without those that succeeded when repeated
    stopped: set[int] = field(default_factory=set)  # the failed ones that stopped at a checkpoint and can continue

    def finish(self, number: int) -> Job | None:
        """Record the success of a job and return it; None if its start was not recorded."""
        self.failed.discard(number)
        self.stopped.discard(number)
        return self.running.pop(number, None)

    def fail(self, number: int) -> Job | None:
        """Record the failure of a job and return it; None if its start was not recorded."""
        self.failed.add(number)
        return self.running.pop(number, None)
