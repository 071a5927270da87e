"""MNIST (LeCun, Cortes and Burges)."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from silent_study.data.errors import DataError
from silent_study.data.prepared import Images
from silent_study.data.raw import Form, RawFile, Split
from silent_study.data.source import Source

_PUBLISHERS = ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist")
_NAMES: dict[Split, str] = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
_PACKED: dict[Split, str] = {
    "train": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "test": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
}
_PLAIN: dict[Split, str] = {
    "train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
}
# The layout of torchvision.
_FOLDER = "MNIST/raw"


def _read(packed: Mapping[Split, bool], root: Path, split: Split) -> Iterator[Images]:
    path = root / _FOLDER / (f"{_NAMES[split]}.gz" if packed[split] else _NAMES[split])
    try:
        content = gzip.decompress(path.read_bytes()) if packed[split] else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected a gzip file that can be unpacked, but {error}") from error
    # A magic number and three sizes of four bytes come before the pixels.
    yield np.frombuffer(content, np.uint8, offset=16).reshape(-1, 1, 28, 28)


def _form(train: bool, test: bool) -> Form:
    packed: dict[Split, bool] = {"train": train, "test": test}
    files = []
    for split, is_packed in packed.items():
        name = f"{_NAMES[split]}.gz" if is_packed else _NAMES[split]
        # Downloaded in one form alone.
        urls = tuple(f"{address}/{name}" for address in _PUBLISHERS) if train and test else ()
        files.append(RawFile(f"{_FOLDER}/{name}", f"sha256:{(_PACKED if is_packed else _PLAIN)[split]}", urls))
    return Form(partial(_read, packed), tuple(files))


MNIST = Source(
    name="mnist",
    title="MNIST",
    version="MNIST, the official files in their order; the official test set",
    levels=256,
    shape=(1, 28, 28),
    train=60_000,
    test=10_000,
    holdout=10_000,
    arrays_sha256="0267f95943f7eebe3847446455847eb1924646f4182b4b3326895aa7563fdbe2",
    # Both packed, both plain, or one of each.
    forms=(_form(True, True), _form(False, False), _form(True, False), _form(False, True)),
)
