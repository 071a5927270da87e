"""The arrays of a prepared data set and the digest that identifies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
"""Images of integer grey levels, ``[N, C, H, W]``."""


def arrays_digest(name: str, levels: int, train: Images, test: Images) -> str:
    """SHA-256 (64 hexadecimal digits) that identifies a prepared data set.

    What is hashed, in this order: one line of JSON, sorted keys and no spaces, with ``levels``, ``name`` and the full
    shapes ``[N, C, H, W]`` as ``test`` and ``train``; a newline; the bytes of ``train``; the bytes of ``test``, both in
    C order. The shapes hold the counts, so that an image which changes sides changes the digest.

    Args:
        name: Data set.
        levels: Number of grey levels.
        train: Training images ``[N, C, H, W]``.
        test: Test images ``[N, C, H, W]``.
    """
    return digest_of_pieces(name, levels, train.shape, test.shape, (train, test))


def digest_of_pieces(
    name: str, levels: int, train: tuple[int, ...], test: tuple[int, ...], pieces: Iterable[Images]
) -> str:
    """``arrays_digest`` of arrays that come in pieces, first those of the training images.

    Args:
        name: Data set.
        levels: Number of grey levels.
        train: Shape of all training images.
        test: Shape of all test images.
        pieces: Images ``[n, C, H, W]``.
    """
    header = {"name": name, "levels": levels, "train": list(train), "test": list(test)}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    for images in pieces:
        digest.update(np.ascontiguousarray(images, dtype=np.uint8).reshape(-1).data)
    return digest.hexdigest()
