"""Signs: bits in another coordinate."""

from __future__ import annotations

from torch import Tensor

from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors.bernoulli import Bernoulli
from silent_gradients.posteriors.contract import Posterior, TiltedMoments


class Sign(Posterior):
    """Independent signs in {-1, 1}, each as likely under the prior; ``parameters`` [B, k] are the logits of 1."""

    name = "sign"
    parameters_per_latent = 1
    support = (-1.0, 1.0)

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self.bits = Bernoulli(parameters)
        self._mean = (0.5 * parameters).tanh()

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def variance(self) -> Tensor:
        return 4 * self.bits.variance

    @property
    def third_cumulant(self) -> Tensor:
        return 8 * self.bits.third_cumulant

    @property
    def fourth_cumulant(self) -> Tensor:
        return 16 * self.bits.fourth_cumulant

    def tilted_moments(self, weight_m: Tensor, exponent: Tensor) -> TiltedMoments:
        """Those of the bits, z = 2 bit - 1."""
        tilted = self.bits.tilted_moments(2 * weight_m, 2 * exponent)
        return TiltedMoments(tilted.log_normalizer - exponent.sum(1), tilted.mean - weight_m.sum(1), tilted.variance)

    def kl_divergence(self) -> Tensor:
        return self.bits.kl_divergence()

    def sample(self, samples: int, generator: NoiseSource | None = None) -> Tensor:
        return 2 * self.bits.sample(samples, generator) - 1

    def log_prob(self, z: Tensor) -> Tensor:
        return self.bits.log_prob((self._checked(z) + 1) / 2)
