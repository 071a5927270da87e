"""Bits (paper, Section 3.1), and families made of bits: signs and counts of a bounded range."""

from __future__ import annotations

import math
from typing import Any, ClassVar

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
        self.mean = parameters.sigmoid()
        # p (1 - p) in this form keeps its relative accuracy where p rounds to 1.
        self.variance = self.mean * (-parameters).sigmoid()

    @property
    def third_cumulant(self) -> Tensor:
        return self.variance * (1 - 2 * self.mean)

    @property
    def fourth_cumulant(self) -> Tensor:
        return self.variance * (1 - 6 * self.variance)

    def tilted_moments(self, weight_m: Tensor, exponent: Tensor) -> TiltedMoments:
        """Return the moments; tilted bits differ in every dimension: linear in k, but elementwise over [B, D, k]."""
        return TiltedMoments(*tilted_bits(self.logits, weight_m, exponent))

    def kl_divergence(self) -> Tensor:
        # The entropy in |logit|: p log p would be 0 * inf for a saturated bit.
        magnitude = self.logits.abs()
        entropy = F.softplus(-magnitude) + magnitude * (-magnitude).sigmoid()
        return (math.log(2) - entropy).sum(1)

    def sample(self, samples: int, generator: NoiseSource | None = None) -> Tensor:
        with torch.no_grad():
            p = self.mean
            uniform = latent_noise.uniform((samples, *p.shape), p, generator)
            return (uniform < p).to(p.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        return (self._checked(z) * self.logits - F.softplus(self.logits)).sum(-1)


class Sign(Posterior):
    """Independent signs in {-1, 1}, equally likely under the prior; ``parameters`` [B, k] are the logits of 1."""

    name = "sign"
    parameters_per_latent = 1
    support = (-1.0, 1.0)

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self.bits = Bernoulli(parameters)
        self.mean, self.variance = (0.5 * parameters).tanh(), 4 * self.bits.variance

    @property
    def third_cumulant(self) -> Tensor:
        return 8 * self.bits.third_cumulant

    @property
    def fourth_cumulant(self) -> Tensor:
        return 16 * self.bits.fourth_cumulant

    def tilted_moments(self, weight_m: Tensor, exponent: Tensor) -> TiltedMoments:
        """Return the moments of z = 2 bit - 1."""
        tilted = self.bits.tilted_moments(2 * weight_m, 2 * exponent)
        return TiltedMoments(tilted.log_normalizer - exponent.sum(1), tilted.mean - weight_m.sum(1), tilted.variance)

    def kl_divergence(self) -> Tensor:
        return self.bits.kl_divergence()

    def sample(self, samples: int, generator: NoiseSource | None = None) -> Tensor:
        return 2 * self.bits.sample(samples, generator) - 1

    def log_prob(self, z: Tensor) -> Tensor:
        return self.bits.log_prob((self._checked(z) + 1) / 2)


class Binomial(Posterior):
    """Independent counts in {0, ..., n} with prior Binomial(n, 1/2); ``parameters`` [B, k] are the logits.

    n is 2 by default; ``Binomial.of(10)``, or a subclass with other ``trials``, changes it.
    """

    name = "binomial"
    parameters_per_latent = 1
    trials: ClassVar[int] = 2
    """n."""
    support = (0.0, 2.0)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not isinstance(cls.trials, int) or cls.trials < 1:
            raise ValueError(f"trials: expected a whole number of 1 or more, got {cls.trials}")
        cls.support = (0.0, float(cls.trials))

    @classmethod
    def of(cls, trials: int) -> type[Binomial]:
        """Return the family with n = ``trials``.

        Raises:
            ValueError: ``trials`` is not a whole number of 1 or more.
        """
        return type(f"{cls.__name__}{trials}", (cls,), {"trials": trials, "__module__": cls.__module__})

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self.bits = Bernoulli(parameters)
        self.mean, self.variance = self.trials * self.bits.mean, self.trials * self.bits.variance

    @property
    def third_cumulant(self) -> Tensor:
        return self.trials * self.bits.third_cumulant

    @property
    def fourth_cumulant(self) -> Tensor:
        return self.trials * self.bits.fourth_cumulant

    def tilted_moments(self, weight_m: Tensor, exponent: Tensor) -> TiltedMoments:
        """Return n times the moments of a bit: a count is the sum of n bits, which stay independent."""
        return TiltedMoments(*(self.trials * moment for moment in self.bits.tilted_moments(weight_m, exponent)))

    def kl_divergence(self) -> Tensor:
        return self.trials * self.bits.kl_divergence()

    def sample(self, samples: int, generator: NoiseSource | None = None) -> Tensor:
        with torch.no_grad():
            p = self.bits.mean
            uniform = latent_noise.uniform((self.trials, samples, *p.shape), p, generator)
            return (uniform < p).to(p.dtype).sum(0)

    def log_prob(self, z: Tensor) -> Tensor:
        ways = math.lgamma(self.trials + 1) - (self._checked(z) + 1).lgamma() - (self.trials - z + 1).lgamma()
        return self.trials * self.bits.log_prob(z / self.trials) + ways.sum(-1)
