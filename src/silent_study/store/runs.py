"""The run store."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_type_hints

from silent_study.settings import NUMERICS_VERSION, RunSettings, SettingsError
from silent_study.store.documents import Acceptance, Code, CurveEntry, Evaluation, Identity, Provenance, Result
from silent_study.store.files import is_unaltered, last_touched, sha256_of, write_text_atomically
from silent_study.store.locks import claimed, is_locked, locked

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

RECORD, SETTINGS, CURVE, RESULT = "record.json", "settings.json", "curve.jsonl", "result.json"
PROVENANCE, CODE, WEIGHTS = "provenance.json", "code.json", "weights.pt"
EVALUATION, RECONSTRUCTIONS = "evaluation.json", "reconstructions.npz"
CHECKPOINTS = ("checkpoint.pt", "checkpoint-previous.pt")
"""The newest checkpoint of a run in training, and the one before it."""
ACCEPTED = "accepted.json"
"""Name of the file, at the top of a store, of the source codes that were accepted as equal."""
PROGRESS = "progress.json"
"""State of a run in training, rewritten every few seconds; a finished run has none."""
UNFINISHED = ".partial"
"""Ending of the folder of a run in training, which DVC ignores."""

_PRODUCED = (SETTINGS, CURVE, RESULT)

T = TypeVar("T")


class StoreError(RuntimeError):
    """A run is missing, altered or another one than expected; the message names the run and the fault."""


def as_json(document: Mapping[str, Any]) -> str:
    """Return a document in the one form in which files of the study are written: sorted, indented by one space."""
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document to a file in the form of ``as_json``; a reader never sees a part, see ``files.atomic_file``."""
    write_text_atomically(path, as_json(document))


def read_json(path: Path) -> Any:
    """Read a JSON file; raises ``StoreError`` if the file is missing or is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error


def read_as(path: Path, of: Callable[[Any], T], otherwise: str, remedy: str) -> T:
    """Return what ``of`` makes of a JSON file; raises ``StoreError`` with the remedy if it cannot be read."""
    try:
        return of(read_json(path))
    except StoreError as error:
        raise StoreError(f"{error}; {remedy}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: {otherwise} ({error!r}); {remedy}") from error


def read_unchanged(path: str) -> Any:
    """Read a JSON file as ``read_json`` does, once as long as it does not change; the content must not be changed."""
    try:
        found = os.stat(path)  # noqa: PTH116 - several times faster
        # A file that is written beside and renamed is another inode, even within a tick of the clock.
        return _read_once(path, (found.st_ino, found.st_size, found.st_mtime_ns))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error


@cache
def _read_once(path: str, _state: tuple[int, int, int]) -> Any:
    return _parsed(Path(path).read_bytes())


@lru_cache(maxsize=64)
def _parsed(content: bytes) -> Any:
    # Thousands of runs have the same code, and one document of it.
    return json.loads(content)


@dataclass(frozen=True)
class StoredRun:
    """A finished run; each of its documents is read when it is first asked for, and then kept."""

    name: str
    """Name in the store: ``data set/experiment/method/<readable>-<id>``."""
    folder: Path
    identity: Identity
    """Content of ``record.json``."""

    @property
    def cell(self) -> str:
        """``data set/experiment/method``."""
        return self.name.rpartition("/")[0]

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.name.split("/")[0]

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.name.split("/")[1]

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.name.split("/")[2]

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.settings["seed"])

    @property
    def digest(self) -> str:
        """Digest of what the training produced: settings, curve and result, not weights or provenance."""
        return self.identity["result_sha256"]

    @property
    def has_weights(self) -> bool:
        """True if the run keeps its final weights (grid points keep metrics alone)."""
        return WEIGHTS in self.identity["files"]

    @property
    def is_whole(self) -> bool:
        """True if a selected run needs no new training: it has its weights, or diverged."""
        return self.has_weights or self.diverged

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Content of ``settings.json``: ``RunSettings.to_json``."""
        return read_json(self.folder / SETTINGS)

    @cached_property
    def result(self) -> Result:
        """Content of ``result.json``."""
        return read_json(self.folder / RESULT)

    @cached_property
    def provenance(self) -> Provenance:
        """Content of ``provenance.json``."""
        return read_json(self.folder / PROVENANCE)

    @cached_property
    def code(self) -> Code:
        """Content of ``code.json``."""
        return read_json(self.folder / CODE)

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """Content of ``evaluation.json``; None for a run that was not selected."""
        path = self.folder / EVALUATION
        return read_json(path) if path.exists() else None

    @property
    def diverged(self) -> bool:
        """True if the training ended in values that are not finite."""
        return self.result["status"] == "diverged"

    @property
    def final_bpd(self) -> float:
        """Final bits/dim on the images to select on; infinite for a run that diverged."""
        bpd = self.metrics("selection").get("bpd")
        return math.inf if bpd is None else float(bpd)

    def metrics(self, part: Literal["selection", "report", "train"]) -> Mapping[str, Any]:
        """Return the final metrics on a part of the data by name; empty where the run was not evaluated on it."""
        if part == "selection":
            found = self.result["selection"]
        else:
            found = None if self.evaluation is None else self.evaluation[part]
        return {} if found is None else found

    def curve_entries(self) -> list[CurveEntry]:
        """Return the lines of ``curve.jsonl``, one per epoch."""
        return [json.loads(line) for line in (self.folder / CURVE).read_text(encoding="utf-8").splitlines()]

    @cached_property
    def curve(self) -> pd.DataFrame:
        """``curve.jsonl``: one row per epoch, one column per key of ``CurveEntry``; null is ``nan``."""
        import pandas as pd

        types = get_type_hints(CurveEntry)
        curve = pd.DataFrame(self.curve_entries(), columns=list(types))
        numbers = [column for column, kind in types.items() if kind is not bool]
        return curve.astype(dict.fromkeys(numbers, float)).astype({"epoch": int})

    def reconstructions(self) -> dict[str, np.ndarray] | None:
        """Return the arrays ``[n, C, H, W]`` of ``reconstructions.npz`` by name; None where the run has none."""
        import numpy as np

        path = self.folder / RECONSTRUCTIONS
        if not path.exists():
            return None
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def answers_to(self, digest: str) -> bool:
        """Return True if a manifest that names ``digest`` means this run, or one that this run replaced."""
        return digest == self.digest or digest in self.identity["replaces"]


