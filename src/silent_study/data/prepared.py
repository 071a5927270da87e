"""A prepared data set, verified before anyone reads it. Needs numpy and the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from silent_study.data.arrays import Images
from silent_study.data.errors import DataError
from silent_study.data.evaluation_noise import Noise
from silent_study.settings import Protocol, digest
from silent_study.store.files import sha256_of

TRAIN, TEST, MANIFEST = "train.npy", "test.npy", "manifest.json"
NOISE, NOISE_MANIFEST = "noise.npy", "noise.json"
"""The files of a prepared data set's folder."""

_WRITTEN = {"prepare": (TRAIN, TEST), "dequantize": (NOISE,)}
"""The arrays that a verb writes beside its manifest."""

SEAL = "seal"
"""Key of a manifest under which the digest of all its other entries stands."""


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
        noise: Dequantization noise of evaluations, float32 ``[M, C, H, W]`` in ``[0, 1)``, mapped likewise.
        manifest: The manifest as it was written by ``prepare``.
    """

    train: Images
    test: Images
    noise: Noise
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, expected_sha256: str | None = None) -> PreparedData:
        """Verify every file of a folder against its manifests and map the arrays.

        Args:
            folder: A folder that ``prepare`` and ``dequantize`` wrote.
            expected_sha256: The digest that the caller's settings name; ``None`` takes what is there.

        Raises:
            DataError: A file is missing, truncated or altered, or these are other data than the expected ones.
        """
        train, test, manifest = open_arrays(folder, expected_sha256)
        noise, found = open_noise(folder)
        if noise.shape[1:] != train.shape[1:]:
            raise DataError(
                f"{folder / NOISE}: expected the noise of {manifest['name']}, found that of {found['name']}; "
                f"{_remedy('dequantize', manifest['name'])}"
            )
        return cls(train, test, noise, manifest)

    def noise_of(self, images: int) -> Noise:
        """The noise of the first ``images`` of any split; it begins anew for those past its end."""
        return np.array(self.noise[np.arange(images) % len(self.noise)])

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


def open_arrays(folder: Path, expected_sha256: str | None = None) -> tuple[Images, Images, dict[str, Any]]:
    """The training and test images of a folder, mapped and verified, and its manifest; see ``PreparedData.open``."""
    manifest = manifest_of(folder)
    remedy = _remedy("prepare", manifest["name"])
    train, test = (_open_array(folder / file, manifest["files"].get(file), remedy) for file in (TRAIN, TEST))
    stated = [[manifest["counts"][part], *manifest["shape"]] for part in ("train", "test")]
    if [list(train.shape), list(test.shape)] != stated:
        raise DataError(f"{folder / MANIFEST}: it describes other arrays than those beside it; {remedy}")
    if expected_sha256 not in (None, manifest["sha256"]):
        raise DataError(
            f"{folder}: expected {manifest['name']} with sha256 {expected_sha256}, found {manifest['sha256']}; "
            f"{remedy}, or plan again if the data set was changed on purpose"
        )
    return train, test, manifest


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared data set as it was written; its arrays are not looked at.

    Raises:
        DataError: It is missing or altered.
    """
    described = {"name", "title", "version", "levels", "shape", "counts", "sha256", "arrays_sha256", "files"}
    return _read_manifest(folder / MANIFEST, described, "prepare")


def noise_manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of the evaluations' noise, likewise."""
    return _read_manifest(folder / NOISE_MANIFEST, {"name", "seed", "shape", "sha256"}, "dequantize")


def open_noise(folder: Path) -> tuple[Noise, dict[str, Any]]:
    """The evaluations' noise in a folder, mapped and verified, and its manifest; see ``PreparedData.open``."""
    manifest = noise_manifest_of(folder)
    remedy = _remedy("dequantize", manifest["name"])
    noise = _open_array(folder / NOISE, manifest["sha256"], remedy)
    if list(noise.shape) != manifest["shape"]:
        raise DataError(f"{folder / NOISE_MANIFEST}: it describes other noise than that beside it; {remedy}")
    return noise, manifest


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the digest of its entries, by which an altered one is found."""
    return {**manifest, SEAL: digest(dict(manifest))}


def _open_array(path: Path, expected: str | None, remedy: str) -> Any:
    if not path.is_file():
        raise DataError(f"{path}: expected an array, found none; {remedy}")
    if (found := sha256_of(path)) != expected:
        raise DataError(f"{path}: expected sha256 {expected}, found {found}; {remedy}")
    return np.load(path, mmap_mode="r")


def _read_manifest(path: Path, expected: set[str], verb: str) -> dict[str, Any]:
    # The folder bears the data set's name by convention, and the manifest that would say it cannot be read.
    remedy = _remedy(verb, path.parent.name)
    if not path.is_file():
        cut_short = any((path.parent / file).exists() for file in _WRITTEN[verb])
        way_out = remedy if cut_short else _remedy(verb, path.parent.name, "first")
        raise DataError(f"{path}: expected the manifest of a prepared data set, found none; {way_out}")
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: expected a manifest in JSON, but {error}; {remedy}") from error
    if not isinstance(manifest, dict) or set(manifest) != {*expected, SEAL}:
        raise DataError(f"{path}: expected a manifest with {', '.join(sorted(expected))}; {remedy}")
    if sealed({key: value for key, value in manifest.items() if key != SEAL}) != manifest:
        raise DataError(f"{path}: expected a manifest as it was written, found an altered one; {remedy}")
    return manifest


def _remedy(verb: str, name: str, when: str = "again") -> str:
    return f"{verb} it {when}: silent-gradients {verb} {name}"
