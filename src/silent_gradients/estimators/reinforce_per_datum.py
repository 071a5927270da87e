"""REINFORCE with a running average of the objective per training image as baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from silent_gradients.estimators.contract import EstimatorError, State, register
from silent_gradients.estimators.reinforce import Reinforce


@register
@dataclass(frozen=True)
class ReinforcePerDatum(Reinforce):
    """Score-function gradient whose baseline is the running average of the image's own earlier values.

    Images differ more from each other than the samples of one do. An image that was not seen before, or that is from
    elsewhere (``index`` None), has the baseline of ``reinforce``.

    Attributes:
        image_decay: Decay of an image's average from visit to visit, in [0, 1). An epoch lies between two visits, in
            which the model changes: a long memory would lag behind it.
    """

    image_decay: float = 0.5

    name = "reinforce-per-datum"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.image_decay < 1:
            raise EstimatorError(f"image_decay: expected a number in [0, 1), got {self.image_decay}")

    def initial_state(self, device: torch.device, images: int = 0) -> State:
        return super().initial_state(device, images) | {
            "image_average": torch.zeros(images, device=device),
            "image_weight": torch.zeros(images, device=device),
        }

    def baseline(self, observed: Tensor, expected: Tensor, index: Tensor | None, state: State) -> tuple[Tensor, State]:
        baseline, updated = super().baseline(observed, expected, index, state)
        if index is None:
            return baseline, updated
        if index.shape != observed.shape[1:]:
            raise EstimatorError(f"index: expected shape {list(observed.shape[1:])}, got {list(index.shape)}")
        averages, weights = self.entry(state, "image_average"), self.entry(state, "image_weight")
        if not len(averages):
            raise EstimatorError("images: 'reinforce-per-datum' with an index needs initial_state(device, images)")
        decay, average, weight = self.image_decay, averages[index], weights[index]
        baseline = torch.where(weight > 0, average / weight.clamp(min=1 - decay), baseline)
        average = decay * average + (1 - decay) * observed.mean(0).to(average.dtype)
        return baseline, updated | {
            "image_average": averages.index_copy(0, index, average),
            "image_weight": weights.index_copy(0, index, decay * weight + (1 - decay)),
        }
