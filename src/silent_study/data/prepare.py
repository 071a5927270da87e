"""Prepare a data set: obtain, verify and write arrays."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from silent_study.data.errors import DataError, enough_space
from silent_study.data.prepared import (
    EVALUATION_NOISE_SEED,
    MANIFEST,
    NOISE,
    NOISE_MANIFEST,
    TEST,
    TRAIN,
    Images,
    Manifest,
    NoiseManifest,
    PreparedData,
    arrays_digest,
    evaluation_noise,
    manifest_of,
    noise_manifest_of,
    open_arrays,
    open_noise,
    write_manifest,
    write_noise_manifest,
)
from silent_study.data.raw import Obtained, Split, obtain
from silent_study.data.source import Source
from silent_study.data.sources import source_named
from silent_study.store.code import reading_code
from silent_study.store.files import atomic_file, touched

RAW = Path("data/raw")  # downloaded raw files, in the layout of a mirror
PREPARED = Path("data/prepared")  # each prepared data set has a folder of its name there


def download(data: str | Source, raw: Path = RAW, mirror: str | None = None) -> Obtained:
    """Find or download a data set's raw files and verify them; see ``raw.obtain``.

    Raises:
        DataError: The data set is unknown, or its raw files cannot be obtained or are altered.
    """
    source = _source(data)
    return obtain(source.name, source.forms, raw, mirror, source.hint)


def prepare(data: str | Source, folder: Path, mirror: str | None = None, raw: Path = RAW) -> Manifest:
    """Write ``train.npy``, ``test.npy`` (uint8 ``[N, C, H, W]``) and, last, ``manifest.json`` into a folder.

    A folder that holds this version of the data set undamaged, by this code, is left as it is. Missing raw files are
    taken from the mirror, a folder or an address, or downloaded to ``raw``. Images are copied batch by batch: memory
    holds at most the images of the largest raw file.

    Raises:
        DataError: The data set is unknown, could not be obtained, or differs from its source's description; or the
            disk is full.
        OSError: The folder cannot be written to.
    """
    source = _source(data)
    description = source.description
    for note in source.notes:
        print(f"{source.name}: {note}", file=sys.stderr, flush=True)
    with suppress(DataError):  # absent, damaged or of another version: it is prepared anew
        present = open_arrays(folder, source.sha256)[2]
        if description.items() <= present.items() and present["reader"] == reading_code()["digest"]:
            return present

    obtained = download(source, raw, mirror)
    size = (source.train + source.test) * math.prod(source.shape)
    with enough_space(folder, size), atomic_file(folder / TRAIN) as train, atomic_file(folder / TEST) as test:
        _write(train, source, "train", obtained.form.read(obtained.root, "train"))
        _write(test, source, "test", obtained.form.read(obtained.root, "test"))
        # Before the files get their names, so that a file of such a name is always verified.
        arrays = (np.load(file.name, mmap_mode="r") for file in (train, test))
        found = arrays_digest(source.name, source.levels, *arrays)
        if source.arrays_sha256 not in (None, found):
            raise DataError(
                f"{source.name}: expected arrays with sha256 {source.arrays_sha256}, found {found}; the raw data are "
                f"not those of this source: {source.remedy}"
            )
    return write_manifest(folder, description, found)


def dequantize(data: str | Source, folder: Path) -> NoiseManifest:
    """Write ``noise.npy``, the dequantization noise of every evaluation, and then ``noise.json`` into a folder.

    Undamaged files of this noise, by this code, are left as they are. The data set need not be prepared yet. Training
    draws fresh noise for each batch instead.

    Raises:
        DataError: The data set is unknown, or the disk is full.
        OSError: The folder cannot be written to.
    """
    source = _source(data)
    shape = (source.test, *source.shape)
    with suppress(DataError):  # absent or damaged: it is written anew
        _, noise = open_noise(folder)
        expected = (source.name, EVALUATION_NOISE_SEED, list(shape), reading_code()["digest"])
        if (noise["name"], noise["seed"], noise["shape"], noise["reader"]) == expected:
            return noise
    with enough_space(folder, 4 * math.prod(shape)), atomic_file(folder / NOISE) as file:
        _write_header(file, np.dtype("<f4"), shape)
        for piece in evaluation_noise(shape):
            file.write(piece.astype("<f4", copy=False).data)
    return write_noise_manifest(folder, source.name, shape)


def opened(data: str | Source, folder: Path, mirror: str | None = None, raw: Path = RAW) -> PreparedData:
    """Open a prepared data set, which is made first where it is missing, damaged or of other data."""
    source = _source(data)
    prepare(source, folder, mirror, raw)
    dequantize(source, folder)
    return PreparedData.open(folder, source.sha256)


def outdated(folder: Path, source: Source) -> list[Path]:
    """Return the manifests in a folder that are damaged, or of other or altered data, or by other code.

    Arrays are read only if they were touched after their manifest. Files that are missing are not looked for.
    """
    shape = [source.test, *source.shape]
    asked: list[tuple[str, list[str], dict[str, Any], Callable[[], Mapping[str, Any]], Callable[[], object]]] = [
        (MANIFEST, [TRAIN, TEST], dict(source.description), lambda: manifest_of(folder), lambda: open_arrays(folder)),
        (NOISE_MANIFEST, [NOISE], {"shape": shape}, lambda: noise_manifest_of(folder), lambda: open_noise(folder)),
    ]
    reader, found = {"reader": reading_code()["digest"]}, []
    for name, arrays, expected, read, verify in asked:
        manifest, files = folder / name, [folder / array for array in arrays]
        if not manifest.exists():
            continue
        try:
            if all(path.exists() for path in files) and max(map(touched, files)) > touched(manifest):
                verify()
            if not (expected | reader).items() <= read().items():
                found.append(manifest)
        except DataError:
            found.append(manifest)
    return found


def _source(data: str | Source) -> Source:
    return source_named(data) if isinstance(data, str) else data


def _write(file: BinaryIO, source: Source, split: Split, pieces: Iterable[Images]) -> None:
    """Write a split as an npy file, piece by piece.

    A memory map would end the process on a full disk instead of raising an error.
    """

    def other_data(expected: str, found: object) -> DataError:
        return DataError(
            f"{source.name}, {split} images: expected {expected}, found {found}; the raw data are not those of this "
            "source: get them anew"
        )

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
