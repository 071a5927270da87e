"""The run store: folders named by their run's id, written beside and renamed, sealed by digests."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from silent_study.settings import NUMERICS_VERSION, RunSettings, SettingsError
from silent_study.store.files import sha256_of, write_text_atomically

RECORD, SETTINGS, CURVE, RESULT = "record.json", "settings.json", "curve.jsonl", "result.json"
PROVENANCE, WEIGHTS = "provenance.json", "weights.pt"
EVALUATION, RECONSTRUCTIONS = "evaluation.json", "reconstructions.npz"
PROGRESS = "progress.json"
"""How far a run in training is, rewritten every few seconds; a finished run has none."""
UNFINISHED = ".partial"
"""Ending of the folder of a run in training, which DVC ignores."""

_PRODUCED = (SETTINGS, CURVE, RESULT)


class StoreError(RuntimeError):
    """A run is missing, altered or foreign; the message names it and what is wrong."""


def as_json(document: Any) -> str:
    """The one form in which the store writes JSON."""
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StoreError: It is missing or no JSON.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error


@dataclass(frozen=True)
class StoredRun:
    """A verified run.

    Attributes:
        name: ``cell/readable-id``.
        folder: Where it lies.
        record: Its ``record.json``.
    """

    name: str
    folder: Path
    record: dict[str, Any]

    @property
    def cell(self) -> str:
        """``data set/experiment/method``."""
        return self.name.rpartition("/")[0]

    @property
    def digest(self) -> str:
        """Digest of what the training produced: settings, curve and result, not weights or provenance."""
        return str(self.record["result_sha256"])

    @property
    def has_weights(self) -> bool:
        """Whether the final weights are there (grid points keep metrics alone)."""
        return WEIGHTS in self.record["files"]

    @property
    def result(self) -> dict[str, Any]:
        """The content of ``result.json``."""
        document: dict[str, Any] = read_json(self.folder / RESULT)
        return document

    @property
    def diverged(self) -> bool:
        """Whether its training ended in values that are not finite."""
        return bool(self.result["status"] == "diverged")

    def answers_to(self, digest: str) -> bool:
        """Whether a manifest that names ``digest`` means this run, or one that it replaced."""
        return digest == self.digest or digest in self.record["replaces"]


class RunStore:
    """All runs below one folder.

    Args:
        root: ``results/store``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str) -> Path:
        """Folder of a finished run."""
        return self.root / name

    def working_folder(self, name: str) -> Path:
        """Folder of a run in training: beside the final one, renamed to it at the end."""
        return self.root / f"{name}{UNFINISHED}"

    def names(self) -> list[str]:
        """Names of all runs that have a folder, finished or not, and of what a removal that was cut short left."""
        folders = (path for path in self.root.glob("*/*/*/*") if path.is_dir())
        return sorted({path.relative_to(self.root).as_posix().removesuffix(UNFINISHED) for path in folders})

    def is_finished(self, name: str) -> bool:
        """Whether a run was sealed; says nothing of its files."""
        return (self.folder(name) / RECORD).exists()

    def size(self, name: str) -> int:
        """Bytes of a run's files, finished or not."""
        size = 0
        for folder in (self.folder(name), self.working_folder(name)):
            for parent, _, files in os.walk(folder):
                for file in files:
                    with suppress(FileNotFoundError):  # a training replaces its files
                        size += Path(parent, file).lstat().st_size
        return size

    def remove(self, name: str) -> bool:
        """Remove a run, finished or not; returns False and leaves it alone while another process writes it."""
        with self._lock_file(name) as descriptor:
            if not _lock_if_free(descriptor):
                return False
            for folder in (self.folder(name), self.working_folder(name)):
                if folder.exists():
                    _remove_at_once(folder)
        return True

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Keep every other process from writing this run, or this pack; waits for one that does, saying so.

        The kernel drops the lock when its holder dies.
        """
        with self._lock_file(name) as descriptor:
            if not _lock_if_free(descriptor):
                print(f"{name}: another process is training it; waiting for it", file=sys.stderr, flush=True)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    def is_locked(self, name: str) -> bool:
        """Whether a process, on whichever machine, holds the lock of this name. Looking writes nothing.

        A process that asks for the lock at this very moment may find it taken, and then gets it at once.
        """
        try:
            descriptor = os.open(self._lock_path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _lock_path(self, name: str) -> Path:
        return self.root / ".locks" / hashlib.sha256(name.encode()).hexdigest()[:24]

    @contextmanager
    def _lock_file(self, name: str) -> Iterator[int]:
        path = self._lock_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def verified(self, name: str, run_id: str) -> StoredRun:
        """A finished run whose every file is as it was sealed.

        Raises:
            StoreError: It is missing, or is another run than ``run_id``, or a file was altered, or lacks.
        """
        folder = self.folder(name)
        if not (folder / RECORD).exists():
            raise StoreError(f"{name}: no finished run in {folder}")
        record = _read_record(folder / RECORD)
        if record["id"] != run_id:
            raise StoreError(f"{name}: expected run {run_id}, found {record['id']} in {folder}")
        if record != record | _derived(name, record["files"]):
            raise StoreError(f"{folder / RECORD}: its entries contradict each other")
        for file, expected in record["files"].items():
            path = folder / file
            found = sha256_of(path) if path.is_file() else None
            if found != expected:
                raise StoreError(f"{path}: expected sha256 {expected}, found {found or 'no file'}")
        if RunSettings.from_json(read_json(folder / SETTINGS)).id != run_id:
            raise StoreError(f"{folder / SETTINGS}: its settings are not those of run {run_id}")
        return StoredRun(name, folder, record)

    def find(self, name: str, run_id: str) -> StoredRun | None:
        """``verified``, or None where the run is missing. An altered run is an error here too."""
        if (self.working_folder(name) / RECORD).exists():  # killed between sealing and renaming
            self._publish(name)
        return self.verified(name, run_id) if (self.folder(name) / RECORD).exists() else None

    def seal(self, settings: RunSettings, replaces: StoredRun | None = None) -> StoredRun:
        """Make a run of its working folder: record the digests of its files and rename the folder.

        Args:
            settings: The run; its working folder holds settings, curve, result and provenance, and maybe weights.
            replaces: The run of the same id that this one takes the place of.
        """
        working, name = self.working_folder(settings.name), settings.name
        for leftover in working.glob(".*"):  # of an atomic write that a kill cut short
            leftover.unlink()
        files = {path.name: sha256_of(path) for path in sorted(working.iterdir())}
        record = {
            "id": settings.id,
            "files": files,
            **_derived(name, files),
            "replaces": [] if replaces is None else sorted({*replaces.record["replaces"], replaces.digest}),
        }
        write_text_atomically(working / RECORD, as_json(record))
        self._publish(name)
        return StoredRun(name, self.folder(name), record)

    def _publish(self, name: str) -> None:
        folder = self.folder(name)
        if folder.exists():
            shutil.rmtree(folder)
        self.working_folder(name).rename(folder)

    def drop_weights(self, run: StoredRun) -> StoredRun:
        """Delete a run's weights and snapshots, which only selected runs keep."""
        dropped = [f for f in run.record["files"] if f == WEIGHTS or f.startswith("snapshot-")]
        record = run.record | {"files": {f: d for f, d in run.record["files"].items() if f not in dropped}}
        write_text_atomically(run.folder / RECORD, as_json(record))
        for file in dropped:
            (run.folder / file).unlink()
        return StoredRun(run.name, run.folder, record)


