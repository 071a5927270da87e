"""Linear decoder with a fixed scalar variance: exact for every mean-field posterior (paper, Eq. 2-4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from silent_gradients.decoders.likelihood import ClosedFormObjective, Decoder, GaussianLikelihood
from silent_gradients.posteriors.contract import Posterior, ShapeError

INITIAL_WEIGHT_SCALE = 0.01
"""Standard deviation of the initial weights. At PyTorch's default the term sum_i Var(z_i) |w_i|^2 / (2 variance) is so
large that discrete posteriors saturate at a constant code in the first epoch and never recover."""


def check_variance(variance: float) -> None:
    """Raise ValueError if a variance is not positive and finite."""
    if not 0 < variance < math.inf:
        raise ValueError(f"variance: expected a positive number, got {variance}")


def check_mean(mean: Tensor | None, dimensions: int) -> None:
    """Raise ShapeError if the mean of the data is not [D] or None."""
    if mean is not None and mean.shape != (dimensions,):
        raise ShapeError(f"mean: expected shape [{dimensions}], got {list(mean.shape)}")


class FixedVarianceDecoder(Decoder):
    """p(x|z) = N(A z + b, variance I).

    Args:
        latent_dim: k.
        dimensions: D.
        variance: Fixed variance of every dimension, positive.
        mean: [D], initial value of the bias b: the data's mean. None for 1/2, the middle of the images' range, from
            where bits learn slowly and in part: a bias far from the mean drives them to a constant code.
        small_weights: Start with small weights; otherwise with PyTorch's default, of the bias too if ``mean`` is None.

    Raises:
        ShapeError: ``mean`` is not [D].
        ValueError: ``variance`` is not positive and finite.
    """

    def __init__(
        self,
        latent_dim: int,
        dimensions: int,
        variance: float,
        mean: Tensor | None = None,
        *,
        small_weights: bool = True,
    ) -> None:
        super().__init__(latent_dim, dimensions)
        check_variance(variance)
        check_mean(mean, dimensions)
        self.variance = variance
        self.linear = nn.Linear(latent_dim, dimensions)
        if small_weights:
            nn.init.normal_(self.linear.weight, std=INITIAL_WEIGHT_SCALE)
            nn.init.constant_(self.linear.bias, 0.5)
        if mean is not None:
            with torch.no_grad():
                self.linear.bias.copy_(mean)

    def likelihood(self, z: Tensor) -> GaussianLikelihood:
        precision_squared = torch.full((1,), 1 / self.variance, dtype=z.dtype, device=z.device)
        return GaussianLikelihood(self.linear(z), 0.5 * precision_squared.log(), precision_squared)

    def objective(self, x: Tensor, noise_variance: float = 0.0) -> FixedVarianceObjective:
        return FixedVarianceObjective(self, x, noise_variance)


@dataclass(frozen=True)
class FixedVarianceObjective(ClosedFormObjective):
    """log p(x|z) of a linear decoder with fixed variance, with its exact expectation."""

    decoder: FixedVarianceDecoder

    def is_exact(self, q: Posterior) -> bool:
        """Return whether ``expectation`` is exact under ``q``: always."""
        return True

    def closed_form(self, q: Posterior) -> Tensor:
        """Return E_q log p(x|z) in nats, shape [B], for every mean-field q; paper, Eq. 3 and 4.

        Summed over pixels, E|x - A z - b|^2 = |x - A E z - b|^2 + sum_i Var(z_i) |a_i|^2: one matrix product, the cost
        of a single decoder evaluation.
        """
        linear, variance = self.decoder.linear, self.decoder.variance
        mean_error = (self.x - F.linear(q.mean, linear.weight, linear.bias)).square().sum(1)
        dimensions = self.x.shape[1]
        expected_error = mean_error + q.total_variance(linear.weight) + dimensions * self.noise_variance
        return -0.5 * (expected_error / variance + dimensions * math.log(2 * math.pi * variance))
