"""Counts of a bounded range: sums of bits."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from silent_gradients import latent_noise
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors.bernoulli import Bernoulli
from silent_gradients.posteriors.contract import Posterior, TiltedMoments


class Binomial(Posterior):
    """Independent counts in {0, ..., n} with prior Binomial(n, 1/2); ``parameters`` [B, k] are the logits.

    n is 2 here; ``Binomial.of(10)``, or a subclass with other ``trials``, has another one.
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
        """The family with n = ``trials``.

        Raises:
            ValueError: ``trials`` is no whole number of 1 or more.
        """
        return type(f"{cls.__name__}{trials}", (cls,), {"trials": trials, "__module__": cls.__module__})

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self.bits = Bernoulli(parameters)

    @property
    def mean(self) -> Tensor:
        return self.trials * self.bits.mean

    @property
    def variance(self) -> Tensor:
        return self.trials * self.bits.variance

    @property
    def third_cumulant(self) -> Tensor:
        return self.trials * self.bits.third_cumulant

    @property
    def fourth_cumulant(self) -> Tensor:
        return self.trials * self.bits.fourth_cumulant

    def tilted_moments(self, weight_m: Tensor, exponent: Tensor) -> TiltedMoments:
        """A count is a sum of n bits of one law, which stay independent: n times those of the bits."""
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
