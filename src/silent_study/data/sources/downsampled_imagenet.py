"""ImageNet 32x32 (Chrabaszcz et al. 2017) and its stand-in.

A batch holds ``data``, uint8 ``[n, 3072]``: channel by channel (red, green, blue), rows first; so does one of CIFAR-10.
There are ten batches of training images and one of validation images, which is the test set here.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from silent_study.data.errors import DataError
from silent_study.data.prepared import Images
from silent_study.data.raw import Form, RawFile, Split, npz_digest
from silent_study.data.source import Source

_SHAPE = (3, 32, 32)
_BATCHES: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"train_data_batch_{number}" for number in range(1, 11)),
    "test": ("val_data",),
}
_OFFICIAL, _STAND_IN = "imagenet32", "tiny_imagenet32"
_SERVER = "https://image-net.org/data/downsample"
_OTHER_SERVER = "https://storage.googleapis.com/ebm_demo/data/imagenet32"

# MD5 of the pickled batches; four independent projects name the same.
_PICKLES = {
    "train_data_batch_1": "6c4495e65cd24a8c3019857ef9b758ee",
    "train_data_batch_2": "3dd727de4155836807dfc19f98c9fe70",
    "train_data_batch_3": "03d3dc4e850e23e1d526f268a0196296",
    "train_data_batch_4": "876f7e6d6ddb1f52ecb654ffdc8293f6",
    "train_data_batch_5": "c789bcdd1feed34a9bc58598a1a1bf7d",
    "train_data_batch_6": "8ce5344cb1e11f31bc507cae4c856083",
    "train_data_batch_7": "32ecc8ad6c55b1c9cb6cf79a2cc46094",
    "train_data_batch_8": "bdeb6da3d05771121992b48c59c69439",
    "train_data_batch_9": "58417149b5ce31688f805341e7f57b4f",
    "train_data_batch_10": "46ad60a1144aaf97a143914453b0dabb",
    "val_data": "06c02b8b4c8de8b3a36b07859a49de6f",
}
# npz_digest of the stand-in's files.
_STAND_IN_ARRAYS = {
    "train_data_batch_1": "3079ba5556f6e33ef7462fd89b83abbd15cecb573064704bcab486c1d2f3521b",
    "train_data_batch_2": "b3bc67e811ec8cbde78d19d573dc9e98c2b0bd46c1bd1031c148c367bfac5959",
    "train_data_batch_3": "0f72759db82534dc49d28a075c37bf6866bbcda381b39f415dacf2d2533f638e",
    "train_data_batch_4": "68808223dfd2f6a6cbfb9c9b524a3dfb198b96f348954236fb70941d52851286",
    "train_data_batch_5": "5628f4c6fa2a6af5e697c4cc9ec3d3baaebe08cadfabfca7f3d90cdce917cd3d",
    "train_data_batch_6": "a05a94c6531b08fda5c9e830988de39dbf132b3b269bfcf126711687f39594df",
    "train_data_batch_7": "20b2787949013f645ebc088f9e35099b878880398322bb7b0b6804309839c438",
    "train_data_batch_8": "83e6deb221a05cf5f68ef4fd9b5e88a12ff9bf42480fbdd3ba249ca1392ca114",
    "train_data_batch_9": "533b956690ccb11a3b748a0d91ca23ac1805aaf89455e536c2b466d19d89509a",
    "train_data_batch_10": "513d9f3183c018d8c041b4655ff3fbaf472feb3b05af9cf9277742aea5226f3b",
    "val_data": "ee50b6fdb80df30bba57d4df7afb9cf89e435b5522af3e5166d35bc0985a6fa1",
}
_NPZ_ARCHIVES: dict[Split, tuple[str, str]] = {
    "train": ("Imagenet32_train_npz.zip", "94226337ecc1b0309d9fcd0167127aaadc931587035fbcb53925235edbaec4fc"),
    "test": ("Imagenet32_val_npz.zip", "013990e6dec1237dcd1f9beadbab81ead6604cc119af5cacbfb59ae28148377a"),
}
# numpy 2 renamed this module; pickles name either.
_OLD_CORE, _CORE = "numpy.core.", "numpy._core."


class _ArraysOnly(pickle.Unpickler):
    """Unpickler of numbers, texts, containers and numpy arrays alone: nothing else can run code."""

    _ALLOWED = (
        *("numpy.dtype", "numpy.ndarray", "_codecs.encode"),
        *(f"{_CORE}{name}" for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")),
    )

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace(_OLD_CORE, _CORE, 1)
        if f"{module}.{name}" not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it needs {module}.{name}, which no array needs")
        return super().find_class(module, name)


def unpickle_batch(path: Path) -> Images:
    """Read a pickled batch, uint8 ``[n, 3, 32, 32]``; raises ``DataError`` if it is none or needs more than arrays."""
    with path.open("rb") as file:
        try:
            # The encoding of texts in Python 2's pickles; bytes and arrays are unaffected.
            batch = _ArraysOnly(file, encoding="latin1").load()
        except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            raise DataError(f"{path}: expected a pickled batch of images, but {error}") from error
    return _images(batch.get("data") if isinstance(batch, dict) else None, path)


def read_npz_batch(content: bytes, path: Path) -> Images:
    """Read the content of an npz batch, uint8 ``[n, 3, 32, 32]``; raises ``DataError`` with ``path`` if it is none."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            data = arrays["data"] if "data" in arrays.files else None
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: expected an npz batch of images, but {error}") from error
    return _images(data, path)


