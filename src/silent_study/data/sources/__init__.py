"""The registry of data sets."""

from __future__ import annotations

from collections.abc import Sequence

from silent_study.data.errors import DataError
from silent_study.data.source import Source
from silent_study.data.sources.cifar10 import CIFAR10
from silent_study.data.sources.digits import DIGITS
from silent_study.data.sources.downsampled_imagenet import IMAGENET32, TINY_IMAGENET32
from silent_study.data.sources.mnist import MNIST
from silent_study.words import did_you_mean

SOURCES: dict[str, Source] = {source.name: source for source in (DIGITS, MNIST, CIFAR10, IMAGENET32, TINY_IMAGENET32)}


def source_named(name: str, others: Sequence[str] = ()) -> Source:
    """Return the source of a name; raises ``DataError`` that lists the known names and ``others``."""
    if name not in SOURCES:
        known = sorted({*SOURCES, *others})
        raise DataError(f"unknown data set {name!r}{did_you_mean(name, known)}: expected one of {', '.join(known)}")
    return SOURCES[name]
