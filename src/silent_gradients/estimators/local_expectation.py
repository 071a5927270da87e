"""Local expectations (Titsias and Lázaro-Gredilla 2015), IndeCateR (De Smet et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from silent_gradients import checks
from silent_gradients.decoders.likelihood import Objective
from silent_gradients.estimators.contract import Estimate, EstimatorError, Given, SampledEstimator, register
from silent_gradients.posteriors.contract import Posterior


@register
@dataclass(frozen=True)
class LocalExpectation(SampledEstimator):
    """p_i (1 - p_i) {f(z with z_i = 1) - f(z with z_i = 0)} for every bit i: each bit is averaged over exactly.

    One of the two values is f(z) itself. It is computed anew with every group of flipped bits, since BatchNorm makes a
    value depend on what it is evaluated together with. Flipped bits are evaluated without a gradient; the objective's
    own gradient is its gradient at z.

    Attributes:
        bits_at_once: Flipped bits that are evaluated together; memory grows with it, the estimate is the same.
    """

    bits_at_once: int = 16

    name = "local-expectation"
    unbiased = True
    posteriors = frozenset({"bernoulli"})

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("bits_at_once", self.bits_at_once, error=EstimatorError)

    def evaluations(self, latent_dim: int) -> int:
        return self.samples * (1 + latent_dim + -(-latent_dim // self.bits_at_once))

    def estimate(self, q: Posterior, objective: Objective, given: Given) -> Estimate:
        z = q.sample(self.samples, given.generator)
        value = objective.sampled(z).mean(0)
        differences = []
        with torch.no_grad():
            for flips in torch.eye(q.latent_dim, dtype=z.dtype, device=z.device).split(self.bits_at_once):
                points = (z - F.pad(flips, (0, 0, 1, 0))[:, None, None]).abs()  # [1 + bits, S, B, k]; the first is z
                values = objective.sampled(points.flatten(0, 1)).unflatten(0, points.shape[:2])
                differences.append(values[0] - values[1:])
            difference = torch.cat(differences).movedim(0, -1)  # f(z) - f(z with bit i flipped), [S, B, k]
            slope = q.variance * ((2 * z - 1) * difference).mean(0)
        return Estimate(value, value + (slope * q.parameters).sum(1), given.state)
