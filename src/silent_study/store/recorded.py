"""Runs that other revisions recorded with DVC."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from silent_study.store.evaluations import check_evaluation, remove_evaluation
from silent_study.store.provenance import git
from silent_study.store.runs import RECORD, RunStore, StoreError
from silent_study.store.stale import is_evaluated_now, is_trained_now
from silent_study.words import counted

LOCK = "dvc.lock"


def take_recorded(store: RunStore, wanted: Callable[[Iterable[str]], Mapping[str, str]]) -> None:
    """Copy runs that the store lacks from DVC's cache or remote, as far as a branch, a tag or HEAD recorded them.

    Does nothing where the working folder, which the store lies below, is no repository of DVC's. ``wanted`` returns ids
    by name: those of the given names that are asked for.
    """
    for revision, commit in _recording_revisions(store.root).items():
        try:
            _take(store, commit, revision, wanted)
        except Exception as error:  # noqa: BLE001 - of git, of the cache or of any kind of remote
            # The runs can be trained as well.
            print(f"what {revision} recorded with DVC cannot be read, so it is not reused: {error}", file=sys.stderr)


def _recording_revisions(folder: Path) -> dict[str, str]:
    """Return commits by name of a revision, one for every recorded content of a folder."""
    if not Path(".dvc").is_dir():
        return {}
    import yaml

    prefix = _prefix()
    listing = git("for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads", "refs/tags", "refs/remotes")
    if listing is None:  # outside of a checkout, or without git
        return {}
    revisions = [("HEAD", "HEAD"), *(tuple(line.split()) for line in listing.splitlines())]
    asked = "".join(f"{commit}:{prefix}{LOCK}\n" for _, commit in revisions)
    # One line each; "missing" where a revision lacks the file.
    blobs = (git("cat-file", "--batch-check=%(objectname)", text=asked) or "").splitlines()
    contents = {blob: git("cat-file", "blob", blob) or "" for blob in set(blobs) if " " not in blob}
    found: dict[str, tuple[str, str]] = {}
    for (name, commit), blob in zip(revisions, blobs, strict=True):
        stages = (yaml.safe_load(contents.get(blob, "")) or {}).get("stages", {})
        for out in (out for stage in stages.values() for out in stage.get("outs", ())):
            if out["path"] == folder.as_posix():
                found.setdefault(out.get("md5", ""), (name, commit))
    return dict(found.values())


def _prefix() -> str:
    """Return the path of the working folder below the top of its checkout, with a slash at its end, if there is one."""
    return (git("rev-parse", "--show-prefix") or "").strip()


def _take(store: RunStore, commit: str, revision: str, wanted: Callable[[Iterable[str]], Mapping[str, str]]) -> None:
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(str(Path.cwd()), rev=commit)
    root = f"/{_prefix()}{store.root.as_posix()}"
    runs: dict[str, list[str]] = {}
    for path in files.find(root):
        name, _, file = path.removeprefix(f"{root}/").rpartition("/")
        runs.setdefault(name, []).append(file)
    missing = [name for name, own in runs.items() if RECORD in own and not store.is_finished(name)]
    taken = 0
    for name, run_id in wanted(missing).items():

        def copy(folder: Path, name: str = name) -> None:
            for file in runs[name]:
                files.get_file(f"{root}/{name}/{file}", str(folder / file))

        try:
            take_run(store, name, run_id, copy)
            taken += 1
        except StoreError as error:
            print(f"{error}; not taken", file=sys.stderr)
    if taken:
        print(f"{counted(taken, 'run')} of {revision} taken as DVC recorded them", file=sys.stderr, flush=True)


def take_run(store: RunStore, name: str, run_id: str, copy: Callable[[Path], None]) -> None:
    """Let ``copy`` write the files of a finished run into a folder, verify them and move the folder into the store.

    An evaluation by other source code is left out. A run of the same result that is there already is replaced.

    Raises:
        StoreError: The run is not that one as it was sealed by the present code, or this store is training it, or has
            another result of it.
    """
    final = store.folder(name)
    final.parent.mkdir(parents=True, exist_ok=True)
    with store.aside(name) as folder:
        taken = RunStore(folder)
        taken.folder(name).mkdir(parents=True)
        copy(taken.folder(name))
        run = taken.verified(name, run_id)
        if not is_trained_now(store, run):
            raise StoreError(f"{name}: other source code trained it")
        if not is_evaluated_now(store, run):
            remove_evaluation(run.folder)
        check_evaluation(run)
        if store.is_finished(name) and not run.answers_to(store.unverified(name).digest):
            raise StoreError(f"{name}: the store has another result of it")
        if final.exists():
            shutil.move(final, folder / "former")
        shutil.move(run.folder, final)
        shutil.rmtree(store.working_folder(name), ignore_errors=True)
