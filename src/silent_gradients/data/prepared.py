"""A prepared data set, verified before anyone reads it. Needs numpy and the standard library alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from silent_gradients.data.arrays import Images, arrays_digest
from silent_gradients.data.errors import DataError
from silent_gradients.files import sha256_of
from silent_gradients.settings import Protocol

TRAIN, TEST, MANIFEST = "train.npy", "test.npy", "manifest.json"
"""The files of a prepared data set's folder."""


@dataclass(frozen=True, eq=False)
class Splits:
    """The three parts that a run reads, each uint8 ``[N, C, H, W]``.

    Attributes:
        train: Trains.
        selection: Selects among runs and settings.
        report: Is read once, for the reported numbers.
    """

    train: Images
    selection: Images
    report: Images


@dataclass(frozen=True, eq=False)
class PreparedData:
    """A prepared data set; ``open`` makes it.

    Attributes:
        train: Training images, uint8 ``[N, C, H, W]``, read-only, mapped from the file.
        test: Test images, likewise.
        manifest: The manifest as it was written by ``prepare``.
    """

    train: Images
    test: Images
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, expected_sha256: str | None = None) -> PreparedData:
        """Verify every file of a folder against its manifest and map the arrays.

        Args:
            folder: A folder that ``prepare`` wrote.
            expected_sha256: The arrays' digest that the caller's settings name; ``None`` takes what is there.

        Raises:
            DataError: A file is missing, truncated or altered, or these are other data than the expected ones.
        """
        manifest = _read_manifest(folder)
        remedy = f"prepare it again: silent-gradients prepare {manifest['name']}"
        for file in (TRAIN, TEST):
            path = folder / file
            if not path.is_file():
                raise DataError(f"{path}: expected a prepared array, found none; {remedy}")
            expected, found = manifest["files"][file], sha256_of(path)
            if found != expected:
                raise DataError(f"{path}: expected sha256 {expected}, found {found}; {remedy}")
        train, test = (np.load(folder / file, mmap_mode="r") for file in (TRAIN, TEST))
        # The files' digests do not cover the name, the levels and the counts that the manifest states; this does.
        found = arrays_digest(manifest["name"], manifest["levels"], train, test)
        stated = [[manifest["counts"][part], *manifest["shape"]] for part in ("train", "test")]
        if found != manifest["sha256"] or [list(train.shape), list(test.shape)] != stated:
            raise DataError(f"{folder / MANIFEST}: it describes other arrays than those beside it; {remedy}")
        if expected_sha256 not in (None, found):
            raise DataError(
                f"{folder}: expected {manifest['name']} with sha256 {expected_sha256}, found {found}; {remedy}, "
                "or plan again if the data set was changed on purpose"
            )
        return cls(train, test, manifest)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return str(self.manifest["name"])

    @property
    def levels(self) -> int:
        """Number of grey levels; pixels are integers in ``[0, levels)``."""
        return int(self.manifest["levels"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Image shape ``(C, H, W)``."""
        channels, height, width = self.manifest["shape"]
        return channels, height, width

    @property
    def sha256(self) -> str:
        """Digest of the arrays (``arrays_digest``)."""
        return str(self.manifest["sha256"])

    def split(self, protocol: Protocol, holdout: int) -> Splits:
        """The parts that a protocol trains, selects and reports on.

        Args:
            protocol: ``holdout`` sets the last ``holdout`` training images aside to select on, and reports on the test
                images; ``paper`` trains on all training images, and selects and reports on the test images.
            holdout: Number of images; ``paper`` does not read it.

        Raises:
            DataError: Unknown protocol, or a holdout that leaves nothing to train or to select on.
        """
        if protocol == "paper":
            return Splits(self.train, self.test, self.test)
        if protocol != "holdout":
            raise DataError(f"unknown protocol {protocol!r}: expected holdout or paper")
        images = len(self.train)
        if not 0 < holdout < images:
            raise DataError(f"{self.name}: expected a holdout of 1 to {images - 1} training images, found {holdout}")
        return Splits(self.train[: images - holdout], self.train[images - holdout :], self.test)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    # The folder bears the data set's name by convention, and the manifest that would say it cannot be read.
    remedy = f"prepare it: silent-gradients prepare {folder.name}"
    if not path.is_file():
        raise DataError(f"{path}: expected the manifest of a prepared data set, found none; {remedy}")
    try:
        manifest = json.loads(path.read_bytes())
        expected = {"name", "version", "levels", "shape", "counts", "sha256", "files"}
        complete = set(manifest) == expected
        complete = complete and set(manifest["files"]) == {TRAIN, TEST} and set(manifest["counts"]) == {"train", "test"}
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: expected a manifest in JSON, but {error}; {remedy}") from error
    if not complete:
        raise DataError(f"{path}: expected a manifest with {', '.join(sorted(expected))}; {remedy}")
    return dict(manifest)
