"""Removing from the results the runs that no kept revision asks for.

A revision asks for the runs that its report was made of, as DVC recorded it, and for those that its settings come to
with the present code. Where that cannot be told, nothing is removed.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from silent_study.params import load
from silent_study.params.overlay import read_yaml
from silent_study.plan.plan import Plan, SelectionMissingError
from silent_study.settings import SettingsError
from silent_study.store.manifests import read_manifest
from silent_study.store.runs import RunStore, StoreError, read_json
from silent_study.words import counted

PARAMS, PRESETS, LOCK = "params.yaml", "presets", "dvc.lock"
GATHERED = "gathered"
KEPT_REFS = ("refs/heads", "refs/tags", "refs/exps/??/**")
"""Branches, tags and the experiments of DVC, whose refs hold the first digits of a commit; others are its own notes."""


class RevisionError(StoreError):
    """What a revision asks for cannot be told: the message names the revision and the way out."""


@dataclass(frozen=True)
class Revision:
    """A state of the repository whose runs are kept.

    Attributes:
        names: What it is called; several branches and tags may be at one commit.
        commit: Its commit; None is the working tree.
    """

    names: tuple[str, ...]
    commit: str | None

    def __str__(self) -> str:
        return ", ".join(self.names)


WORKING_TREE = Revision(("working tree",), None)


def in_git() -> bool:
    """Whether this is a git checkout, be it one that git cannot read."""
    here = Path.cwd()
    return any((folder / ".git").exists() for folder in (here, *here.parents))


def kept_revisions(keep: Sequence[str] = ()) -> list[Revision]:
    """The working tree, HEAD, and every commit that a branch, a tag, an experiment of DVC or ``keep`` names.

    Args:
        keep: Further revisions, as git understands them.

    Raises:
        RevisionError: Git cannot read its checkout, or does not know one of ``keep``.
    """
    if not in_git():
        if keep:
            raise RevisionError(f"--keep {keep[0]}: there is no git checkout here to have revisions; leave it out")
        return [WORKING_TREE]
    commits: dict[str, list[str]] = {}
    for ref in ("HEAD", *_git("for-each-ref", "--format=%(refname)", *KEPT_REFS).splitlines()):
        # HEAD is at no commit before the first one, and a tag may be at something else.
        if commit := _commit(ref):
            commits.setdefault(commit, []).append(_short(ref))
    for name in keep:
        if not (commit := _commit(name)):
            raise RevisionError(
                f"--keep {name}: git knows no such revision; `git log --all --oneline` lists those it has"
            )
        commits.setdefault(commit, []).append(name)
    return [WORKING_TREE, *(Revision(tuple(dict.fromkeys(names)), commit) for commit, names in commits.items())]


def _short(ref: str) -> str:
    """``main`` for ``refs/heads/main``, ``experiment x`` for ``refs/exps/01/23.../x``."""
    if ref.startswith("refs/exps/"):
        return f"experiment {ref.rpartition('/')[2]}"
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


@dataclass(frozen=True)
class Asked:
    """What a revision asks for.

    Attributes:
        revision: The revision.
        runs: Names of the runs.
        note: What cannot be told of it, though it need not stop anybody.
    """

    revision: Revision
    runs: frozenset[str]
    note: str = ""


def asked_for(revision: Revision, results: Path) -> Asked:
    """The runs that a revision's report was made of, and those that its settings come to.

    Args:
        revision: The revision.
        results: Folder of the results, whose selections say what the later rounds are.

    Raises:
        RevisionError: DVC recorded the revision's report and does not have it any more; or it recorded none, and the
            present code cannot read the settings.
        SettingsError: The working tree's settings cannot be.
    """
    if revision.commit is None:
        markers = [read_json(path) for path in results.joinpath(GATHERED).glob("*.json")]
        return _asked(revision, _gathered_runs(markers), Plan(load(Path(PARAMS)), results))
    with _files_of(revision.commit) as folder:
        try:
            recorded = _gathered_runs(_recorded_markers(revision.commit, folder / LOCK, results / GATHERED))
        except Exception as error:  # DVC's, or that of whatever its remote is reached by
            raise RevisionError(
                f"{revision}: DVC cannot read which runs its report was made of ({_line(error, folder)}); run "
                f"`dvc fetch --all-branches --all-tags {results / GATHERED}`, or delete its branch, tag or experiment"
            ) from error
        if not (folder / PARAMS).exists():
            return Asked(revision, recorded, f"it has no {PARAMS}")
        try:
            plan = Plan(load(folder / PARAMS), results)
        except SettingsError as error:
            if recorded:
                return Asked(revision, recorded, f"those of its report alone; {_line(error, folder)}")
            raise RevisionError(
                f"{revision}: the present code does not read its settings ({_line(error, folder)}), and DVC has no "
                "record of its runs; run `dvc repro` at it and commit, or delete its branch, tag or experiment"
            ) from error
    return _asked(revision, recorded, plan)


def _line(error: Exception, folder: Path) -> str:
    """The first line of an error, with the files of ``folder`` named as they are at the revision."""
    return str(error).replace(f"{folder}/", "").partition("\n")[0]


def _asked(revision: Revision, gathered: frozenset[str], plan: Plan) -> Asked:
    planned: set[str] = set()
    unknown = []
    for group in plan.groups():
        for round_ in plan.rounds(group):
            try:
                packs = plan.packs(round_, plan.selections(round_, group), group)
            except SelectionMissingError:
                unknown.append(f"{round_} round of {group}")
                break
            planned |= {run.name for pack in packs for run in pack.members}
    if unknown:
        note = f"nothing is selected here for its {', '.join(unknown)}"
    else:
        others = len(gathered - planned)
        note = f"{others} are those of its report alone, which has other settings" if others else ""
    return Asked(revision, gathered | planned, note)


def _gathered_runs(markers: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    return frozenset(name for marker in markers for name in marker["runs"])


def _recorded_markers(commit: str, lock: Path, gathered: Path) -> list[dict[str, Any]]:
    """Content of the markers that DVC recorded at a commit; none where its dvc.lock has none."""
    stages = read_yaml(lock)["stages"].values() if lock.exists() else ()
    if gathered.as_posix() not in (out["path"] for stage in stages for out in stage.get("outs", ())):
        return []
    # Loading it takes long, and where nothing is recorded it need not be installed.
    from dvc.api import DVCFileSystem
    from dvc.repo import Repo

    # A commit from before the remote was set up does not know it.
    files = DVCFileSystem(rev=commit, remote=Repo().config["core"].get("remote"))
    return [json.loads(files.read_text(path)) for path in files.ls(gathered.as_posix(), detail=False)]


@contextmanager
def _files_of(commit: str) -> Iterator[Path]:
    """A temporary folder with what a commit says of its runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in _git("ls-tree", "-r", "-z", "--name-only", commit, "--", PARAMS, PRESETS, LOCK).split("\0")[:-1]:
            path = folder / file
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(_git("show", f"{commit}:./{file}"))
        yield folder


