"""Laplace latent variables."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from silent_gradients import latent_noise
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors.contract import Posterior

_FAR = 1e3
"""Distance in scales from which e^-distance and its slope are 0 in every floating-point type."""
_LARGEST_LOG = 80.0
"""Its exponential is finite in float32."""


class Laplace(Posterior):
    """Laplace posterior with prior Laplace(0, 1); ``parameters`` [B, 2k] hold the locations, then the log scales.

    There are no tilted moments: E e^(t z) is infinite where |t| reaches 1 / scale, as ordinary weights of a decoder do.
    """

    name = "laplace"
    parameters_per_latent = 2

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self.mean, self.log_scale = parameters.chunk(2, dim=1)
        self.variance = 2 * (2 * self.log_scale).exp()

    @property
    def third_cumulant(self) -> Tensor:
        return torch.zeros_like(self.mean)

    @property
    def fourth_cumulant(self) -> Tensor:
        return 12 * (4 * self.log_scale).exp()

    def log_characteristic(self, frequency: Tensor) -> tuple[Tensor, Tensor]:
        spread = (0.5 * self.variance * frequency[:, None].square()).log1p()
        return -spread.sum(2), frequency @ self.mean.T

    def kl_divergence(self) -> Tensor:
        magnitude, scale = self.mean.abs(), self.log_scale.exp()
        # |mean| / scale, kept from a slope of 0 * inf where the scale vanishes.
        distance = (magnitude * (-self.log_scale).clamp(max=_LARGEST_LOG).exp()).clamp(max=_FAR)
        return (magnitude + scale * (-distance).expm1() + self.log_scale.expm1() - self.log_scale).sum(1)

    def rsample(self, samples: int, generator: NoiseSource | None = None) -> Tensor:
        """Return samples by the inverse of the distribution function."""
        mean = self.mean
        centred = latent_noise.uniform((samples, *mean.shape), mean, generator) - 0.5
        # The noise may be 0, whose logarithm is not taken: half a step of it instead.
        tail = (1 - 2 * centred.abs()).clamp_min(torch.finfo(mean.dtype).eps / 4)
        return mean - self.log_scale.exp() * centred.sign() * tail.log()

    def log_prob(self, z: Tensor) -> Tensor:
        distance = (z - self.mean).abs() * (-self.log_scale).exp()
        return -(distance + self.log_scale + math.log(2)).sum(-1)
