"""Remove runs that no kept revision needs.

A revision needs the runs that its settings lead to with the present code. The working tree also needs
the runs of the report on disk. If the runs that a revision needs are not known, nothing is removed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from silent_study.params import load
from silent_study.plan.plan import Plan, SelectionMissingError
from silent_study.settings import SettingsError
from silent_study.store.manifests import naming_runs
from silent_study.store.provenance import git
from silent_study.store.runs import RunStore, StoreError, read_json
from silent_study.words import counted

PARAMS, PRESETS, LOCK = "params.yaml", "presets", "dvc.lock"
REPAIR = "snakemake --cores all --resources gpu=8 all"


@dataclass(frozen=True)
class Revision:
    """A state of the repository whose runs are kept."""

    name: str  # the working tree, or the names of a commit
    runs: frozenset[str]  # names
    note: str = ""  # for the user


def kept_revisions(results: Path, keep: Sequence[str] = ()) -> list[Revision]:
    """Return the working tree, HEAD and the revisions ``keep`` (in git's words), each with the runs that it needs."""
    present = RunStore(results / "store").names()
    revisions = [_working_tree(results, present)]
    if not in_git():
        if keep:
            raise StoreError(f"--keep {keep[0]}: there is no git checkout here, and thus no revision; leave it out")
        return revisions
    _git("rev-parse", "--git-dir")
    names_of: dict[str, list[str]] = {}
    for name in ("HEAD", *keep):
        # Nothing where there is no such revision.
        commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if commit:
            names_of.setdefault(commit.strip(), []).append(name)
        elif name in keep:  # before the first commit there is no HEAD
            raise StoreError(f"--keep {name}: git has no such revision; it lists those: git log --all --oneline")
    return revisions + [_committed(", ".join(names), commit, results, present) for commit, names in names_of.items()]


def in_git() -> bool:
    """Return True if this folder is in a git checkout, even one that git cannot read."""
    here = Path.cwd()
    return any((folder / ".git").exists() for folder in (here, *here.parents))


def _working_tree(results: Path, present: Collection[str]) -> Revision:
    gathered: set[str] = set()
    for marker in results.glob("gathered/*.json"):
        try:
            gathered.update(read_json(marker)["runs"])
        except (StoreError, KeyError, TypeError) as error:
            unknown = f"{marker}: cannot be read, so the runs of the report are not known"
            raise StoreError(f"{unknown}; gather again: {REPAIR}") from error
    planned, note = _planned("working tree", Plan(load(Path(PARAMS)), results), present)
    if not note and (others := len(gathered - planned)):
        note = f"{others} are of its report alone, which has other settings"
    return Revision("working tree", frozenset(gathered | planned), note)


def _committed(name: str, commit: str, results: Path, present: Collection[str]) -> Revision:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for file in _git("ls-tree", "-r", "-z", "--name-only", commit, "--", PARAMS, PRESETS).split("\0")[:-1]:
            (folder / file).parent.mkdir(exist_ok=True, parents=True)
            (folder / file).write_text(_git("show", f"{commit}:./{file}"))
        if not (folder / PARAMS).exists():
            return Revision(name, frozenset(), f"it has no {PARAMS}")
        try:
            plan = Plan(load(folder / PARAMS), results)
        except SettingsError as error:
            reason = str(error).replace(f"{folder}/", "").partition("\n")[0]
            raise StoreError(f"{name}: the present code cannot read its settings ({reason})") from error
    planned, note = _planned(name, plan, present)
    return Revision(name, frozenset(planned), note)


def _planned(name: str, plan: Plan, present: Collection[str]) -> tuple[set[str], str]:
    """Return the runs of a plan, as far as its selections are made, and a note on those to come.

    Raises ``StoreError`` if a selection is missing, and runs that it may lead to are in the store.
    """
    planned: set[str] = set()
    to_come = []
    for group in plan.groups():
        rounds = plan.rounds(group)
        for number, round_ in enumerate(rounds):
            try:
                packs = plan.packs(round_, plan.selections(round_, group), group)
            except SelectionMissingError as error:
                possible = plan.all_possible(rounds[number:], plan.cells_of("seeds", group))
                if at_risk := (possible.keys() - planned).intersection(present):
                    raise StoreError(
                        f"{name}: a selection of {group} is missing, and which of its {counted(len(at_risk), 'run')} "
                        f"in the store the {round_} round needs depends on it; at this revision: {error}"
                    ) from error
                to_come.append(f"{round_} round of {group}")
                break
            planned |= {run.name for pack in packs for run in pack.members}
    return planned, f"nothing is selected yet for its {', '.join(to_come)}" if to_come else ""


def _git(*arguments: str) -> str:
    printed = git(*arguments)
    if printed is None:
        raise StoreError(f"git cannot read this checkout, so that HEAD is not known; try: git {' '.join(arguments)}")
    return printed


@dataclass(frozen=True)
class Pruning:
    """The runs in the store that are removed and the runs that are kept, finished or not."""

    results: Path
    revisions: tuple[Revision, ...]
    kept: Mapping[str, int]  # bytes by name of the runs that a kept revision needs
    runs: Mapping[str, int]  # bytes by name of the runs that none needs
    stale: tuple[Path, ...]  # manifests of packs, and selections, that name a run which no kept revision needs

    @classmethod
    def of(cls, results: Path, keep: Sequence[str] = ()) -> Pruning:
        """Compare the results with what the kept revisions need; raises ``StoreError`` where that is not known."""
        revisions = tuple(kept_revisions(results, keep))
        needed = {run for revision in revisions for run in revision.runs}
        store = RunStore(results / "store")
        sizes = {name: store.size(name) for name in store.names()}
        return cls(
            results,
            revisions,
            {name: size for name, size in sizes.items() if name in needed},
            {name: size for name, size in sizes.items() if name not in needed},
            tuple(path for path, named in naming_runs(results) if not needed.issuperset(named)),
        )

    def overview(self) -> str:
        """Return, line by line, what is kept for which revision and what is removed of which cell."""
        lines = [f"kept: {_runs(self.kept)}"]
        if not in_git():
            lines.append("  no git checkout here: only the working tree counts")
        for revision in self.revisions:
            count = counted(len(revision.runs & self.kept.keys()), "run")
            lines.append(f"  {revision.name}: {count}" + (f"; {revision.note}" if revision.note else ""))
        lines.append(f"needed by none: {_runs(self.runs)}; {len(self.stale)} manifests and selections of them")
        store, cells = RunStore(self.results / "store"), dict[str, dict[str, int]]()
        for name, size in sorted(self.runs.items()):
            cells.setdefault(name.rpartition("/")[0], {})[name] = size
        for cell, runs in cells.items():
            unfinished = sum(not store.is_finished(name) for name in runs)
            lines.append(f"  {cell}: {_runs(runs)}" + (f", {unfinished} of them unfinished" if unfinished else ""))
        return "\n".join(lines)

    def delete(self) -> str:
        """Remove what no kept revision needs; return a summary.

        Manifests and selections go first: after a kill, none names a removed run, and the same command continues.
        """
        store = RunStore(self.results / "store")
        store.remove_leftovers()
        for path in self.stale:
            path.unlink(missing_ok=True)
            _remove_empty(path.parent, self.results / path.relative_to(self.results).parts[0])
        removed, lines = {}, []
        for name, size in self.runs.items():
            if store.remove(name):
                removed[name] = size
            else:
                lines.append(f"{name}: left alone, another process is training it; stop that process and prune again")
            _remove_empty(store.folder(name).parent, store.root)
        return "\n".join([*lines, f"removed: {_runs(removed)}"])


def lines_for_dvc(keep: Sequence[str] = ()) -> str:
    """Return the commands that take removed runs out of DVC's cache; "" where DVC has recorded nothing.

    The kept revisions ``keep`` may have no branch or tag.
    """
    if not Path(LOCK).exists():
        return ""
    # `dvc repro` and not `dvc commit`, which would record an unfinished working tree as a finished one.
    return "\n".join(
        (
            "DVC's cache still has what it recorded of them. To record what is left and to free the cache:",
            "  dvc repro",
            f"  git commit --message 'Prune the run store' {LOCK}",
            *(f"  git tag <name> {revision}  # dvc gc keeps what has a name" for revision in keep),
            "  dvc gc --workspace --all-branches --all-tags --all-experiments",
        )
    )


def _runs(sizes: Mapping[str, int]) -> str:
    return f"{counted(len(sizes), 'run')}, {decimal(sum(sizes.values()))}"


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder if it is empty, and then those above it, below ``top``, which DVC expects."""
    with suppress(OSError):  # not empty
        while folder != top:
            folder.rmdir()
            folder = folder.parent
