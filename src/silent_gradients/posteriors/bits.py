"""Bits (Section 3.1), signs and bounded counts."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from silent_gradients import latent_noise
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors.contract import Posterior, TiltedMoments, WithOption, log_modulus, sigmoid
from silent_gradients.posteriors.tilting import tilted_bits


class Bernoulli(Posterior):
    """Independent bits in {0, 1} with prior Bernoulli(1/2); ``parameters`` [B, k] are the logits."""

    name = "bernoulli"
    parameters_per_latent = 1
    support = (0.0, 1.0)

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self.logits = parameters
        self.mean = sigmoid(parameters)
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

    def log_characteristic(self, frequency: Tensor) -> tuple[Tensor, Tensor]:
        half = 0.5 * frequency[:, None]
        cosine, sine = half.cos(), half.sin()
        # Of e^(-i t / 2) E e^(i t z) = cos(t / 2) + i (2 p - 1) sin(t / 2), where nothing cancels.
        imaginary = (2 * self.mean - 1) * sine
        argument = half + torch.atan2(imaginary, cosine)
        return log_modulus(cosine, imaginary).sum(2), argument.sum(2)

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
        # Not z l - softplus(l), whose gradient z - p has no digits where p rounds to z.
        return (z * F.logsigmoid(self.logits) + (1 - z) * F.logsigmoid(-self.logits)).sum(-1)


class BitSum(Posterior):
    """Independent sums of n equally probable bits, z = offset + step * sum; ``parameters`` [B, k] are the logits.

    The bits are independent and have the same logit; under the prior each is 1 with probability 1/2.
    """

    parameters_per_latent = 1
    trials: ClassVar[int] = 1
    """n."""
    step: ClassVar[float] = 1.0
    offset: ClassVar[float] = 0.0

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self.bits = Bernoulli(parameters)
        self.mean = self.offset + self.step * self.trials * self.bits.mean
        self.variance = self.step**2 * self.trials * self.bits.variance

    @property
    def third_cumulant(self) -> Tensor:
        return self.step**3 * self.trials * self.bits.third_cumulant

    @property
    def fourth_cumulant(self) -> Tensor:
        return self.step**4 * self.trials * self.bits.fourth_cumulant

    def tilted_moments(self, weight_m: Tensor, exponent: Tensor) -> TiltedMoments:
        """Return the moments: n times those of a bit of step times the weights, since tilted bits stay independent."""
        bit = self.bits.tilted_moments(self.step * weight_m, self.step * exponent)
        return TiltedMoments(
            self.trials * bit.log_normalizer + self.offset * exponent.sum(1),
            self.trials * bit.mean + self.offset * weight_m.sum(1),
            self.trials * bit.variance,
        )

    def log_characteristic(self, frequency: Tensor) -> tuple[Tensor, Tensor]:
        modulus, argument = self.bits.log_characteristic(self.step * frequency)
        return self.trials * modulus, self.trials * argument + self.offset * frequency.sum(1, keepdim=True)

    def kl_divergence(self) -> Tensor:
        return self.trials * self.bits.kl_divergence()

    def sample(self, samples: int, generator: NoiseSource | None = None) -> Tensor:
        with torch.no_grad():
            p = self.bits.mean
            uniform = latent_noise.uniform((self.trials, samples, *p.shape), p, generator)
            return self.offset + self.step * (uniform < p).to(p.dtype).sum(0)

    def log_prob(self, z: Tensor) -> Tensor:
        ones = (z - self.offset) / self.step
        ways = math.lgamma(self.trials + 1) - (ones + 1).lgamma() - (self.trials - ones + 1).lgamma()
        return self.trials * self.bits.log_prob(ones / self.trials) + ways.sum(-1)


class Sign(BitSum):
    """Independent signs in {-1, 1}, equally likely under the prior; ``parameters`` [B, k] are the logits of 1."""

    name = "sign"
    support = (-1.0, 1.0)
    step, offset = 2.0, -1.0


class Binomial(BitSum, WithOption):
    """Independent counts in {0, ..., n} with prior Binomial(n, 1/2); ``parameters`` [B, k] are the logits.

    n is 2 by default; ``Binomial.of(10)``, or a subclass with other ``trials``, changes it.
    """

    name = "binomial"
    trials = 2
    support = (0.0, 2.0)
    option, least = "trials", 1

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.support = (0.0, float(cls.trials))


__getattr__ = Binomial.named
