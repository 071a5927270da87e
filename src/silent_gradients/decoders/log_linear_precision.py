"""Linear decoder whose mean and log precision are linear in z: an exact expectation without any expansion."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from silent_gradients.decoders.likelihood import GaussianLikelihood, SampledObjective, Standardization
from silent_gradients.decoders.linear_heads import LinearHeadsDecoder
from silent_gradients.posteriors import Posterior


class LogLinearPrecisionDecoder(LinearHeadsDecoder):
    """p(x|z) = N(m, s^-2) with m = mean + scale (A z + a) and log s = B z + c - log scale, per dimension.

    ``s`` is the reciprocal of the standard deviation, here always positive. Not a decoder of the paper.

    Args:
        latent_dim: k.
        standardization: Location and scale of the data; the identity leaves both heads raw.
        small_weights: Start with small weights and c = 0, so that s is that of the data; otherwise PyTorch's default.
    """

    def __init__(self, latent_dim: int, standardization: Standardization, *, small_weights: bool = True) -> None:
        super().__init__(latent_dim, standardization, initial_precision_bias=0.0, small_weights=small_weights)

    def likelihood(self, z: Tensor) -> GaussianLikelihood:
        log_precision = self.precision_head(z) - self.scale.log()
        return GaussianLikelihood(self.mean_at(z), log_precision, (2 * log_precision).exp())

    def objective(self, x: Tensor, noise_variance: float = 0.0) -> LogLinearPrecisionObjective:
        return LogLinearPrecisionObjective(self, x, noise_variance)


@dataclass(frozen=True)
class LogLinearPrecisionObjective(SampledObjective):
    """log p(x|z) of a linear decoder with log-linear precision, with its exact expectation."""

    decoder: LogLinearPrecisionDecoder

    def is_exact(self, q: Posterior) -> bool:
        """Whether ``expectation`` is there, and then the true one: for families with tilted moments."""
        return q.has_tilted_moments()

    def expectation(self, q: Posterior) -> Tensor:
        """E_q log p(x|z) in nats, shape [B].

        E log s is linear. Tilting q by s^2 keeps the latent variables independent, and the expected weighted error is
        E[(x - m)^2 s^2] = E[s^2] ((x - E~ m)^2 + Var~ m), with mean and variance under the tilted law.

        Raises:
            NotImplementedError: The family has no tilted moments.
            ShapeError: q is of another number of images or latent variables.
        """
        self.check_posterior(q)
        mean_head, precision_head, scale = self.decoder.mean_head, self.decoder.precision_head, self.decoder.scale
        tilted = q.tilted_moments(mean_head.weight, 2 * precision_head.weight)
        residual = self.decoder.residual(self.x, tilted.mean)
        # The root of E s^2 on either side of the error: it overflows only where the product does.
        root = (0.5 * tilted.log_normalizer + precision_head.bias).exp()
        variance = tilted.variance + self.noise_variance / scale.square()
        error = (residual * root).square() + variance * root * root
        log_precision = q.mean @ precision_head.weight.sum(0) + (precision_head.bias - scale.log()).sum()
        return log_precision - 0.5 * error.sum(1) - 0.5 * self.x.shape[1] * math.log(2 * math.pi)
