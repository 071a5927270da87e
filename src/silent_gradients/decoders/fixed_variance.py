"""Linear decoders with one fixed variance (Eq. 2-4) or one per pixel."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from silent_gradients import checks
from silent_gradients.checks import NonFiniteError, ShapeError
from silent_gradients.decoders.likelihood import ClosedFormObjective, Decoder, GaussianLikelihood
from silent_gradients.posteriors.contract import Posterior

INITIAL_WEIGHT_SCALE = 0.01
"""Standard deviation of the initial weights. At PyTorch's default the term sum_i Var(z_i) |w_i|^2 / (2 variance) is so
large that discrete posteriors saturate at a constant code in the first epoch and never recover."""


def small_linear(latent_dim: int, dimensions: int, mean: Tensor | None, *, small_weights: bool = True) -> nn.Linear:
    """Return a layer [latent_dim] to [dimensions] of small weights and the bias ``mean`` [D], None for 1/2.

    Without ``small_weights`` both are PyTorch's default, but for a ``mean`` that is not None.
    """
    if mean is not None and not checks.shaped("mean", mean, dimensions).isfinite().all():
        raise NonFiniteError("mean: expected finite numbers, got NaN or infinity")
    layer = nn.Linear(latent_dim, dimensions)
    with torch.no_grad():
        if small_weights:
            layer.weight.normal_(std=INITIAL_WEIGHT_SCALE)
            layer.bias.fill_(0.5)
        if mean is not None:
            layer.bias.copy_(mean)
    return layer


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

    precision: Tensor  # [], 1 / variance

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
        self.variance = checks.number("variance", variance, "a positive number")
        # A buffer, so that it moves with the weights and a stack of models has one each; no part of the state.
        self.register_buffer("precision", torch.tensor(1 / self.variance), persistent=False)
        self.linear = small_linear(latent_dim, dimensions, mean, small_weights=small_weights)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.precision.fill_(1 / self.variance)  # a change to a longer type would keep the rounding of the shorter one
        return self

    def likelihood(self, z: Tensor) -> GaussianLikelihood:
        precision_squared = self.precision.to(z.dtype)[None]
        return GaussianLikelihood(self.linear(z), 0.5 * precision_squared.log(), precision_squared)

    def objective(self, x: Tensor, noise_variance: float = 0.0) -> FixedVarianceObjective:
        return FixedVarianceObjective(self, x, noise_variance)


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
        linear, precision = self.decoder.linear, self.decoder.precision
        mean_error = (self.x - F.linear(q.mean, linear.weight, linear.bias)).square().sum(1)
        dimensions = self.x.shape[1]
        expected_error = mean_error + q.total_variance(linear.weight) + dimensions * self.noise_variance
        return -0.5 * (expected_error * precision + dimensions * (2 * math.pi / precision).log())


class PixelVarianceDecoder(Decoder):
    """p(x|z) = N(m(z), diag(v)) with a variance v_d of each pixel, the same for every image.

    A subclass writes m and its moments. The ``variance`` is one number or [D], the initial one if it is ``learned``.

    Raises:
        ShapeError: ``variance`` is neither a number nor [D].
        ValueError: ``variance`` is not positive and finite.
    """

    log_precision: Tensor
    """[D], -log(v) / 2."""

    def __init__(self, latent_dim: int, dimensions: int, variance: float | Tensor, *, learned: bool) -> None:
        super().__init__(latent_dim, dimensions)
        if isinstance(variance, Tensor) and variance.ndim and variance.shape != (dimensions,):
            raise ShapeError(f"variance: expected a number or shape [{dimensions}], got {list(variance.shape)}")
        for extreme in (variance.min(), variance.max()) if isinstance(variance, Tensor) else (variance,):
            checks.number("variance", extreme, "a positive number")
        variances = torch.as_tensor(variance, dtype=torch.float32).expand(dimensions)
        log_precision = -0.5 * variances.log()
        if learned:
            self.log_precision = nn.Parameter(log_precision)
        else:
            self.register_buffer("log_precision", log_precision)

    @abstractmethod
    def mean(self, z: Tensor) -> Tensor:
        """Return m at z [S, B, k], [S, B, D]."""

    @abstractmethod
    def moments(self, q: Posterior, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Return E_q m, [B, D], and the sum over pixels of ``precision`` [D] times Var_q m, [B]."""

    def is_exact(self, q: Posterior) -> bool:
        """Return whether there are ``moments`` under ``q``."""
        return True

    def likelihood(self, z: Tensor) -> GaussianLikelihood:
        return GaussianLikelihood(self.mean(z), self.log_precision, (2 * self.log_precision).exp())

    def objective(self, x: Tensor, noise_variance: float = 0.0) -> PixelVarianceObjective:
        return PixelVarianceObjective(self, x, noise_variance)


class PixelVarianceObjective(ClosedFormObjective):
    """log p(x|z) of a decoder with a variance of each pixel, with its exact expectation."""

    decoder: PixelVarianceDecoder

    def is_exact(self, q: Posterior) -> bool:
        """Return whether there is an ``expectation`` under ``q``, which is then exact."""
        return self.decoder.is_exact(q)

    def closed_form(self, q: Posterior) -> Tensor:
        """Return E_q log p(x|z) in nats, shape [B]: of the weighted error, that at the mean and the variance of m.

        Raises:
            NotImplementedError: There is none for the family.
        """
        log_precision = self.decoder.log_precision
        precision = (2 * log_precision).exp()
        mean, variance = self.decoder.moments(q, precision)
        error = ((self.x - mean).square() + self.noise_variance) @ precision + variance
        return log_precision.sum() - 0.5 * (error + self.x.shape[1] * math.log(2 * math.pi))


class FactorAnalysisDecoder(PixelVarianceDecoder):
    """p(x|z) = N(A z + b, diag(v)) with a learned variance of each pixel: with a Gaussian prior, factor analysis.

    Args:
        latent_dim: k.
        dimensions: D.
        variance: Initial v, one number or [D], such as the data's variance.
        mean: [D], initial value of the bias b: the data's mean. None for 1/2.

    Raises:
        ShapeError: ``mean`` is not [D], or ``variance`` is neither a number nor [D].
        ValueError: ``variance`` is not positive and finite.
    """

    def __init__(
        self, latent_dim: int, dimensions: int, variance: float | Tensor = 0.1, mean: Tensor | None = None
    ) -> None:
        super().__init__(latent_dim, dimensions, variance, learned=True)
        self.linear = small_linear(latent_dim, dimensions, mean)

    def mean(self, z: Tensor) -> Tensor:
        return self.linear(z)

    def moments(self, q: Posterior, precision: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = self.linear.weight, self.linear.bias
        return F.linear(q.mean, weight, bias), q.total_variance(precision.sqrt()[:, None] * weight)
