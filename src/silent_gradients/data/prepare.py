"""Prepare a data set: load it, verify it, and write the folder that training reads."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from silent_gradients.data.arrays import Images, arrays_digest
from silent_gradients.data.errors import DataError
from silent_gradients.data.prepared import MANIFEST, TEST, TRAIN, PreparedData
from silent_gradients.data.sources import source_named
from silent_gradients.data.sources.source import Source
from silent_gradients.files import sha256_of, write_bytes_atomically, write_text_atomically


def prepare(name: str, folder: Path, mirror: Path | str | None = None) -> dict[str, Any]:
    """Write ``train.npy``, ``test.npy`` (uint8 ``[N, C, H, W]``) and, last, ``manifest.json`` into a folder.

    A folder that already holds the data set, whole and of this version, is left alone.

    Args:
        name: A registered data set.
        folder: Where to write; made if it is not there.
        mirror: Folder with the raw files, searched before the network is.

    Returns:
        The manifest: name, version, levels, shape, counts, sha256 of the arrays, sha256 of each file.

    Raises:
        DataError: The data set is unknown, cannot be had, or is not the one that its source describes.
        OSError: The folder cannot be written to.
    """
    source = source_named(name)
    description = {
        "name": source.name,
        "version": source.version,
        "levels": source.levels,
        "shape": list(source.shape),
        "counts": {"train": source.train, "test": source.test},
        "sha256": source.sha256,
    }
    present = _present(folder, source)
    if present is not None and {key: present.get(key) for key in description} == description:
        return present

    train, test = source.load(None if mirror is None else Path(mirror))
    _verify(source, train, test)
    for file, images in ((TRAIN, train), (TEST, test)):
        buffer = io.BytesIO()
        np.save(buffer, images)
        write_bytes_atomically(folder / file, buffer.getvalue())
    manifest = {**description, "files": {file: sha256_of(folder / file) for file in (TRAIN, TEST)}}
    write_text_atomically(folder / MANIFEST, json.dumps(manifest, sort_keys=True, indent=1) + "\n")
    return manifest


def _present(folder: Path, source: Source) -> dict[str, Any] | None:
    try:
        return PreparedData.open(folder, source.sha256).manifest
    except DataError:
        # Absent, damaged or of another version: the remedy of each is the preparation that follows.
        return None


def _verify(source: Source, train: Images, test: Images) -> None:
    for split, images, count in (("train", train, source.train), ("test", test, source.test)):
        if images.dtype != np.uint8 or images.shape != (count, *source.shape):
            raise DataError(
                f"{source.name}, {split} images: expected uint8 {(count, *source.shape)}, found {images.dtype} "
                f"{images.shape}; the raw data are not those of this source: get them anew"
            )
        if images.max() >= source.levels:
            raise DataError(
                f"{source.name}, {split} images: expected levels 0 to {source.levels - 1}, found {images.max()}; "
                "the raw data are not those of this source: get them anew"
            )
    found = arrays_digest(source.name, source.levels, train, test)
    if found != source.sha256:
        raise DataError(
            f"{source.name}: expected arrays with sha256 {source.sha256}, found {found}; the raw data are not those of "
            "this source: get them anew, or, if they are meant to be others, pin the new digest in the source"
        )
