"""Runs that other source code made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from silent_study.store.code import evaluation_code, training_code
from silent_study.store.documents import Code
from silent_study.store.evaluations import read_evaluation, remove_evaluation
from silent_study.store.manifests import naming_runs
from silent_study.store.packs import PackSpec
from silent_study.store.runs import CODE, RECORD, RunStore, StoredRun, StoreError, read_unchanged
from silent_study.words import counted

SHOWN_FILES = 5
"""Most changed files that a message names."""

UNRECORDED: Code = {"digest": "unrecorded", "files": {}}
"""The code of what does not name its code."""


@dataclass(frozen=True)
class Stale:
    """A run, finished or not, that other source code trained, or evaluated, than would do it now."""

    run: str
    part: Literal["trained", "evaluated"]
    found: Code
    present: Code

    @property
    def changed(self) -> set[str]:
        """The files that differ."""
        return {file for file, _ in self.found["files"].items() ^ self.present["files"].items()}


def stale_runs(store: RunStore, packs: Sequence[PackSpec]) -> list[Stale]:
    """Compare the code of the members of packs that are in a store with the present code."""
    stale, equal = list[Stale](), dict[str, set[str]]()
    stored = set(store.names())  # listed at once, since most runs of a plan may be to come
    members = {run.name: run for pack in packs for run in pack.members if run.name in stored}
    evaluated = {run.name for pack in packs if pack.evaluation is not None for run in pack.members}
    for name, run in members.items():
        found: list[tuple[Literal["trained", "evaluated"], Code, Code]] = []
        if (code := _code_of(store, name)) is not None:
            found.append(("trained", code, training_code(run.estimator)))
        if name in evaluated and (evaluation := read_evaluation(store.folder(name))) is not None:
            found.append(("evaluated", evaluation["code"], evaluation_code(run.estimator)))
        for part, code, present in found:
            digest = present["digest"]
            if digest not in equal:
                equal[digest] = store.equal_codes(digest)
            if code["digest"] not in equal[digest]:
                stale.append(Stale(name, part, code, present))
    return stale


def _code_of(store: RunStore, name: str) -> Code | None:
    """Return the code of a run; None if the store has nothing of it, or if its verification will find it damaged."""
    try:
        return store.code_of(name)
    except StoreError:
        if not store.is_finished(name):
            return UNRECORDED
        try:
            return None if CODE in read_unchanged(f"{store.folder(name)}/{RECORD}")["files"] else UNRECORDED
        except (StoreError, KeyError, TypeError):  # the record is damaged as well
            return None


def is_trained_now(store: RunStore, run: StoredRun) -> bool:
    """Return True if the present code, or one that a store accepts as equal, trained a run, of whichever store."""
    code = run.code if (run.folder / CODE).exists() else UNRECORDED
    return code["digest"] in store.equal_codes(training_code(run.settings["estimator"])["digest"])


def is_evaluated_now(store: RunStore, run: StoredRun) -> bool:
    """Return True if such code evaluated a run, or if it has no evaluation."""
    evaluation = read_evaluation(run.folder)
    equal = store.equal_codes(evaluation_code(run.settings["estimator"])["digest"])
    return evaluation is None or evaluation["code"]["digest"] in equal


def stale_message(stale: Sequence[Stale]) -> str:
    """Return what is stale, the files that changed and the two ways on; "" if nothing is."""
    if not stale:
        return ""
    # Whatever trained a run otherwise also evaluated it otherwise.
    parts = Counter({each.run: each.part for each in sorted(stale, key=lambda each: each.part)}.values())
    what = " and ".join(f"{counted(runs, 'run')} {part}" for part, runs in sorted(parts.items(), reverse=True))
    files = sorted(set().union(*(each.changed for each in stale if each.found is not UNRECORDED)))
    more = [f"{len(files) - SHOWN_FILES} more"] if len(files) > SHOWN_FILES else []
    where = ", ".join(files[:SHOWN_FILES] + more) or "which these runs do not name"
    return (
        f"{what} by other source code than the present one ({where})\n"
        "to train them again, first: silent-gradients retrain\n"
        'to keep them, if the change does not change numbers: silent-gradients accept --reason "..."'
    )


def check_code(store: RunStore, packs: Sequence[PackSpec]) -> None:
    """Raise ``StoreError`` if other source code than the present one trained or evaluated a member of the packs."""
    if stale := stale_runs(store, packs):
        raise StoreError(stale_message(stale))


def accept(store: RunStore, stale: Iterable[Stale], reason: str) -> None:
    """Record that the codes of stale runs compute the same numbers as the present ones."""
    store.remove_leftovers()
    for codes in sorted({(each.found["digest"], each.present["digest"]) for each in stale}):
        store.accept(codes, reason)


def remove(results: Path, stale: Sequence[Stale]) -> list[str]:
    """Remove stale trainings and evaluations, so that the workflow makes them again; return the runs in training.

    Manifests of packs and selections that name the runs go first: after a kill, the same call continues.
    """
    store, runs = RunStore(results / "store"), {each.run for each in stale}
    store.remove_leftovers()
    for path, named in list(naming_runs(results)):
        if not runs.isdisjoint(named):
            path.unlink(missing_ok=True)
    trained = {each.run for each in stale if each.part == "trained"}
    for run in runs - trained:
        remove_evaluation(store.folder(run))
    return sorted(run for run in trained if not store.remove(run))
