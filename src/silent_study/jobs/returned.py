"""Runs of a borrowed machine: given back in a few files, and brought into the store at home, each one verified."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from silent_study.jobs.bundle import BORROWED
from silent_study.plan.plan import Plan
from silent_study.store.files import atomic_file, write_bytes_atomically
from silent_study.store.recorded import take_run
from silent_study.store.runs import CHECKPOINTS, CODE, EVALUATION, RECORD, WEIGHTS, RunStore, StoreError, as_json

PARTS, PART_BYTES = 8, 16 * 2**20
"""Most files, and bytes in each, in which a borrowed machine gives runs back."""


@dataclass
class _Parts:
    """Files of limited number and size, filled with the first one that has room."""

    files: list[dict[str, bytes]] = field(default_factory=lambda: [{} for _ in range(PARTS)])
    room: list[int] = field(default_factory=lambda: [PART_BYTES - 1024] * PARTS)

    def place(self, folder: str, content: Mapping[str, bytes]) -> bool:
        """Place the files of a folder; return False, and place none, if one of them finds no room."""
        room, places = list(self.room), []
        for name, data in content.items():
            # An entry of a zip file has its name twice, and 76 bytes beside.
            size = min(len(data), len(zlib.compress(data))) + 2 * len(f"{folder}/{name}") + 256
            place = next((number for number, left in enumerate(room) if left >= size), None)
            if place is None:
                return False
            room[place] -= size
            places.append((place, f"{folder}/{name}", data))
        self.room = room
        for place, path, data in places:
            self.files[place][path] = data
        return True


def write_parts(store: RunStore, finished: Sequence[str], out: Path, device: str) -> list[str]:
    """Write the runs that a borrowed machine trained into at most ``PARTS`` files; return a line per kind left out.

    In this order, as far as there is room: results and curves; weights; checkpoints of unfinished runs. A run without
    its weights is sealed as a point of a grid is.

    Args:
        store: The runs there.
        finished: Names of the runs.
        out: Folder of the parts.
        device: Kind of device, ``cpu`` or ``cuda``.
    """
    parts, left_out = _Parts(), {"results": 0, "weights": 0, "checkpoints": 0}
    heavy: dict[str, dict[str, bytes]] = {}
    for name in finished:
        files = {path.name: path.read_bytes() for path in sorted(store.folder(name).iterdir())}
        heavy[name] = {file: data for file, data in files.items() if _is_heavy(file)}
        light = {file: data for file, data in files.items() if not _is_heavy(file)}
        if not parts.place(f"store/{name}", light):
            left_out["results"] += 1
            del heavy[name]
    for name, files in heavy.items():
        if files and not parts.place(f"store/{name}", files):
            left_out["weights"] += 1
            record = f"store/{name}/{RECORD}"
            holder = next(part for part in parts.files if record in part)
            identity = json.loads(holder[record])
            identity["files"] = {file: each for file, each in identity["files"].items() if not _is_heavy(file)}
            holder[record] = as_json(identity).encode()
    for name in store.names():
        working = store.working_folder(name)
        if store.has_checkpoint(name) and not store.is_finished(name):
            newest = next(each for each in CHECKPOINTS if (working / each).exists())
            files = {file: (working / file).read_bytes() for file in (newest, CODE)}
            left_out["checkpoints"] += not parts.place(f"{BORROWED}/{device}/{name}", files)
    out.mkdir(parents=True, exist_ok=True)
    for number, files in enumerate(parts.files, 1):
        path = out / f"runs-{number}.zip"
        if not files:
            path.unlink(missing_ok=True)
            continue
        with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, data in files.items():
                archive.writestr(entry, data)
    return [f"left out, no room: {kind} of {count}" for kind, count in left_out.items() if count]


def _is_heavy(file: str) -> bool:
    return file == WEIGHTS or file.startswith("snapshot-")


@dataclass
class Absorbed:
    """What ``absorb`` did."""

    taken: list[str] = field(default_factory=list)  # names of runs
    present: list[str] = field(default_factory=list)  # that the store had already
    checkpoints: int = 0
    refused: list[str] = field(default_factory=list)  # a message each


def absorb(plan: Plan, folder: Path) -> Absorbed:
    """Bring the runs that a borrowed machine gave back into the store of a plan, each one verified.

    Raises:
        StoreError: The folder has no file of such a machine.
    """
    store, found = RunStore(plan.results / "store"), Absorbed()
    entries: dict[str, list[tuple[Path, str]]] = {}
    for path in sorted(folder.glob("*.zip")):
        try:
            with zipfile.ZipFile(path) as archive:
                for entry in archive.namelist():
                    entries.setdefault(entry.rpartition("/")[0], []).append((path, entry))
        except (OSError, zipfile.BadZipFile) as error:
            found.refused.append(f"{path}: damaged ({error})")
    if not entries and not found.refused:
        raise StoreError(f"{folder}: no runs-*.zip of a borrowed machine in it")
    # store/NAME or borrowed/DEVICE/NAME, where a name has four parts.
    names = {place: "/".join(place.split("/")[-4:]) for place in entries}
    asked = plan.ids_of(names.values())
    for place, name in names.items():
        try:
            if name not in asked:
                raise StoreError(f"{name}: no run of these settings")
            evaluated = any(entry.endswith(f"/{EVALUATION}") for _, entry in entries[place])
            if store.is_finished(name) and ((store.folder(name) / EVALUATION).exists() or not evaluated):
                found.present.append(name)
            elif place == f"store/{name}":
                take_run(store, name, asked[name], partial(_extract, name, entries[place]))
                found.taken.append(name)
            else:
                kept = RunStore(plan.results / BORROWED / place.split("/")[1])
                _extract(name, entries[place], kept.working_folder(name))
                found.checkpoints += 1
        except StoreError as error:
            found.refused.append(f"{error}; not taken")
    for device in (plan.results / BORROWED).glob("*"):
        kept = RunStore(device)
        for name in kept.names():
            if store.is_finished(name):
                shutil.rmtree(kept.working_folder(name))
    return found


def _extract(name: str, entries: Iterable[tuple[Path, str]], folder: Path) -> None:
    """Write the files of a run, each an entry of a zip file, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, entry in entries:
        try:
            with zipfile.ZipFile(path) as archive:
                write_bytes_atomically(folder / entry.rpartition("/")[2], archive.read(entry))
        except (zipfile.BadZipFile, zlib.error) as error:
            raise StoreError(f"{name}: damaged in {path} ({error})") from error
