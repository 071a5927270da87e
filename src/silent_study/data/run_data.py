"""What the runs of one pack read: a prepared data set's splits, on the device that trains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from silent_study.data.arrays import Images
from silent_study.data.batches import DeviceBatches, pixel_statistics, with_noise
from silent_study.data.prepared import PreparedData
from silent_study.settings import RunSettings


@dataclass(frozen=True)
class RunData:
    """A prepared data set on a device, for the runs of one pack.

    Attributes:
        batches: Training images.
        mean: [D], mean of the dequantized training images.
        deviation: [D], their standard deviation.
        selection: Dequantized images of the selection split, [N, C, H, W].
        selection_name: ``holdout`` or ``test``.
        report: Dequantized images of the report split.
        train: Dequantized training images, as many as the report split has.
    """

    batches: DeviceBatches
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    selection: Tensor
    selection_name: str
    report: Tensor
    train: Tensor

    @classmethod
    def load(cls, prepared: PreparedData, settings: RunSettings, device: torch.device) -> RunData:
        """Put the splits that ``settings`` ask for on a device."""
        splits = prepared.split(settings.data.protocol, settings.data.holdout)
        mean, deviation = pixel_statistics(splits.train, prepared.levels)

        def evaluated(images: Images) -> Tensor:
            # A mapped array is read-only, which torch.from_numpy warns of; torch.tensor copies.
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
