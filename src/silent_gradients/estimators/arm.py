"""ARM, augment-REINFORCE-merge (Yin and Zhou 2019)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from silent_gradients import latent_noise
from silent_gradients.decoders.likelihood import Objective
from silent_gradients.estimators.bits import BitEstimator
from silent_gradients.estimators.contract import register
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors import Bernoulli


@dataclass(frozen=True)
class AntitheticBits(BitEstimator):
    """An estimator from the difference between two samples that share their noise u: 1[u > 1 - p] and 1[u < p].

    Attributes:
        samples: Pairs per image and step.
    """

    unbiased = True

    def evaluations(self, latent_dim: int) -> int:
        return 2 * self.samples

    @abstractmethod
    def direction(self, q: Bernoulli, uniform: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
        """What the difference of the pair's values is multiplied by, [S, B, k].

        Args:
            q: The posterior.
            uniform: u, [S, B, k].
            pair: 1[u > 1 - p] and 1[u < p], each [S, B, k].
        """

    def estimate(self, q: Bernoulli, objective: Objective, generator: NoiseSource | None) -> tuple[Tensor, Tensor]:
        logits = q.logits.detach()
        shape = (self.samples, *logits.shape)
        uniform = latent_noise.uniform(shape, logits, generator)
        pair = (uniform > (-logits).sigmoid()).to(logits.dtype), (uniform < logits.sigmoid()).to(logits.dtype)
        value = objective.sampled(torch.cat(pair))
        first, second = value.detach().chunk(2)
        slope = ((first - second)[..., None] * self.direction(q, uniform, pair)).mean(0).detach()
        return value.mean(0), value.mean(0) + (slope * q.logits).sum(1)


@register
@dataclass(frozen=True)
class Arm(AntitheticBits):
    """(f(1[u > 1 - p]) - f(1[u < p])) (u - 1/2)."""

    name = "arm"

    def direction(self, q: Bernoulli, uniform: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
        return uniform - 0.5
