"""Antithetic gradients for bits: ARM and DisARM."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from silent_gradients import latent_noise
from silent_gradients.decoders.likelihood import Objective
from silent_gradients.estimators.contract import Estimate, Given, SampledEstimator, register
from silent_gradients.posteriors.contract import Posterior


@dataclass(frozen=True)
class AntitheticBits(SampledEstimator):
    """The difference f(b) - f(b') of the pair b = 1[u > 1 - p] and b' = 1[u < p], u uniform, times a direction.

    Attributes:
        samples: Pairs per image and step.
    """

    unbiased = True
    posteriors = frozenset({"bernoulli"})

    def evaluations(self, latent_dim: int) -> int:
        return 2 * self.samples

    @abstractmethod
    def direction(self, logits: Tensor, uniform: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
        """Return the factor of the difference of a pair's values, [S, B, k], for logits of p [B, k], u and the pair."""

    def estimate(self, q: Posterior, objective: Objective, given: Given) -> Estimate:
        logits = q.parameters.detach()
        uniform = latent_noise.uniform((self.samples, *logits.shape), logits, given.generator)
        pair = (uniform > (-logits).sigmoid()).to(logits.dtype), (uniform < logits.sigmoid()).to(logits.dtype)
        value = objective.sampled(torch.cat(pair))
        first, second = value.detach().chunk(2)
        slope = ((first - second)[..., None] * self.direction(logits, uniform, pair)).mean(0)
        return Estimate(value.mean(0), value.mean(0) + (slope * q.parameters).sum(1), given.state)


@register
@dataclass(frozen=True)
class Arm(AntitheticBits):
    """(f(b) - f(b')) (u - 1/2): augment-REINFORCE-merge (Yin and Zhou 2019)."""

    name = "arm"

    def direction(self, logits: Tensor, uniform: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
        return uniform - 0.5


@register
@dataclass(frozen=True)
class Disarm(AntitheticBits):
    """(f(b) - f(b')) (b - b') sigmoid(|logit|) / 2: ARM with the noise integrated out, given the pair.

    Also known as U2G (Dong et al. 2020; Yin et al. 2020).
    """

    name = "disarm"

    def direction(self, logits: Tensor, uniform: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
        first, second = pair
        return 0.5 * (first - second) * logits.abs().sigmoid()
