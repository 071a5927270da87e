"""The straight-through estimator (Bengio et al. 2013)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from silent_gradients.decoders.likelihood import Objective
from silent_gradients.estimators.bits import BitEstimator
from silent_gradients.estimators.contract import register
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors import Bernoulli


@register
@dataclass(frozen=True)
class StraightThrough(BitEstimator):
    """The gradient by a drawn bit, taken for that by its probability; biased.

    It is unbiased where the objective is linear in each bit. That of a fixed-variance decoder has the term
    -z_i^2 |a_i|^2 / (2 variance), and the bias is (1 - 2 p_i) p_i (1 - p_i) |a_i|^2 / (2 variance).
    """

    name = "straight-through"
    unbiased = False

    def estimate(self, q: Bernoulli, objective: Objective, generator: NoiseSource | None) -> tuple[Tensor, Tensor]:
        value = objective.sampled(q.sample(self.samples, generator) + (q.mean - q.mean.detach())).mean(0)
        return value, value
