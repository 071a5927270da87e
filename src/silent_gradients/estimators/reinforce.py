"""REINFORCE with a running average of the objective as baseline (Williams 1992; paper, Appendix B.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from silent_gradients.estimators.contract import EstimatorError, State, register
from silent_gradients.estimators.score_function import ScoreFunction


@register
@dataclass(frozen=True)
class Reinforce(ScoreFunction):
    """Score-function gradient whose baseline is the objective's running average over images and steps.

    The baseline is the running average *before* it takes in the current batch, so that it is independent of the
    samples it is subtracted from. The first step has no average yet and uses each image's batch-mates.

    Attributes:
        decay: Decay of the running average, in [0, 1).
    """

    decay: float = 0.99

    name = "reinforce"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < 1:
            raise EstimatorError(f"decay: expected a number in [0, 1), got {self.decay}")

    def initial_state(self, device: torch.device, images: int = 0) -> State:
        zero = torch.zeros((), device=device)
        return super().initial_state(device, images) | {"average": zero, "weight": zero.clone()}

    def baseline(self, observed: Tensor, expected: Tensor, index: Tensor | None, state: State) -> tuple[Tensor, State]:
        per_image = observed.mean(0)
        # ``weight`` is 1 - decay^steps: dividing by it takes out the average's start at zero.
        batch_mates = (per_image.sum() - per_image) / max(len(per_image) - 1, 1)
        average, weight = self.entry(state, "average"), self.entry(state, "weight")
        baseline = torch.where(weight > 0, average / weight.clamp(min=1 - self.decay), batch_mates)
        return baseline, state | {
            "average": self.decay * average + (1 - self.decay) * observed.mean().to(average.dtype),
            "weight": self.decay * weight + (1 - self.decay),
        }
