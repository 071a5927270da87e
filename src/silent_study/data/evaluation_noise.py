"""The dequantization noise that every evaluation uses. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

EVALUATION_NOISE_SEED = 20_260_101
"""Seed of the noise, the same in every evaluation, so that numbers of two runs differ by the runs alone."""

Noise = NDArray[np.float32]
"""Noise in ``[0, 1)``, ``[M, C, H, W]``."""


def evaluation_noise(
    shape: tuple[int, ...], images_at_once: int = 1024, seed: int = EVALUATION_NOISE_SEED
) -> Iterator[Noise]:
    """Uniform noise: one draw per image, the same on every machine and with every version of anything.

    The draw of the n-th image depends on its position and on the seed alone, not on how many follow. It is the low 24
    bits of the Mersenne twister's draws: numpy has frozen that stream for good, and torch's CPU generator has the same.

    Args:
        shape: ``(M, C, H, W)``.
        images_at_once: Images per piece.
        seed: Seed.

    Yields:
        The noise in pieces, float32 ``[m, C, H, W]`` in ``[0, 1)``.
    """
    twister = np.random.RandomState(seed)
    for start in range(0, shape[0], images_at_once):
        piece = (min(images_at_once, shape[0] - start), *shape[1:])
        draws = twister.randint(0, 2**32, piece, dtype=np.uint32) & 0xFFFFFF
        yield draws.astype(np.float32) * np.float32(2.0**-24)
