"""CIFAR-10 (Krizhevsky 2009)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from silent_study.data.prepared import Images
from silent_study.data.raw import Form, RawFile, Split
from silent_study.data.source import Source

# The layout of torchvision.
_FOLDER = "cifar-10-batches-py"
_FILES = {
    "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
    "batches.meta": "f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb",
}


def _read(root: Path, split: Split) -> Iterator[Images]:
    # Training must run where torchvision is not installed; only the preparation needs it.
    from torchvision.datasets import CIFAR10

    # torchvision unpickles without restriction, which is safe here: the files' SHA-256 are the official ones.
    yield CIFAR10(root, train=split == "train").data.transpose(0, 3, 1, 2)


CIFAR10 = Source(
    name="cifar10",
    title="CIFAR-10",
    version="CIFAR-10, the official Python batches in their order; the official test set",
    levels=256,
    shape=(3, 32, 32),
    train=50_000,
    test=10_000,
    holdout=5_000,
    arrays_sha256="7ebd795c1e3bc9088a50c7e14e096e3b98db5d1766f4d971e36c81bd8fb9660c",
    forms=(
        Form(
            _read,
            tuple(RawFile(f"{_FOLDER}/{name}", f"sha256:{sha256}") for name, sha256 in _FILES.items()),
            (
                RawFile(
                    "cifar-10-python.tar.gz",
                    "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                    (
                        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/cifar-10-python.tar.gz",
                    ),
                ),
            ),
        ),
    ),
)
