"""Unbounded counts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from silent_gradients import latent_noise
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors.contract import Posterior, TiltedMoments


class Poisson(Posterior):
    """Independent counts in {0, 1, ...} with prior Poisson(1); ``parameters`` [B, k] are the log rates."""

    name = "poisson"
    parameters_per_latent = 1
    support = (0.0, float("inf"))

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self.log_rate = parameters
        self.mean = self.variance = parameters.exp()

    @property
    def third_cumulant(self) -> Tensor:
        return self.mean

    @property
    def fourth_cumulant(self) -> Tensor:
        return self.mean

    def tilted_moments(self, weight_m: Tensor, exponent: Tensor) -> TiltedMoments:
        """Return the moments: tilted counts are Poisson with e^t times the rate. Three matrix products."""
        tilted_mean = weight_m * exponent.exp()
        return TiltedMoments(
            F.linear(self.mean, exponent.expm1()),
            F.linear(self.mean, tilted_mean),
            F.linear(self.mean, tilted_mean * weight_m),
        )

    def log_characteristic(self, frequency: Tensor) -> tuple[Tensor, Tensor]:
        return -2 * (0.5 * frequency).sin().square() @ self.mean.T, frequency.sin() @ self.mean.T

    def kl_divergence(self) -> Tensor:
        return (self.mean * self.log_rate - self.log_rate.expm1()).sum(1)

    def sample(self, samples: int, generator: NoiseSource | None = None) -> Tensor:
        with torch.no_grad():
            return latent_noise.poisson(self.mean.expand(samples, -1, -1), generator)

    def log_prob(self, z: Tensor) -> Tensor:
        return (z * self.log_rate - self.mean - (z + 1).lgamma()).sum(-1)