def open_run(folder: Path) -> tuple[StoredRun, RunSettings]:
    """The verified run in a folder of some store, and its settings.

    Raises:
        StoreError: It is no folder of a finished run, or a file was altered.
    """
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
    """The error that a run keeps no weights, with a run of the same cell that does where there is one."""
    kept = sorted(path.parent for path in run.folder.parent.glob(f"*/{WEIGHTS}") if path.parent.suffix != UNFINISHED)
    here = [folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder for folder in kept]
    named = f"; of this cell: {here[0]}" if here else ""
    return StoreError(f"{run.folder}: keeps no weights; selected runs do, and the best of each cell of a grid{named}")


def _lock_if_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_at_once(folder: Path) -> None:
    # Half a run must not pass for one, nor be resumed. Under its new name it is an unfinished run that nobody asks for.
    removed = tempfile.mkdtemp(dir=folder.parent, prefix="removed-", suffix=UNFINISHED)
    shutil.rmtree(folder.rename(removed))


def _derived(name: str, files: dict[str, str]) -> dict[str, Any]:
    """What a record says over again, so that an altered record contradicts itself."""
    produced = "".join(files[file] for file in _PRODUCED)
    return {
        "name": name,
        "numerics_version": NUMERICS_VERSION,
        "result_sha256": hashlib.sha256(produced.encode()).hexdigest(),
    }


def _read_record(path: Path) -> dict[str, Any]:
    record = read_json(path)
    expected = {"id": str, "name": str, "numerics_version": int, "files": dict, "result_sha256": str, "replaces": list}
    found = {key: type(value) for key, value in record.items()} if isinstance(record, dict) else None
    if found != expected or not set(_PRODUCED) <= set(record["files"]):
        raise StoreError(f"{path}: not the record of a run")
    return record


def snapshot_file(epoch: int) -> str:
    """Name of the file that keeps the weights after ``epoch``."""
    return f"snapshot-{epoch}.pt"
