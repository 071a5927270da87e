"""Prepare a data set: obtain, verify and write arrays."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from silent_study.data import prepared
from silent_study.data.errors import DataError, require_space
from silent_study.data.raw import Obtained, Split, obtain
from silent_study.data.source import Source
from silent_study.data.sources import source_named
from silent_study.store.code import reading_code
from silent_study.store.files import atomic_file, named_errors, touched

RAW = Path("data/raw")  # downloaded raw files, in the layout of a mirror
PREPARED = Path("data/prepared")  # each prepared data set has a folder of its name there


def download(data: str | Source, raw: Path = RAW, mirror: str | None = None) -> Obtained:
    """Find or download a data set's raw files and verify them; see ``raw.obtain``."""
    source = _source(data)
    return obtain(source.name, source.forms, raw, mirror, source.hint)


def prepare(data: str | Source, folder: Path, mirror: str | None = None, raw: Path = RAW) -> prepared.Manifest:
    """Write ``train.npy``, ``test.npy`` (uint8 ``[N, C, H, W]``) and, last, ``manifest.json`` into a folder.

    A folder that holds this version of the data set undamaged, by this code, is left as it is. Missing raw files are
    taken from the mirror, a folder or an address, or downloaded to ``raw``. Images are copied batch by batch: memory
    holds at most the images of the largest raw file.

    Raises:
        DataError: The data set is unknown, could not be obtained, or differs from its source's description; or the
            disk has too little space left.
        OSError: The folder cannot be written to, or the disk is full.
    """
    source = _source(data)
    description = source.description
    for note in source.notes:
        print(f"{source.name}: {note}", file=sys.stderr, flush=True)
    with suppress(DataError):  # absent, damaged or of another version: it is prepared anew
        present = prepared.open_arrays(folder, source.sha256)[2]
        if description.items() <= present.items() and present["reader"] == reading_code()["digest"]:
            return present

    obtained = download(source, raw, mirror)
    require_space(folder, (source.train + source.test) * math.prod(source.shape))
    paths = folder / prepared.TRAIN, folder / prepared.TEST
    with atomic_file(paths[0]) as train, atomic_file(paths[1]) as test, named_errors(folder):
        _write(train, source, "train", obtained.form.read(obtained.root, "train"))
        _write(test, source, "test", obtained.form.read(obtained.root, "test"))
        # Before the files get their names, so that a file of such a name is always verified.
        arrays = (np.load(file.name, mmap_mode="r") for file in (train, test))
        found = prepared.arrays_digest(source.name, source.levels, *arrays)
        if source.arrays_sha256 not in (None, found):
            wrong = f"{source.name}: expected arrays with sha256 {source.arrays_sha256}, found {found}"
            raise DataError(f"{wrong}; the raw data are not those of this source: {source.remedy}")
    return prepared.write_manifest(folder / prepared.MANIFEST, **description, arrays_sha256=found)


def dequantize(data: str | Source, folder: Path) -> prepared.NoiseManifest:
    """Write ``noise.npy``, the dequantization noise of every evaluation, and then ``noise.json`` into a folder.

    Undamaged files of this noise, by this code, are left as they are. The data set need not be prepared yet. Training
    draws fresh noise for each batch instead.

    Raises:
        DataError: The data set is unknown, or the disk has too little space left.
        OSError: The folder cannot be written to, or the disk is full.
    """
    source = _source(data)
    shape = (source.test, *source.shape)
    with suppress(DataError):  # absent or damaged: it is written anew
        _, noise = prepared.open_noise(folder)
        expected = (source.name, prepared.EVALUATION_NOISE_SEED, list(shape), reading_code()["digest"])
        if (noise["name"], noise["seed"], noise["shape"], noise["reader"]) == expected:
            return noise
    require_space(folder, 4 * math.prod(shape))
    with atomic_file(folder / prepared.NOISE) as file:
        _write_header(file, np.dtype("<f4"), shape)
        for piece in prepared.evaluation_noise(shape):
            file.write(piece.astype("<f4", copy=False).data)
    entries = {"name": source.name, "seed": prepared.EVALUATION_NOISE_SEED, "shape": list(shape)}
    return prepared.write_manifest(folder / prepared.NOISE_MANIFEST, **entries)


def opened(data: str | Source, folder: Path, mirror: str | None = None, raw: Path = RAW) -> prepared.PreparedData:
    """Open a prepared data set, which is made first where it is missing, damaged or of other data."""
    source = _source(data)
    prepare(source, folder, mirror, raw)
    dequantize(source, folder)
    return prepared.PreparedData.open(folder, source.sha256)


def outdated(folder: Path, source: Source) -> list[Path]:
    """Return the manifests in a folder that are damaged, or of other or altered data, or by other code.

    Arrays are read only if they were touched after their manifest. Files that are missing are not looked for.
    """
    found, noise = [], {"shape": [source.test, *source.shape]}
    asked: dict[str, tuple[dict[str, Any], Callable[[Path], object]]] = {
        prepared.MANIFEST: (dict(source.description), prepared.open_arrays),
        prepared.NOISE_MANIFEST: (noise, prepared.open_noise),
    }
    for name, (expected, verify) in asked.items():
        manifest, arrays = folder / name, [folder / array for array in prepared.ARRAYS[name]]
        if not manifest.exists():
            continue
        try:
            if all(path.exists() for path in arrays) and max(map(touched, arrays)) > touched(manifest):
                verify(folder)
            expected["reader"] = reading_code()["digest"]
            if not expected.items() <= prepared.read_manifest(manifest).items():
                found.append(manifest)
        except DataError:
            found.append(manifest)
    return found


def _source(data: str | Source) -> Source:
    return source_named(data) if isinstance(data, str) else data


def _write(file: BinaryIO, source: Source, split: Split, pieces: Iterable[prepared.Images]) -> None:
    """Write a split as an npy file, piece by piece.

    A memory map would end the process on a full disk instead of raising an error.
    """

    def other_data(expected: str, found: object) -> DataError:
        wrong = f"{source.name}, {split} images: expected {expected}, found {found}"
        return DataError(f"{wrong}; the raw data are not those of this source: get them anew")

    expected = (source.train if split == "train" else source.test, *source.shape)
    _write_header(file, np.dtype("u1"), expected)
    count = 0
    for images in pieces:
        if images.dtype != np.uint8 or images.shape[1:] != source.shape:
            raise other_data(f"uint8 images of {source.shape}", f"{images.dtype} {images.shape}")
        if images.size and images.max() >= source.levels:
            raise other_data(f"levels 0 to {source.levels - 1}", images.max())
        count += len(images)
        file.write(np.ascontiguousarray(images).reshape(-1).data)
    if count != expected[0]:
        raise other_data(f"{expected[0]} images", count)
    file.flush()


def _write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
