"""Normal latent variables (Section 3.1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from silent_gradients import latent_noise
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors.contract import Posterior, TiltedMoments


class Gaussian(Posterior):
    """Normal posterior with prior N(0, I); ``parameters`` [B, 2k] hold the means, then the log variances."""

    name = "gaussian"
    parameters_per_latent = 2
    is_gaussian = True

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self.mean, self.log_variance = parameters.chunk(2, dim=1)
        self.variance = self.log_variance.exp()

    @property
    def third_cumulant(self) -> Tensor:
        return torch.zeros_like(self.mean)

    @property
    def fourth_cumulant(self) -> Tensor:
        return torch.zeros_like(self.mean)

    def tilted_moments(self, weight_m: Tensor, exponent: Tensor) -> TiltedMoments:
        """Return the moments: tilting moves the mean of a normal distribution alone. Five matrix products."""
        mean, variance = self.mean, self.variance
        return TiltedMoments(
            F.linear(mean, exponent) + 0.5 * F.linear(variance, exponent.square()),
            F.linear(mean, weight_m) + F.linear(variance, weight_m * exponent),
            F.linear(variance, weight_m.square()),
        )

    def log_characteristic(self, frequency: Tensor) -> tuple[Tensor, Tensor]:
        return -0.5 * frequency.square() @ self.variance.T, frequency @ self.mean.T

    def kl_divergence(self) -> Tensor:
        return 0.5 * (self.mean.square() + self.variance - 1 - self.log_variance).sum(1)

    def rsample(self, samples: int, generator: NoiseSource | None = None) -> Tensor:
        mean = self.mean
        noise = latent_noise.normal((samples, *mean.shape), mean, generator)
        return mean + (0.5 * self.log_variance).exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        squared = (z - self.mean).square() / self.variance
        return -0.5 * (squared + self.log_variance + math.log(2 * math.pi)).sum(-1)
