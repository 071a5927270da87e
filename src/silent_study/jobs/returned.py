"""Runs of a borrowed machine, verified at home."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from silent_study.jobs.bundle import BORROWED, DAMAGED, DEVICES, has_result
from silent_study.plan.plan import Plan
from silent_study.store.evaluations import seems_evaluated
from silent_study.store.files import atomic_file, write_bytes_atomically
from silent_study.store.recorded import take_run
from silent_study.store.runs import CHECKPOINTS, CODE, EVALUATION, WEIGHTS, RunStore, StoreError

PARTS, PART_BYTES = 8, 16 * 2**20
"""Most files, and bytes in each, in which a borrowed machine gives runs back."""
NAMES = "runs-*.zip"
"""Names of these files."""

_ENTRY = re.compile(
    rf"(store|{BORROWED}/(?:{'|'.join(DEVICES)}))/((?:[^/]+/){{3}}[^/]+)/(\w[\w.-]*?)(?:\.(\d{{1,3}})of(\d{{1,3}}))?"
)
"""Folder, run and file of an entry, and which piece of the file it is, of how many."""


@dataclass
class _Parts:
    """Files of limited number and size, filled one after another; what has no room in one is cut."""

    out: Path
    written: ExitStack  # replaces the former files when it ends
    number: int = 0  # of the present file
    left: int = 0  # bytes
    present: tuple[BinaryIO, zipfile.ZipFile] | None = None

    def place(self, folder: str, files: Mapping[str, Path]) -> bool:
        """Write the files of a folder; return False, and write none, if there is no room for all of them."""
        number, left = self.number, self.left
        pieces: list[tuple[int, str, Path, slice]] = []
        for name, path in files.items():
            own: list[tuple[int, slice]] = []
            start, size = 0, path.stat().st_size
            while start < size or not own:
                # An entry of a zip file has its name twice, and at most 76 bytes beside; 16 are those of the piece.
                room = left - 2 * len(f"{folder}/{name}") - 128
                if room > 0:
                    end = min(size, start + room)
                    own.append((number, slice(start, end)))
                    left, start = room - (end - start), end
                elif number == PARTS:
                    return False
                else:
                    number, left = number + 1, PART_BYTES - 128
            for piece, (part, content) in enumerate(own, 1):
                cut = f".{piece}of{len(own)}" if len(own) > 1 else ""
                pieces.append((part, f"{folder}/{name}{cut}", path, content))
        for part, entry, path, content in pieces:
            # Weights and pictures do not get smaller.
            kind = zipfile.ZIP_STORED if path.suffix in (".pt", ".npz") else zipfile.ZIP_DEFLATED
            self._write(part, entry, path.read_bytes()[content], kind)
        return True

    def _write(self, part: int, entry: str, content: bytes, kind: int) -> None:
        if self.present is None or part > self.number:
            if self.present is not None:
                file, archive = self.present
                archive.close()
                file.flush()  # a full disk is an error before any file is replaced
            self.number, self.left = part, PART_BYTES - 128
            path = self.out / NAMES.replace("*", str(part))
            file = self.written.enter_context(atomic_file(path, lasting=False))
            self.present = file, self.written.enter_context(zipfile.ZipFile(file, "w"))
        file, archive = self.present
        before = file.tell()
        archive.writestr(entry, content, kind)
        self.left -= file.tell() - before + len(entry) + 46


def write_parts(store: RunStore, finished: Sequence[str], out: Path, device: str) -> list[str]:
    """Write the runs that a borrowed machine trained into at most ``PARTS`` files; return a line per kind left out.

    In this order, as far as there is room: results and curves of the ``finished`` runs, by name; their weights;
    checkpoints of unfinished runs on a kind of ``device``, with the snapshots that they need. Former files are replaced
    when all new ones are written.
    """
    left_out = {"results": 0, "weights": 0, "checkpoints": 0}
    with ExitStack() as written:
        parts = _Parts(out, written)
        heavy: dict[str, dict[str, Path]] = {}
        for name in finished:
            files = {path.name: path for path in sorted(store.folder(name).glob("[!.]*"))}
            light = {file: path for file, path in files.items() if not _is_heavy(file)}
            if parts.place(f"store/{name}", light):
                heavy[name] = {file: path for file, path in files.items() if _is_heavy(file)}
            else:
                left_out["results"] += 1
        for name, files in heavy.items():
            left_out["weights"] += not parts.place(f"store/{name}", files)
        for name in filter(store.has_checkpoint, store.names()):
            working = store.working_folder(name)
            newest = next(path for each in CHECKPOINTS if (path := working / each).exists())
            files = {CHECKPOINTS[0]: newest, CODE: working / CODE}
            files |= {path.name: path for path in sorted(working.glob("snapshot-*.pt"))}
            left_out["checkpoints"] += not parts.place(f"{BORROWED}/{device}/{name}", files)
    for number in range(parts.number + 1, PARTS + 1):
        (out / NAMES.replace("*", str(number))).unlink(missing_ok=True)
    return [f"left out, no room: {kind} of {count}" for kind, count in left_out.items() if count]


def _is_heavy(file: str) -> bool:
    return file == WEIGHTS or file.startswith("snapshot-")


@dataclass
class Absorbed:
    """What ``absorb`` did."""

    taken: list[str] = field(default_factory=list)  # names of runs
    present: list[str] = field(default_factory=list)  # that the store had already, or that it has gone past
    checkpoints: int = 0
    refused: list[str] = field(default_factory=list)  # a message each


_Pieces = Mapping[str, Sequence[tuple[Path, str]]]
"""The pieces of every file of a run, each an entry of a zip file."""


def absorb(plan: Plan, folder: Path) -> Absorbed:
    """Bring the runs that a borrowed machine gave back into the store of a plan, each one verified.

    A run whose weights found no room is taken without them, as a point of a grid is. Raises ``StoreError`` for a folder
    without a file of such a machine.
    """
    store, found = plan.store, Absorbed()
    store.remove_leftovers()
    given: dict[tuple[str, str], dict[tuple[str, int], dict[int, tuple[Path, str]]]] = {}
    for path in sorted(folder.glob(NAMES)):
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.namelist()
        except (OSError, *DAMAGED) as error:
            found.refused.append(f"{path}: damaged ({error})")
            continue
        for entry in entries:
            if match := _ENTRY.fullmatch(entry):
                place, name, file, piece, count = match.groups("1")
                given.setdefault((place, name), {}).setdefault((file, int(count)), {})[int(piece)] = (path, entry)
            elif not entry.endswith("/"):
                found.refused.append(f"{path}: {entry!r} is no file of a run; not taken")
    if not given and not found.refused:
        raise StoreError(f"{folder}: no {NAMES} of a borrowed machine in it")
    asked = plan.ids_of(name for _, name in given)
    for (place, name), files in given.items():
        whole = {
            file: [own[piece] for piece in sorted(own)]
            for (file, count), own in files.items()
            if sorted(own) == list(range(1, count + 1))
        }
        try:
            if name not in asked:
                raise StoreError(f"{name}: no run of these settings")
            if place == "store":
                taken = _take_run(plan, store, name, asked[name], whole)
                (found.taken if taken else found.present).append(name)
            elif has_result(store, name) or not _take_checkpoint(plan.results / place, name, asked[name], whole):
                found.present.append(name)
            else:
                found.checkpoints += 1
        except StoreError as error:
            found.refused.append(f"{error}; not taken")
    for device in DEVICES:
        kept = RunStore(plan.results / BORROWED / device)
        kept.remove_leftovers()
        for name in kept.names():
            if name in found.taken or has_result(store, name):
                shutil.rmtree(kept.working_folder(name))
    return found


def _take_run(plan: Plan, store: RunStore, name: str, run_id: str, pieces: _Pieces) -> bool:
    """Take a finished run, unless it has nothing that the store lacks."""
    here: Mapping[str, str] = {}
    if store.is_finished(name):
        here = store.unverified(name).identity["files"]
        lacking = set() if has_result(store, name) else {WEIGHTS}
        if not seems_evaluated(store.folder(name), plan.params.evaluation.resolved()):
            lacking.add(EVALUATION)
        if lacking.isdisjoint(pieces):
            return False

    def copy(folder: Path) -> None:
        _extract(name, pieces, folder)
        beside = RunStore(folder.parents[name.count("/")])
        run = beside.unverified(name)
        files = run.identity["files"]
        if any("/" in file for file in files):
            raise StoreError(f"{name}: its record names files of other folders")
        for file in files:
            if file not in pieces and here.get(file) == files[file]:
                shutil.copyfile(store.folder(name) / file, folder / file)
        if any(_is_heavy(file) and not (folder / file).exists() for file in files):
            beside.drop_weights(run)

    take_run(store, name, run_id, copy)
    return True


def _take_checkpoint(root: Path, name: str, run_id: str, pieces: _Pieces) -> bool:
    """Take the checkpoint of a run, unless the one that is kept has come as far."""
    from silent_study.training import checkpoint  # loads torch; a time limit counts from before that

    working = RunStore(root).working_folder(name)
    working.parent.mkdir(parents=True, exist_ok=True)
    with RunStore(root).aside(name) as aside:
        folder = aside / "run"
        _extract(name, pieces, folder)
        try:
            state = checkpoint.read(folder / CHECKPOINTS[0])
        except (OSError, checkpoint.CheckpointError) as error:
            raise StoreError(f"{name}: no checkpoint, or a damaged one") from error
        if state.get("run") != run_id:
            raise StoreError(f"{name}: the checkpoint is of another run, {state.get('run')}")
        kept = checkpoint.newest(working)
        if kept is not None and (kept["epoch"], kept["step"]) >= (state["epoch"], state["step"]):
            return False
        shutil.rmtree(working, ignore_errors=True)
        folder.rename(working)
    return True


def _extract(name: str, pieces: _Pieces, folder: Path) -> None:
    """Write the files of a run into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, own in pieces.items():
        content = []
        for path, entry in own:
            try:
                with zipfile.ZipFile(path) as archive:
                    content.append(archive.read(entry))
            except (OSError, *DAMAGED) as error:
                raise StoreError(f"{name}: damaged in {path} ({error})") from error
        write_bytes_atomically(folder / file, b"".join(content))
