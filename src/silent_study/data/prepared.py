"""The format of a prepared data set.

Needs numpy and the standard library alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from silent_study.data.errors import DataError
from silent_study.settings import Protocol, digest
from silent_study.store.code import reading_code
from silent_study.store.files import sha256_of
from silent_study.store.runs import write_json

Images = NDArray[np.uint8]  # integer grey levels, [N, C, H, W]
Noise = NDArray[np.float32]  # of dequantization, in [0, 1), [M, C, H, W]

TRAIN, TEST, MANIFEST = "train.npy", "test.npy", "manifest.json"
NOISE, NOISE_MANIFEST = "noise.npy", "noise.json"
"""The files of a prepared data set's folder."""

EVALUATION_NOISE_SEED = 20_260_101
"""Seed of the evaluation noise, the same for all runs, so that two bounds differ by their models alone."""

ARRAYS = {MANIFEST: (TRAIN, TEST), NOISE_MANIFEST: (NOISE,)}
"""The arrays beside a manifest."""


class Description(TypedDict):
    """The part of a manifest that is known before the images are read; see ``Source``."""

    name: str
    title: str
    version: str
    levels: int
    shape: list[int]
    counts: dict[str, int]  # images by split
    sha256: str


class Manifest(Description):
    """``manifest.json``."""

    arrays_sha256: str
    files: dict[str, str]  # SHA-256 by name of the arrays
    reader: str  # digest of the code that prepared it, see ``store.code.reading_code``
    seal: str  # digest of all other entries


class NoiseManifest(TypedDict):
    """``noise.json``: ``shape`` is ``[M, C, H, W]``; other entries as in ``Manifest``."""

    name: str
    seed: int
    shape: list[int]
    files: dict[str, str]
    reader: str
    seal: str


_VERBS: dict[str, tuple[str, type]] = {MANIFEST: ("prepare", Manifest), NOISE_MANIFEST: ("dequantize", NoiseManifest)}
"""The verb that writes a manifest, and the type of its content."""


@dataclass(frozen=True, eq=False)
class Splits:
    """The three parts that a run reads, each uint8 ``[N, C, H, W]``."""

    train: Images
    selection: Images  # to select runs and settings on
    report: Images  # for the reported numbers


