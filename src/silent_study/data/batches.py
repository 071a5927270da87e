"""Batches dequantized on the device; the splits of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from silent_study.data.prepared import Images, PreparedData
from silent_study.settings import RunSettings

# Float32 rounds y + u and its quotient: without a margin 255.99999 / 256 becomes 1, and other values slip into the
# neighbouring level. 2^-14 of a level exceeds both roundings for every y < 256 and every number of levels, also where
# a device divides by multiplying with the reciprocal, and changes the noise's variance by less than one in 10^7.
_MARGIN = 2.0**-14


def dequantize(images: Tensor, levels: int, generator: torch.Generator) -> Tensor:
    """Spread integer levels over ``[0, 1)``: ``x = (y + u) / levels`` with a fresh ``u ~ U[0, 1)`` per pixel.

    Each x lies strictly inside its level's interval ``(y / levels, (y + 1) / levels)``, so that
    ``-log p(y) <= -E log p(x) + D log(levels)`` holds.

    Images are uint8 of any shape; the result is float32 of that shape. ``generator`` is on the images' device.
    """
    noise = torch.rand(images.shape, generator=generator, device=images.device, dtype=torch.float32)
    return with_noise(images, levels, noise)


def with_noise(images: Tensor, levels: int, noise: Tensor) -> Tensor:
    """Dequantize with a given u, float32 in ``[0, 1]``, of the images' shape; the result overwrites ``noise``."""
    return noise.clamp_(_MARGIN, 1.0 - _MARGIN).add_(images).div_(levels)


def pixel_statistics(train: Images, levels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean ``[D]`` and standard deviation ``[D]`` of each pixel of dequantized images ``[N, C, H, W]``.

    Both are on the scale of x. The noise is integrated out: the mean is ``(E y + 1/2) / levels``, the variance over the
    population is ``Var y / levels^2 + 1 / (12 levels^2)``. Hence no standard deviation is below
    ``1 / (levels sqrt(12))``.
    """
    pixels = train.reshape(len(train), -1)
    total = np.zeros(pixels.shape[1], dtype=np.int64)
    squares = np.zeros_like(total)
    # Integer sums are exact, so a constant pixel has no variance but the noise's; pieces bound the memory.
    for start in range(0, len(pixels), 8192):
        piece = pixels[start : start + 8192].astype(np.int64)
        total += piece.sum(axis=0)
        squares += (piece**2).sum(axis=0)
    count = len(pixels)
    variance = (count * squares - total**2) / count**2
    return (total / count + 0.5) / levels, np.sqrt(variance + 1 / 12) / levels


class DeviceBatches:
    """A whole data set, levels uint8 ``[N, C, H, W]``, on one device, and its batches.

    A data loader's workers, copies and synchronisations cost more than a small network's step; the whole set as uint8
    fits the device instead (ImageNet at 32x32: 3.9 GB).
    """

    def __init__(self, images: Images, levels: int, device: torch.device | str) -> None:
        self.levels = levels
        self.device = torch.device(device)
        self.images = torch.tensor(images, device=self.device)

    def __len__(self) -> int:
        return len(self.images)

    def number_of_batches(self, batch_size: int) -> int:
        """Return the number of full batches of an epoch; fewer images than ``batch_size`` (1 or more) are one batch."""
        if batch_size < 1:
            raise ValueError(f"expected a batch size of at least 1, found {batch_size}")
        return len(self) // min(batch_size, len(self))

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the positions of all images in random order, int64 ``[N]``; ``generator`` is on the images' device."""
        return torch.randperm(len(self), generator=generator, device=self.device)

    def at(self, index: Tensor, noise: torch.Generator) -> Tensor:
        """Return the images at positions int64 ``[B]`` with fresh dequantization noise: float32 ``[B, C, H, W]``.

        The host does not wait for the device, which ``noise`` draws on as well.
        """
        return dequantize(self.images.index_select(0, index), self.levels, noise)


@dataclass(frozen=True)
class RunData:
    """The splits of a prepared data set on a device, for the runs of one pack.

    ``batches`` are the training images, ``mean`` and ``deviation`` their ``pixel_statistics``. The other splits are
    dequantized, ``[N, C, H, W]``; ``train`` has as many training images as ``report`` has images.
    """

    batches: DeviceBatches
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    selection: Tensor
    selection_name: Literal["holdout", "test"]
    report: Tensor
    train: Tensor

    @classmethod
    def load(cls, prepared: PreparedData, settings: RunSettings, device: torch.device) -> RunData:
        """Load the splits of the settings' protocol onto a device."""
        splits = prepared.split(settings.data.protocol, settings.data.holdout)
        mean, deviation = pixel_statistics(splits.train, prepared.levels)

        def evaluated(images: Images) -> Tensor:
            # torch.tensor copies: torch.from_numpy warns that a mapped array is read-only.
            noise = torch.from_numpy(prepared.noise_of(len(images)))
            return with_noise(torch.tensor(images), prepared.levels, noise).to(device)

        return cls(
            batches=DeviceBatches(splits.train, prepared.levels, device),
            mean=mean,
            deviation=deviation,
            selection=evaluated(splits.selection),
            selection_name="holdout" if settings.data.protocol == "holdout" else "test",
            report=evaluated(splits.report),
            train=evaluated(splits.train[: len(splits.report)]),
        )
