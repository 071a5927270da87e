"""REINFORCE with a running average of the objective as baseline (Williams 1992; paper, Appendix B.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from silent_gradients.decoders.likelihood import ExactObjective, Objective
from silent_gradients.estimators.contract import Estimate, EstimatorError, SampledEstimator, State, register
from silent_gradients.posteriors import Posterior


@register
@dataclass(frozen=True)
class Reinforce(SampledEstimator):
    """Score-function gradient (objective - baseline) * grad log q(z|x), plus the objective's own gradient.

    The baseline is the running average *before* it takes in the current batch, so that it is independent of the
    samples it is subtracted from. The first step has no average yet and uses each image's batch-mates.

    Attributes:
        decay: Decay of the running average, in [0, 1).
    """

    decay: float = 0.99

    name = "reinforce"
    unbiased = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < 1:
            raise EstimatorError(f"decay: expected a number in [0, 1), got {self.decay}")

    def initial_state(self, device: torch.device) -> State:
        return {"average": torch.zeros((), device=device), "weight": torch.zeros((), device=device)}

    def __call__(
        self,
        q: Posterior,
        objective: Objective,
        *,
        control: ExactObjective | None = None,
        index: Tensor | None = None,
        generator: torch.Generator | None = None,
        state: State,
    ) -> Estimate:
        z = q.sample(self.samples, generator)
        value = objective.sampled(z)
        observed = value.detach()
        per_image = observed.mean(0)
        # ``weight`` is 1 - decay^steps: dividing by it takes out the average's start at zero.
        batch_mates = (per_image.sum() - per_image) / max(len(per_image) - 1, 1)
        started = state["weight"] > 0
        baseline = torch.where(started, state["average"] / state["weight"].clamp(min=1 - self.decay), batch_mates)
        surrogate = (value + (observed - baseline) * q.log_prob(z)).mean(0)
        updated = {
            "average": self.decay * state["average"] + (1 - self.decay) * observed.mean().to(state["average"].dtype),
            "weight": self.decay * state["weight"] + (1 - self.decay),
        }
        return Estimate(per_image, surrogate, updated)