class RunStore:
    """All runs below one folder: ``results/store``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str) -> Path:
        """Return the folder of a finished run."""
        return self.root / name

    def working_folder(self, name: str) -> Path:
        """Return the folder of a run in training, which lies beside the final one and is renamed to it at the end."""
        return self.root / f"{name}{UNFINISHED}"

    def names(self) -> list[str]:
        """Return the names of all runs with a folder, finished or not."""
        found = set()
        for cell in self.root.glob("[!.]*/*/*"):
            if cell.is_dir():
                below = cell.relative_to(self.root).as_posix()
                with os.scandir(cell) as entries:
                    found |= {f"{below}/{entry.name.removesuffix(UNFINISHED)}" for entry in entries if entry.is_dir()}
        return sorted(found)

    def is_finished(self, name: str) -> bool:
        """Return True if a run was sealed; its files are not checked."""
        return self.finished_at(name) is not None

    def finished_at(self, name: str) -> int | None:
        """Return when a run was sealed, in nanoseconds since the Unix epoch; None for an unfinished one."""
        try:
            return os.stat(f"{self.root}/{name}/{RECORD}").st_mtime_ns  # noqa: PTH116 - several times faster
        except OSError:
            return None

    def code_of(self, name: str) -> Code | None:
        """Return the code of a run that is finished or has a checkpoint, else None; raises ``StoreError`` if lost."""
        try:
            return _read_code(f"{self.root}/{name}/{CODE}")
        except StoreError:
            if self.is_finished(name):
                raise
        return _read_code(f"{self.working_folder(name)}/{CODE}") if self.has_checkpoint(name) else None

    def has_checkpoint(self, name: str) -> bool:
        """Return True if a run in training can be resumed."""
        return any((self.working_folder(name) / file).exists() for file in CHECKPOINTS)

    def accepted(self) -> list[Acceptance]:
        """Return the source codes that were accepted as equal; raises ``StoreError`` if the file is damaged."""
        path = self.root / ACCEPTED
        if not path.exists():
            return []
        remedy = 'delete it, then accept again: silent-gradients accept --reason "..."'
        return read_as(path, lambda found: [entry for entry in found["accepted"] if entry["codes"]], "no list", remedy)

    def accept(self, codes: Iterable[str], reason: str) -> None:
        """Record that source codes compute the same numbers, for a reason that the user gives."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry: Acceptance = {"codes": sorted(codes), "reason": reason, "accepted": now}
        write_json(self.root / ACCEPTED, {"accepted": [*self.accepted(), entry]})

    def equal_codes(self, digest: str) -> set[str]:
        """Return the digests of the codes that are accepted as equal to a code, itself included."""
        equal, accepted = {digest}, [set(entry["codes"]) for entry in self.accepted()]
        while joined := set[str]().union(*(codes for codes in accepted if codes & equal)) - equal:
            equal |= joined
        return equal

    def size(self, name: str) -> int:
        """Return the bytes of a run's files, finished or not."""
        size = 0
        for file in (*self.folder(name).glob("*"), *self.working_folder(name).glob("*")):
            with suppress(FileNotFoundError):  # a training replaces its files
                size += file.lstat().st_size
        return size

    def remove(self, name: str) -> bool:
        """Remove a run, finished or not; if another process is writing it, return False and leave it alone."""
        try:
            with self.aside(name) as aside:
                # Moved first: a part of a run must neither pass for a run nor be resumed.
                for folder in (self.folder(name), self.working_folder(name)):
                    if folder.exists():
                        shutil.move(folder, aside)
        except StoreError:
            return False
        return True

    @contextmanager
    def aside(self, name: str) -> Iterator[Path]:
        """Hold the lock of a run inside the block and yield a new folder in the store, which is removed at the end.

        Raises ``StoreError`` if another process holds the lock.
        """
        lock = self._lock_file(name)
        with claimed(lock) as free:
            if not free:
                raise StoreError(f"{name}: another process is training it")
            folder = lock.with_suffix(UNFINISHED)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder)

    def remove_leftovers(self) -> None:
        """Remove the folders of ``aside`` that killed processes left; that of a living process stays."""
        for folder in self.root.glob(f".locks/*{UNFINISHED}"):
            with claimed(folder.with_suffix("")) as dead:
                if dead:
                    shutil.rmtree(folder, ignore_errors=True)  # its process may have removed it meanwhile

    def locked(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock of a run or a pack inside the block; print a line before a wait for another process."""
        return locked(self._lock_file(name), f"{name}: another process is training it; waiting for it")

    def is_locked(self, name: str) -> bool:
        """Return True while a process holds the lock of this name; see ``locks.is_locked``."""
        return is_locked(self._lock_path(name))

    def _lock_path(self, name: str) -> Path:
        return self.root / ".locks" / hashlib.sha256(name.encode()).hexdigest()[:24]

    def _lock_file(self, name: str) -> Path:
        path = self._lock_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def unverified(self, name: str) -> StoredRun:
        """Return a finished run, of which its record alone is read; raises ``StoreError`` if there is none."""
        folder = self.folder(name)
        if not (folder / RECORD).exists():
            raise StoreError(f"{name}: no finished run in {folder}")
        return StoredRun(name, folder, _read_record(folder / RECORD))

    def verified(self, name: str, run_id: str, since: int = 0) -> StoredRun:
        """Return a finished run of an id, every file of which is as it was sealed; raises ``StoreError`` otherwise.

        ``since`` is the time (ns) at which the run was whole; of files not touched since, its record alone is read.
        """
        run = self.unverified(name)
        folder, identity = run.folder, run.identity
        if identity["id"] != run_id:
            raise StoreError(f"{name}: expected run {run_id}, found {identity['id']} in {folder}")
        if since and last_touched(folder) <= since:
            return run
        if identity != _identity(name, run_id, identity["files"], identity["replaces"]):
            raise StoreError(f"{folder / RECORD}: its entries contradict each other")
        for file, expected in identity["files"].items():
            if not is_unaltered(path := folder / file, expected, since):
                found = sha256_of(path) if path.is_file() else "no file"
                raise StoreError(f"{path}: expected sha256 {expected}, found {found}")
        settings = RunSettings.from_json(run.settings)
        if settings.id != run_id:
            raise StoreError(f"{folder / SETTINGS}: its settings are not those of run {run_id}")
        if settings.name != name:
            raise StoreError(f"{folder}: recorded as {name}, but its settings belong to {settings.name}")
        return run

    def find(self, name: str, run_id: str) -> StoredRun | None:
        """Return a run as ``verified`` does, or None where it is missing; an altered run is an error here too."""
        if (self.working_folder(name) / RECORD).exists():  # killed between sealing and renaming
            self._publish(name)
        return self.verified(name, run_id) if (self.folder(name) / RECORD).exists() else None

    def seal(self, settings: RunSettings, replaces: StoredRun | None = None) -> StoredRun:
        """Finish a run: record the digests of the files in its working folder and rename that folder.

        ``replaces`` is the earlier run of the same id that this one replaces.
        """
        working, name = self.working_folder(settings.name), settings.name
        for leftover in working.glob(".*"):  # of a write that a kill cut short
            leftover.unlink()
        files = {path.name: sha256_of(path) for path in sorted(working.iterdir())}
        replaced = [] if replaces is None else sorted({*replaces.identity["replaces"], replaces.digest})
        identity = _identity(name, settings.id, files, replaced)
        write_json(working / RECORD, identity)
        self._publish(name)
        return StoredRun(name, self.folder(name), identity)

    def _publish(self, name: str) -> None:
        folder = self.folder(name)
        if folder.exists():
            shutil.rmtree(folder)
        self.working_folder(name).rename(folder)

    def drop_weights(self, run: StoredRun) -> StoredRun:
        """Delete a run's weights and snapshots, which only selected runs keep."""
        files = run.identity["files"]
        kept = {file: digest for file, digest in files.items() if file != WEIGHTS and not file.startswith("snapshot-")}
        identity: Identity = {**run.identity, "files": kept}
        # First the record: files that a kill leaves behind afterwards are no part of the run.
        write_json(run.folder / RECORD, identity)
        for file in files.keys() - kept.keys():
            with suppress(FileNotFoundError):  # they may not have come home from a borrowed machine
                (run.folder / file).unlink()
        return StoredRun(run.name, run.folder, identity)


def open_run(folder: Path) -> tuple[StoredRun, RunSettings]:
    """Return the verified run in a folder of a store, and its settings; raises ``StoreError`` if there is none."""
    if not folder.exists():
        raise StoreError(f"{folder}: there is no such folder; to list the runs: ls -d results/store/*/*/*/*")
    if not (folder / SETTINGS).is_file():
        raise StoreError(f"{folder}: expected the folder of a run, found no {SETTINGS} in it")
    try:
        settings = RunSettings.from_json(read_json(folder / SETTINGS))
        root = folder.resolve().parents[len(Path(settings.name).parts) - 1]
    except (SettingsError, TypeError, AttributeError, IndexError) as error:
        raise StoreError(f"{folder / SETTINGS}: not the settings of a run in a store ({error})") from error
    return RunStore(root).verified(settings.name, settings.id), settings


def without_weights(run: StoredRun) -> StoreError:
    """Return the error that a run keeps no weights; it names a run of the same cell that does, if there is one."""
    kept = sorted(path.parent for path in run.folder.parent.glob(f"*/{WEIGHTS}") if path.parent.suffix != UNFINISHED)
    here = [folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder for folder in kept]
    named = f"; of this cell: {here[0]}" if here else ""
    return StoreError(f"{run.folder}: keeps no weights; selected runs do, and the best of each cell of a grid{named}")


def _identity(name: str, run_id: str, files: dict[str, str], replaces: list[str]) -> Identity:
    """Return the record of a run; name and result digest are redundant and so reveal an altered record."""
    produced = "".join(files[file] for file in _PRODUCED)
    return {
        "id": run_id,
        "name": name,
        "numerics_version": NUMERICS_VERSION,
        "files": files,
        "result_sha256": hashlib.sha256(produced.encode()).hexdigest(),
        "replaces": replaces,
    }


def _read_record(path: Path) -> Identity:
    record: Identity = read_json(path)
    expected = {"id": str, "name": str, "numerics_version": int, "files": dict, "result_sha256": str, "replaces": list}
    found = {key: type(value) for key, value in record.items()} if isinstance(record, dict) else None
    if found != expected or not set(_PRODUCED) <= set(record["files"]):
        raise StoreError(f"{path}: not the record of a run")
    return record


def is_code(document: object) -> bool:
    """Return True if a document has the form of ``documents.Code``."""
    found = {key: type(value) for key, value in document.items()} if isinstance(document, dict) else None
    return found == {"digest": str, "files": dict}


def _read_code(path: str) -> Code:
    code: Code = read_unchanged(path)
    if not is_code(code):
        raise StoreError(f"{path}: not the code of a run")
    return code


def snapshot_file(epoch: int) -> str:
    """Return the name of the file that keeps the weights after ``epoch``."""
    return f"snapshot-{epoch}.pt"
