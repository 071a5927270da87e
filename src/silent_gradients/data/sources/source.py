"""What a data set must say of itself to be prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from silent_gradients.data.arrays import Images


@dataclass(frozen=True)
class Source:
    """A data set: what it holds, the digest that it must have, and how it is loaded.

    Attributes:
        name: Name in settings, folders and cells, e.g. ``digits``.
        version: Which data these are and how they were split, in words for the reader of a table.
        levels: Number of grey levels; pixels are integers in ``[0, levels)``.
        shape: Image shape ``(C, H, W)``.
        train: Number of training images.
        test: Number of test images.
        holdout: Number of training images that the holdout protocol sets aside by default.
        sha256: ``arrays_digest`` of the prepared arrays.
        load: ``load(mirror)`` gives ``(train, test)``, both uint8 ``[N, C, H, W]``; ``mirror`` is a folder that is
            searched for the raw files before the network is, or ``None``. Raises ``DataError``.
    """

    name: str
    version: str
    levels: int
    shape: tuple[int, int, int]
    train: int
    test: int
    holdout: int
    sha256: str
    load: Callable[[Path | None], tuple[Images, Images]]