@dataclass(frozen=True, eq=False)
class PreparedData:
    """A prepared data set, its arrays read-only and mapped from their files; ``open`` makes it."""

    train: Images
    test: Images
    noise: Noise  # of evaluations
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path, expected_sha256: str | None = None) -> PreparedData:
        """Verify every file of a folder that ``prepare`` and ``dequantize`` wrote, and map the arrays.

        Raises ``DataError`` if a file is missing or altered, or of another digest than ``expected_sha256``, if given.
        """
        train, test, manifest = open_arrays(folder, expected_sha256)
        noise, found = open_noise(folder)
        if noise.shape[1:] != train.shape[1:]:
            wrong = f"{folder / NOISE}: expected the noise of {manifest['name']}, found that of {found['name']}"
            raise DataError(f"{wrong}; {_remedy('dequantize', manifest['name'])}")
        return cls(train, test, noise, manifest)

    def noise_of(self, images: int) -> Noise:
        """Return the noise of the first ``images`` of any split; it repeats from the first past its end."""
        return np.array(self.noise[np.arange(images) % len(self.noise)])

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.manifest["name"]

    @property
    def levels(self) -> int:
        """Number of grey levels; pixels are integers in ``[0, levels)``."""
        return self.manifest["levels"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Image shape ``(C, H, W)``."""
        channels, height, width = self.manifest["shape"]
        return channels, height, width

    @property
    def sha256(self) -> str:
        """Digest that identifies the data set in the settings of runs (``Source.sha256``)."""
        return self.manifest["sha256"]

    def split(self, protocol: Protocol, holdout: int) -> Splits:
        """Return the parts that a protocol trains, selects and reports on.

        Args:
            protocol: ``holdout`` selects on the last ``holdout`` training images and reports on the test images;
                ``paper`` trains on all training images, and selects and reports on the test images.
            holdout: Number of images; ``paper`` ignores it.

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


def arrays_digest(name: str, levels: int, train: Images, test: Images) -> str:
    """Return the SHA-256 (64 hexadecimal digits) that identifies a prepared data set.

    Hashed are, in this order: one line of JSON, sorted keys and no spaces, with ``levels``, ``name`` and the full
    shapes ``[N, C, H, W]`` as ``test`` and ``train``; a newline; the bytes of ``train``; the bytes of ``test``, both in
    C order. The shapes hold the counts, so that an image that moves to the other split changes the digest.
    """
    return digest_of_pieces(name, levels, train.shape, test.shape, (train, test))


def digest_of_pieces(
    name: str, levels: int, train: tuple[int, ...], test: tuple[int, ...], pieces: Iterable[Images]
) -> str:
    """Return the ``arrays_digest`` of images that come in pieces ``[n, C, H, W]``, the training images first.

    ``train`` and ``test`` are the shapes of all images of a split.
    """
    header = {"name": name, "levels": levels, "train": list(train), "test": list(test)}
    hashed = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    for images in pieces:
        hashed.update(np.ascontiguousarray(images, dtype=np.uint8).reshape(-1).data)
    return hashed.hexdigest()


def evaluation_noise(
    shape: tuple[int, ...], images_at_once: int = 1024, seed: int = EVALUATION_NOISE_SEED
) -> Iterator[Noise]:
    """Draw the dequantization noise ``(M, C, H, W)`` of evaluations, the same on every machine and with every numpy.

    The draw of the n-th image depends on its position and on the seed alone, not on the number of images. It is the
    low 24 bits of the Mersenne twister's draws: numpy has frozen that stream for good, and torch's CPU generator has
    the same.

    Yields:
        The noise in pieces, float32 ``[m, C, H, W]`` in ``[0, 1)``.
    """
    twister = np.random.RandomState(seed)
    for start in range(0, shape[0], images_at_once):
        piece = (min(images_at_once, shape[0] - start), *shape[1:])
        draws = twister.randint(0, 2**32, piece, dtype=np.uint32) & 0xFFFFFF
        yield draws.astype(np.float32) * np.float32(2.0**-24)


def open_arrays(folder: Path, expected_sha256: str | None = None) -> tuple[Images, Images, Manifest]:
    """Return the verified training and test images of a folder and its manifest; see ``PreparedData.open``."""
    manifest = manifest_of(folder, expected_sha256)
    counts, shape = manifest["counts"], manifest["shape"]
    shapes = [[counts["train"], *shape], [counts["test"], *shape]]
    train, test = _open_beside(folder / MANIFEST, manifest, shapes)
    return train, test, manifest


def open_noise(folder: Path) -> tuple[Noise, NoiseManifest]:
    """Return the verified evaluation noise of a folder and its manifest; see ``PreparedData.open``."""
    manifest: NoiseManifest = read_manifest(folder / NOISE_MANIFEST)
    (noise,) = _open_beside(folder / NOISE_MANIFEST, manifest, [manifest["shape"]])
    return noise, manifest


def manifest_of(folder: Path, expected_sha256: str | None = None) -> Manifest:
    """Read the manifest of a prepared data set without its arrays; for the arguments see ``PreparedData.open``."""
    manifest: Manifest = read_manifest(folder / MANIFEST)
    if expected_sha256 not in (None, manifest["sha256"]):
        name, found = manifest["name"], manifest["sha256"]
        remedy = f"{_remedy('prepare', name)}, or plan again if the data set was changed on purpose"
        raise DataError(f"{folder}: expected {name} with sha256 {expected_sha256}, found {found}; {remedy}")
    return manifest


def write_manifest(path: Path, **entries: Any) -> Any:
    """Write a manifest with some entries, the digests of the arrays beside it, that of the code, and the seal."""
    files = {file: sha256_of(path.with_name(file)) for file in ARRAYS[path.name]}
    manifest = sealed({**entries, "files": files, "reader": reading_code()["digest"]})
    write_json(path, manifest)
    return manifest


def sealed(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with the digest of its entries under ``seal``, which reveals a later change."""
    return {**entries, "seal": digest(dict(entries))}


def _open_beside(manifest_path: Path, manifest: Mapping[str, Any], shapes: list[list[int]]) -> list[Any]:
    """Return the verified arrays beside a manifest, which have these shapes."""
    remedy, arrays = _remedy(_VERBS[manifest_path.name][0], manifest["name"]), []
    for file in ARRAYS[manifest_path.name]:
        path, expected = manifest_path.with_name(file), manifest["files"].get(file)
        if not path.is_file():
            raise DataError(f"{path}: expected an array, found none; {remedy}")
        if (found := sha256_of(path)) != expected:
            raise DataError(f"{path}: expected sha256 {expected}, found {found}; {remedy}")
        arrays.append(np.load(path, mmap_mode="r"))
    if [list(array.shape) for array in arrays] != shapes:
        raise DataError(f"{manifest_path}: it describes other arrays than those beside it; {remedy}")
    return arrays


def read_manifest(path: Path) -> Any:
    """Read a manifest without its arrays; raises ``DataError`` if it is missing or altered."""
    verb, kind = _VERBS[path.name]
    expected = set(kind.__annotations__)
    # The manifest that holds the data set's name cannot be read; by convention the folder bears that name.
    remedy = _remedy(verb, path.parent.name)
    if not path.is_file():
        if not any(path.with_name(file).exists() for file in ARRAYS[path.name]):
            remedy = _remedy(verb, path.parent.name, "first")
        raise DataError(f"{path}: expected the manifest of a prepared data set, found none; {remedy}")
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: expected a manifest in JSON, but {error}; {remedy}") from error
    if not isinstance(manifest, dict) or set(manifest) != expected:
        raise DataError(f"{path}: expected a manifest with {', '.join(sorted(expected))}; {remedy}")
    if sealed({key: value for key, value in manifest.items() if key != "seal"}) != manifest:
        raise DataError(f"{path}: expected a manifest as it was written, found an altered one; {remedy}")
    return manifest


def _remedy(verb: str, name: str, when: str = "again") -> str:
    return f"{verb} it {when}: silent-gradients {verb} {name}"