def _images(data: Any, path: Path) -> Images:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (math.prod(_SHAPE),):
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else "none"
        raise DataError(f"{path}: expected data of uint8 (n, {math.prod(_SHAPE)}), found {found}")
    images: Images = data.reshape(-1, *_SHAPE)
    return images


def _read_pickles(root: Path, split: Split) -> Iterator[Images]:
    for name in _BATCHES[split]:
        yield unpickle_batch(root / _OFFICIAL / name)


def _read_npz_archives(root: Path, split: Split) -> Iterator[Images]:
    path = root / _OFFICIAL / _NPZ_ARCHIVES[split][0]
    with zipfile.ZipFile(path) as archive:
        entries = {PurePosixPath(name).name: name for name in archive.namelist()}
        for name in _BATCHES[split]:
            if f"{name}.npz" not in entries:
                raise DataError(f"{path}: expected {name}.npz in it, found none")
            yield read_npz_batch(archive.read(entries[f"{name}.npz"]), path / f"{name}.npz")


def _read_stand_in(root: Path, split: Split) -> Iterator[Images]:
    for name in _BATCHES[split]:
        path = root / _STAND_IN / f"{name}.npz"
        yield read_npz_batch(path.read_bytes(), path)


def _what_a_mirror_holds_instead(folder: Path) -> str | None:
    """Return a remark on a mirror that holds the stand-in, or files without known digests, for the official set."""
    in_place = folder / _OFFICIAL / "train_data_batch_1.npz"
    if in_place.is_file() and npz_digest(in_place) == _STAND_IN_ARRAYS["train_data_batch_1"]:
        found = f"{in_place} is of {_STAND_IN}, a stand-in and another data set"
    elif in_place.is_file():
        return f"{in_place}: no digests of unpacked npz batches are published; put their two archives there instead"
    elif (folder / _STAND_IN).is_dir():
        found = f"{folder / _STAND_IN} is a stand-in and another data set"
    else:
        return None
    return (
        f"{found}; to run on it, under its own name, set data.substitute: {{{_OFFICIAL}: {_STAND_IN}}} in params.yaml"
    )


IMAGENET32 = Source(
    name=_OFFICIAL,
    title="ImageNet 32x32",
    version=(
        "downsampled ImageNet of Chrabaszcz et al. 2017, all 1,281,167 training images in the order of its batches; "
        "its 50,000 validation images are the test set"
    ),
    levels=256,
    shape=_SHAPE,
    train=1_281_167,
    test=50_000,
    holdout=50_000,
    # No digest of the pixels is published; those of the pickled batches replace it.
    arrays_sha256=None,
    forms=(
        Form(
            _read_pickles,
            tuple(RawFile(f"{_OFFICIAL}/{name}", f"md5:{md5}") for name, md5 in _PICKLES.items()),
            tuple(
                # No digest of these archives is published; their members' digests are verified.
                RawFile(f"{_OFFICIAL}/{name}", None, (f"{_SERVER}/{name}", f"{_OTHER_SERVER}/{name}"))
                for name in ("Imagenet32_train.zip", "Imagenet32_val.zip")
            ),
        ),
        Form(
            _read_npz_archives,
            tuple(
                RawFile(f"{_OFFICIAL}/{name}", f"sha256:{sha256}", (f"{_SERVER}/{name}",))
                for name, sha256 in _NPZ_ARCHIVES.values()
            ),
        ),
    ),
    hint=_what_a_mirror_holds_instead,
)

TINY_IMAGENET32 = Source(
    name=_STAND_IN,
    title="Tiny ImageNet at 32x32",
    version=(
        "a stand-in for ImageNet 32x32: 50,000 training and all 10,000 validation images of Tiny ImageNet (200 "
        "classes), halved from 64x64 by the mean of 2x2 pixels; its bits/dim are not comparable to ImageNet's at 32x32"
    ),
    levels=256,
    shape=_SHAPE,
    train=50_000,
    test=10_000,
    holdout=5_000,
    arrays_sha256="648311a80ede67d78c0f3421c2b3aa5d8450574845367f0361d1b30fe49b997a",
    forms=(
        Form(
            _read_stand_in,
            tuple(RawFile(f"{_STAND_IN}/{name}.npz", f"arrays:{sha256}") for name, sha256 in _STAND_IN_ARRAYS.items()),
        ),
    ),
)