def _commit(name: str) -> str | None:
    found = _run_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return found.stdout.strip() if found.returncode == 0 else None


def _git(*arguments: str) -> str:
    done = _run_git(*arguments)
    if done.returncode != 0:
        raise RevisionError(
            f"git {arguments[0]} failed, so that the kept revisions are not known: {done.stderr.strip()}"
        )
    return done.stdout


def _run_git(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise RevisionError(f"git cannot be run, so that the kept revisions are not known: {error}") from error


@dataclass(frozen=True)
class Pruning:
    """What goes and what stays.

    Attributes:
        results: Folder of the results.
        asked: What each kept revision asks for.
        kept: Bytes by name of the runs in the store that a kept revision asks for, finished or not.
        runs: Those of the runs that none asks for.
        promises: Manifests of packs and selections that name a run that none asks for.
    """

    results: Path
    asked: tuple[Asked, ...]
    kept: Mapping[str, int]
    runs: Mapping[str, int]
    promises: tuple[Path, ...]

    @classmethod
    def of(cls, results: Path, revisions: Iterable[Revision]) -> Pruning:
        """Compare what lies in the results with what the revisions ask for.

        Raises:
            StoreError: What a revision asks for cannot be told, or a manifest or selection cannot be read.
            SettingsError: The working tree's settings cannot be.
        """
        asked = tuple(asked_for(revision, results) for revision in revisions)
        wanted = {run for each in asked for run in each.runs}
        store = _store(results)
        sizes = {name: store.size(name) for name in store.names()}
        return cls(
            results,
            asked,
            {name: size for name, size in sizes.items() if name in wanted},
            {name: size for name, size in sizes.items() if name not in wanted},
            tuple(path for path, promised in _promises(results) if not wanted.issuperset(promised)),
        )

    def overview(self) -> str:
        """What is kept for which revisions, and what goes, by cell."""
        lines = [f"kept: {_runs(self.kept)}"]
        if not in_git():
            lines.append("  no git checkout here: only the working tree counts")
        for each in self.asked:
            count = len(each.runs & self.kept.keys())
            lines.append(f"  {each.revision}: {counted(count, 'run')}" + (f"; {each.note}" if each.note else ""))
        lines.append(f"asked for by none: {_runs(self.runs)}; {len(self.promises)} manifests and selections of them")
        store = _store(self.results)
        for cell in sorted({_cell(name) for name in self.runs}):
            own = {name: size for name, size in self.runs.items() if _cell(name) == cell}
            unfinished = sum(not store.is_finished(name) for name in own)
            lines.append(f"  {cell}: {_runs(own)}" + (f", {unfinished} of them unfinished" if unfinished else ""))
        return "\n".join(lines)

    def delete(self) -> str:
        """Remove what no revision asks for; returns what that came to.

        After a kill the same goes on, and no manifest that is left promises a removed run.
        """
        store = _store(self.results)
        for path in self.promises:
            path.unlink(missing_ok=True)
            _remove_empty(path.parent, self.results / path.relative_to(self.results).parts[0])
        busy = []
        for name in self.runs:
            if not store.remove(name):
                busy.append(name)
            _remove_empty(store.folder(name).parent, store.root)
        removed = {name: size for name, size in self.runs.items() if name not in busy}
        lines = [f"{name}: left alone, another process is training it; stop that and prune again" for name in busy]
        return "\n".join([*lines, f"removed: {_runs(removed)}"])


def lines_for_dvc(keep: Sequence[str] = ()) -> str:
    """What to type for DVC to let go of what was removed; empty where it has recorded nothing.

    Args:
        keep: Revisions that were kept by the command line alone.
    """
    if not Path(LOCK).exists():
        return ""
    # `dvc repro` and not `dvc commit`, which would record an unfinished working tree as a finished one.
    lines = [
        "DVC's cache still has what it recorded of them. To record what is left and to free the cache:",
        "  dvc repro",
        f"  git commit --message 'Prune the run store' {LOCK}",
        *(f"  git tag <name> {revision}  # dvc gc keeps what has a name" for revision in keep),
        "  dvc gc --workspace --all-branches --all-tags --all-experiments",
    ]
    return "\n".join(lines)


def _store(results: Path) -> RunStore:
    return RunStore(results / "store")


def _promises(results: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every manifest and every selection, with the runs that it names."""
    for path in sorted(results.glob("packs/**/*.json")):
        yield path, [member["name"] for member in read_manifest(path)["members"]]
    for path in sorted(results.glob("selections/**/*.json")):
        yield path, [chosen["run"] for chosen in read_json(path)["cells"].values()]


def _cell(name: str) -> str:
    return name.rpartition("/")[0]


def _runs(sizes: Mapping[str, int]) -> str:
    return f"{counted(len(sizes), 'run')}, {_readable(sum(sizes.values()))}"


def _readable(size: float, units: tuple[str, ...] = ("B", "kB", "MB", "GB", "TB")) -> str:
    if size < 1000 or len(units) == 1:
        return f"{size:.4g} {units[0]}"
    return _readable(size / 1000, units[1:])


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder if it is empty, and then those above it, up to ``top``."""
    while folder != top:
        try:
            folder.rmdir()
        except OSError:  # not empty
            return
        folder = folder.parent
