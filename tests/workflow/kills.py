"""Kills a small study again and again, at every place that it has, and compares what comes of it in the end.

    python -m tests.workflow.kills --kills 100

A study is started by the command that a user types, killed with SIGKILL, started again by the same command, after the
line that clears Snakemake's lock where the message names it, killed again, and so on; at last it is let go to its end.
Its numbers must then be those of a study that nobody disturbed, bit for bit.

Where a kill is to hit is drawn by lot, and so is the moment, and whether the process dies alone, as where memory runs
out, or everything with it, as in a power cut. A process is halted before it is killed, so that what it was doing is
looked up and not guessed.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil  # type: ignore[import-untyped]
from tests.workflow.repository import LITERAL, TINY, Repository, section, wait_until

from silent_study.store.packs import PackSpec
from silent_study.store.runs import RunStore
from silent_study.training import checkpoint

REPRO = ("dvc", "repro")
KILLS_PER_STUDY = 8
HALF_WRITTEN = (
    r"(?:Unable to read RWLock-file )?'(\S*rwlock|\S*dvc\.lock)'(?:\. JSON structure is corrupted| validation failed)"
)
"""What DVC says of the two files that it does not write beside and rename."""
PATIENCE = 600.0
"""Seconds after which something that was to come about did not."""

SMALL = {
    "seeds": [0, 1],
    "execution": {"workers": 1, "stack": 2, "checkpoint_seconds": 0.001},
    # Long enough to be hit.
    "evaluation": TINY["evaluation"] | {"samples": 100, "variance_draws": 100},
    "experiments": {
        "fixed": {"digits": section(["reparameterization"], grid={"learning_rate": [0.001, 0.003]}, epochs=12)}
    },
}
"""A grid of two runs in one stack, a selection, a second seed, two evaluations, a report."""


def _writes_a_checkpoint(repository: Repository, _trainer: Any) -> bool:
    return any(
        next(folder.glob(f".{checkpoint.CURRENT}.*.tmp"), None) is not None
        or ((folder / checkpoint.PREVIOUS).exists() and not (folder / checkpoint.CURRENT).exists())
        for folder in repository.results.glob("store/*/*/*/*.partial")
    )


def _trains(repository: Repository, trainer: Any) -> bool:
    begun = next(repository.results.glob("store/*/*/*/*.partial/curve.jsonl"), None) is not None
    return begun and not _writes_a_checkpoint(repository, trainer)


def _evaluates(repository: Repository, trainer: Any) -> bool:
    words = trainer.cmdline()
    pack = PackSpec.from_json(json.loads(words[words.index("--pack") + 1]))
    store = RunStore(repository.results / "store")
    return pack.evaluation is not None and all(store.is_finished(run.name) for run in pack.members)


@dataclass(frozen=True)
class Place:
    """Something that can be killed.

    Attributes:
        command: What is typed.
        victim: The process that dies.
        within: The moment is drawn from so many seconds after the place was first reached.
        reached: Whether the process, which is halted, is at the place.
    """

    command: tuple[str, ...]
    victim: tuple[str, ...]
    within: float
    reached: Callable[[Repository, Any], bool] = lambda _repository, _process: True


# In the order in which a study comes to them, as far as there is one.
PLACES = {
    "training": Place(LITERAL, ("silent-gradients", "train"), 1.5, _trains),
    "checkpoint write": Place(LITERAL, ("silent-gradients", "train"), 1, _writes_a_checkpoint),
    "select": Place(LITERAL, ("silent-gradients", "select"), 3),
    "evaluation": Place(LITERAL, ("silent-gradients", "train"), 0.05, _evaluates),
    "gather": Place(LITERAL, ("silent-gradients", "gather"), 8),
    "snakemake": Place(LITERAL, ("snakemake",), 15),
    "dvc": Place(REPRO, ("dvc",), 20),
}


class NotGoneOn(Exception):
    """A study that the same command did not bring to its end."""


@dataclass
class Account:
    """What became of the studies.

    Attributes:
        hits: Kills by place and by which processes died.
        studies: Number of studies.
        unlocks: How often Snakemake's lock had to be cleared, by the line that the message names.
        halves: How often half a file of DVC's (``.dvc/tmp/rwlock``, ``dvc.lock``) had to be removed.
        failures: The output of each study that did not go on, or that has other numbers.
    """

    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    studies: int = 0
    unlocks: int = 0
    halves: int = 0
    failures: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return kills by place, as Markdown."""
        lines = ["| killed in | alone | with everything |", "| --- | --- | --- |"]
        lines += [f"| {name} | {self.hits[name, 'alone']} | {self.hits[name, 'with everything']} |" for name in PLACES]
        return "\n".join(lines)


