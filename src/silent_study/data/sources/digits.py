"""Handwritten digits of scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from silent_study.data.errors import DataError
from silent_study.data.prepared import Images
from silent_study.data.raw import Form, Split
from silent_study.data.source import Source

_LEVELS = 17
_TRAIN, _TEST = 1437, 360


def _read(_root: Path, split: Split) -> Iterator[Images]:
    # Training must run where scikit-learn is not installed; only the preparation needs it.
    from sklearn.datasets import load_digits

    values = load_digits().images
    images = values.astype(np.uint8)
    if not np.array_equal(images, values):
        raise DataError("digits: expected whole grey levels, but scikit-learn's load_digits returns others")
    # The file has no split of its own and is sorted by writer: a split by position would train, select and test on
    # different writers. The permutation is part of the data set, pinned by its digest.
    order = np.random.default_rng(0).permutation(len(images))
    images = images[order][:, np.newaxis]
    yield images[:-_TEST] if split == "train" else images[-_TEST:]


DIGITS = Source(
    name="digits",
    title="Digits 8x8",
    version=(
        "test part of the UCI optical recognition of handwritten digits, as in scikit-learn's load_digits; "
        "a fixed permutation, whose last 360 images are the test set"
    ),
    levels=_LEVELS,
    shape=(1, 8, 8),
    train=_TRAIN,
    test=_TEST,
    holdout=237,
    arrays_sha256="acef9a77aa59c4d349eeff7d407f5bdd915c072356c9d07373c0f2b766e3810f",
    forms=(Form(_read),),
)
