"""The registry of data sets. A new one is one more file here and one more line below; see docs/add-a-data-set.md."""

from __future__ import annotations

from silent_gradients.data.errors import DataError
from silent_gradients.data.sources.cifar10 import CIFAR10
from silent_gradients.data.sources.digits import DIGITS
from silent_gradients.data.sources.downsampled_imagenet import IMAGENET32, TINY_IMAGENET32
from silent_gradients.data.sources.mnist import MNIST
from silent_gradients.data.sources.source import Source

SOURCES: dict[str, Source] = {source.name: source for source in (DIGITS, MNIST, CIFAR10, IMAGENET32, TINY_IMAGENET32)}


def source_named(name: str) -> Source:
    """The source of that name.

    Raises:
        DataError: There is none; the message lists those that there are.
    """
    if name not in SOURCES:
        raise DataError(f"unknown data set {name!r}: expected one of {', '.join(sorted(SOURCES))}")
    return SOURCES[name]
