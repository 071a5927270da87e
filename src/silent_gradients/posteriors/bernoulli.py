"""Bits (paper, Section 3.1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from silent_gradients import latent_noise
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors.contract import Posterior, TiltedMoments
from silent_gradients.posteriors.tilting import tilted_bits


class Bernoulli(Posterior):
    """Independent bits in {0, 1} with prior Bernoulli(1/2); ``parameters`` [B, k] are the logits."""

    name = "bernoulli"
    parameters_per_latent = 1
    support = (0.0, 1.0)

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self.logits = parameters
        self._mean = parameters.sigmoid()
        # p (1 - p) in this form keeps its relative accuracy where p rounds to 1.
        self._variance = self._mean * (-parameters).sigmoid()

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def variance(self) -> Tensor:
        return self._variance

    @property
    def third_cumulant(self) -> Tensor:
        return self._variance * (1 - 2 * self._mean)

    @property
    def fourth_cumulant(self) -> Tensor:
        return self._variance * (1 - 6 * self._variance)

    def tilted_moments(self, weight_m: Tensor, exponent: Tensor) -> TiltedMoments:
        """Tilted bits have other probabilities in every dimension: linear in k, but elementwise over [B, D, k]."""
        return TiltedMoments(*tilted_bits(self.logits, weight_m, exponent))

    def kl_divergence(self) -> Tensor:
        # The entropy in |logit|: p log p would be 0 * inf for a saturated bit.
        magnitude = self.logits.abs()
        entropy = F.softplus(-magnitude) + magnitude * (-magnitude).sigmoid()
        return (math.log(2) - entropy).sum(1)

    def sample(self, samples: int, generator: NoiseSource | None = None) -> Tensor:
        with torch.no_grad():
            p = self._mean
            uniform = latent_noise.uniform((samples, *p.shape), p, generator)
            return (uniform < p).to(p.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        return (self._checked(z) * self.logits - F.softplus(self.logits)).sum(-1)
