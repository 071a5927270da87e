"""Uniform latent variables."""

from __future__ import annotations

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from silent_gradients import latent_noise
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors.contract import Posterior, TiltedMoments, log_modulus, sigmoid
from silent_gradients.posteriors.tilting import log_sinh_ratio, moments_by_rows

_PLACE_SCALE, _WIDTH_SCALE = 4.0, 0.003
"""Parameters per unit of an encoder's output."""
_INITIAL_WIDTH = -1.0
"""Logit of the width for an encoder's output of 0."""


class Uniform(Posterior):
    """Uniform on [low, low + width] inside [0, 1], where the prior is uniform; ``parameters`` [B, 2k].

    With the first half a and the second half c, width = sigmoid(c) and low = sigmoid(a) (1 - width). Parameters of zero
    give the middle half of [0, 1]; the prior is the limit of large c.
    """

    name = "uniform"
    parameters_per_latent = 2
    support = (0.0, 1.0)
    has_fixed_support = False

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        place, size = parameters.chunk(2, dim=1)
        self.width, self.log_width = sigmoid(size), F.logsigmoid(size)
        self.low = sigmoid(place) * sigmoid(-size)
        self.mean, self.variance = self.low + 0.5 * self.width, self.width.square() / 12

    @classmethod
    def parameters_from(cls, output: Tensor) -> Tensor:
        """Return the parameters for an encoder's output: places move faster, and widths more slowly, than it does.

        The prior is a local optimum: a width w costs -log w, of first order in 1 - w, and lets the mean gain at second
        order. Widths that move as fast as decoders learn end there.
        """
        place, size = output.chunk(2, dim=1)
        return torch.cat([_PLACE_SCALE * place, _WIDTH_SCALE * size + _INITIAL_WIDTH], dim=1)

    @property
    def third_cumulant(self) -> Tensor:
        return torch.zeros_like(self.mean)

    @property
    def fourth_cumulant(self) -> Tensor:
        return -(self.width**4) / 120

    def tilted_moments(self, weight_m: Tensor, exponent: Tensor) -> TiltedMoments:
        """Return the moments; tilted variables are truncated exponential: linear in k, elementwise over [B, D, k].

        With x = T width / 2, log E e^t is T mean + log(sinh x / x); mean and variance are its first two derivatives.
        """

        def moments(weight: Tensor, exponent: Tensor, middle: Tensor, half_width: Tensor) -> tuple[Tensor, ...]:
            log_ratio, slope, curvature = log_sinh_ratio(exponent[:, None] * half_width)
            values = weight[:, None] * half_width
            return (
                F.linear(exponent, middle) + log_ratio.sum(2),
                F.linear(weight, middle) + (values * slope).sum(2),
                (values.square() * curvature).sum(2),
            )

        return TiltedMoments(*moments_by_rows(moments, weight_m, exponent, self.mean, 0.5 * self.width))

    def log_characteristic(self, frequency: Tensor) -> tuple[Tensor, Tensor]:
        ratio = torch.sinc(frequency[:, None] * self.width / (2 * math.pi))
        turns = (ratio < 0).to(ratio.dtype).sum(2)
        return log_modulus(ratio, torch.zeros_like(ratio)).sum(2), frequency @ self.mean.T + math.pi * turns

    def kl_divergence(self) -> Tensor:
        return -self.log_width.sum(1)

    def rsample(self, samples: int, generator: NoiseSource | None = None) -> Tensor:
        noise = latent_noise.uniform((samples, *self.low.shape), self.low, generator)
        return self.low + self.width * noise

    def log_prob(self, z: Tensor) -> Tensor:
        inside = (z >= self.low) & (z <= self.low + self.width)
        return torch.where(inside, -self.log_width, -math.inf).sum(-1)

    @classmethod
    def prior(cls, images: int, latent_dim: int, like: Tensor) -> Self:
        """Return the prior: the width of these parameters rounds to 1."""
        return cls(like.new_full((images, 2 * latent_dim), 40.0))

    def prior_log_prob(self, z: Tensor) -> Tensor:
        inside = ((z >= 0) & (z <= 1)).all(-1)
        return torch.zeros_like(z[..., 0]).masked_fill(~inside, -math.inf)