@dataclass(frozen=True)
class Study:
    """A repository that is killed again and again; everything that happens to it is counted in ``account``."""

    repository: Repository
    chance: random.Random
    account: Account

    def kill(self, name: str) -> bool:
        """Start the study and kill it at a place; returns False where it came to its end before."""
        place = PLACES[name]
        process = self._start(place.command)
        victim = self._halted(place, process)
        if victim is None and process.wait() != 0:
            process = self._start_once_more(place.command)
            victim = self._halted(place, process)
        if victim is None:
            self._expect_success(process)
            return False
        if self.chance.random() < 0.5:
            self.account.hits[name, "alone"] += 1
            victim.kill()
            # Snakemake names the failed job and ends. A job whose Snakemake died goes on, and so does a Snakemake whose
            # DVC died; the next start meets them.
            process.wait(PATIENCE)
        else:
            self.account.hits[name, "with everything"] += 1
            while left := self.repository.processes():
                for each in left:
                    with suppress(psutil.NoSuchProcess):  # what it waited for was killed before
                        each.kill()
            process.wait(PATIENCE)
        return True

    def finish(self, command: tuple[str, ...]) -> None:
        """Let the study go to its end."""
        process = self._start(command)
        if process.wait(PATIENCE) != 0:
            process = self._start_once_more(command)
        self._expect_success(process)
        wait_until(lambda: not self.repository.processes())

    def _start(self, command: tuple[str, ...]) -> "Popen[str]":
        self._output.unlink(missing_ok=True)  # a Snakemake whose DVC died may still write into it
        with self._output.open("w") as output:
            return self.repository.start(*command, output=output)

    def _start_once_more(self, command: tuple[str, ...]) -> "Popen[str]":
        """After what the message says, and docs/reliability.md of it, where a lock was left."""
        said = self._output.read_text()
        if lines := re.findall(r"If none is running, this clears the lock: (snakemake --unlock)", said):
            wait_until(lambda: self.repository.process_of("snakemake") is None)
            self.repository.run(*lines[0].split())
            self.account.unlocks += 1
        elif files := re.findall(HALF_WRITTEN, said):
            (self.repository.root / files[0]).unlink()
            self.account.halves += 1
        else:
            raise NotGoneOn(said)
        return self._start(command)

    def _expect_success(self, process: "Popen[str]") -> None:
        if process.wait(PATIENCE) != 0:
            raise NotGoneOn(self._output.read_text())

    @property
    def _output(self) -> Path:
        return Path(f"{self.repository.root}.output")

    def _halted(self, place: Place, process: "Popen[str]") -> Any:
        """The victim, halted at a random moment of the place; None where the program ends before."""
        moment = None
        while process.poll() is None:
            victim = self.repository.process_of(*place.victim)
            while victim is not None:
                try:
                    if _is_halted(victim) and place.reached(self.repository, victim):
                        if moment is None:
                            moment = time.monotonic() + self.chance.uniform(0, place.within)
                        if time.monotonic() >= moment:
                            return victim
                    victim.resume()
                except (psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):  # it has just ended
                    break
                time.sleep(self.chance.uniform(0, 0.01))
            time.sleep(0.02)
        return None


def _is_halted(process: Any) -> bool:
    """Halt a process; False where it has ended."""
    process.suspend()
    while (status := process.status()) != psutil.STATUS_STOPPED:
        if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            raise psutil.NoSuchProcess(process.pid)
    return True


def kill_studies(folder: Path, kills: int, seed: int, report: Callable[[str], None] = lambda _text: None) -> Account:
    """Kill studies ``kills`` times in all, each place as often as the others, and compare their numbers in the end.

    Args:
        folder: Where repositories are made.
        kills: Number of kills.
        seed: Of the places, the moments and the victims.
        report: Called with a line on every study.
    """
    chance, account = random.Random(seed), Account()
    undisturbed = Repository.make(folder / "undisturbed", small=SMALL)
    undisturbed.run("snakemake", "--cores", "1", "--", "data")
    prepared = undisturbed.copy(folder / "prepared")
    undisturbed.run(*LITERAL)
    expected, order = undisturbed.numbers(), list(PLACES)
    names = [order[number % len(order)] for number in range(kills)]
    chance.shuffle(names)
    while names:
        root = folder / f"study-{account.studies}"
        study = Study(prepared.copy(root), chance, account)
        account.studies += 1
        try:
            for name in _in_order(names[:KILLS_PER_STUDY], chance):
                names.remove(name)
                if not study.kill(name):
                    names.append(name)  # for another study: this one has come to its end
                    break
            study.finish(chance.choice((LITERAL, REPRO)))
            outcome = "" if study.repository.numbers() == expected else "other numbers"
        except NotGoneOn as error:
            outcome = f"did not go on: {error}"
        report(f"{account.hits.total()} of {kills} kills: {root.name}: {outcome or 'the same numbers'}")
        if outcome:
            account.failures.append(f"{root}: {outcome}")
    return account


def _in_order(names: Iterable[str], chance: random.Random) -> list[str]:
    """Places in the order in which one study can be killed at all of them; Snakemake and DVC are always there."""
    order = list(PLACES)
    anywhere = {"snakemake", "dvc"}
    last = len(order) - len(anywhere)
    return sorted(names, key=lambda name: chance.uniform(0, last) if name in anywhere else order.index(name))


def main() -> int:
    """Run the command; return 1 if a study did not go on or has other numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="number of kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of places, moments and victims (default: %(default)s)")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        account = kill_studies(Path(folder), options.kills, options.seed, print)
    print(account.table())
    print(
        f"{account.hits.total()} kills in {account.studies} studies, {len(account.failures)} of them failed; "
        f"Snakemake's lock was cleared {account.unlocks} times, half a file of DVC's removed {account.halves} "
        f"times; {(time.monotonic() - started) / 60:.1f} minutes"
    )
    for failure in account.failures:
        print(failure, file=sys.stderr)
    return 1 if account.failures else 0


if __name__ == "__main__":
    sys.exit(main())
