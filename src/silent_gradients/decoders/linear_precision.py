"""Linear decoders with a linear (Section 4.1), positive or log-linear precision.

A precision s is the reciprocal of a standard deviation.
"""

from __future__ import annotations

import math
from abc import ABC
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from silent_gradients.decoders import log_terms
from silent_gradients.decoders.fixed_variance import INITIAL_WEIGHT_SCALE
from silent_gradients.decoders.likelihood import (
    ClosedFormObjective,
    Decoder,
    GaussianLikelihood,
    Standardization,
    dimensions_of,
)
from silent_gradients.decoders.weighted_error import weighted_error
from silent_gradients.posteriors.contract import Posterior

LogTerm = Literal["auto", "taylor-square", "taylor", "exact", "central-limit"]
LOG_TERMS: tuple[LogTerm, ...] = get_args(LogTerm)

INITIAL_RANGE = 0.4
"""Initial range of a positive precision s over the unit cube, around 1 and in units of 1 / scale."""
LEAST = 1e-6
"""Added to the least positive precision, in units of 1 / scale: softplus may underflow, and its logarithm is taken."""
_TINY = 1e-20
"""Keeps the second moment of a precision that is 0 in every sample positive; far below any that occurs."""


class LinearHeadsDecoder(Decoder, ABC):
    """p(x|z) with mean ``mean + scale (A z + a)`` and a precision in units of ``1 / scale`` made from B z + c.

    With ``small_weights`` the weights start small, a at 0 and c at ``initial_precision_bias``.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, latent_dim: int, standardization: Standardization, *, initial_precision_bias: float, small_weights: bool
    ) -> None:
        super().__init__(latent_dim, dimensions := dimensions_of(standardization))
        self.register_buffer("mean", standardization.mean.clone())
        self.register_buffer("scale", standardization.scale.clone())
        self.mean_head = nn.Linear(latent_dim, dimensions)
        self.precision_head = nn.Linear(latent_dim, dimensions)
        if small_weights:
            for head, bias in ((self.mean_head, 0.0), (self.precision_head, initial_precision_bias)):
                nn.init.normal_(head.weight, std=INITIAL_WEIGHT_SCALE)
                nn.init.constant_(head.bias, bias)

    def mean_at(self, z: Tensor) -> Tensor:
        """Return the mean of x at z [S, B, k], shape [S, B, D]."""
        return self.mean + self.scale * self.mean_head(z)

    def standardized(self, x: Tensor) -> Tensor:
        """Return (x - mean) / scale for x [B, D]."""
        return (x - self.mean) / self.scale


class LinearPrecisionDecoder(LinearHeadsDecoder):
    """p(x|z) = N(m, s^-2) with m = mean + scale (A z + a) and s = (B z + c) / scale, per dimension.

    ``s`` may have either sign: only its square enters the density (paper, Eq. 5-7, Theorem 1).

    Args:
        latent_dim: k.
        standardization: Location and scale of the data; the identity leaves both heads raw.
        log_term: ``auto`` is ``exact`` for a Gaussian posterior and ``central-limit`` otherwise; ``taylor-square`` is
            the paper's; ``taylor`` expands log|s| itself.
        small_weights: Start with small weights and c = 1, so that s is far from 0; otherwise PyTorch's default.

    Raises:
        ValueError: There is no such log term.
    """

    def __init__(
        self,
        latent_dim: int,
        standardization: Standardization,
        log_term: LogTerm = "auto",
        *,
        small_weights: bool = True,
    ) -> None:
        super().__init__(latent_dim, standardization, initial_precision_bias=1.0, small_weights=small_weights)
        self.log_term = log_term

    @property
    def log_term(self) -> LogTerm:
        """Form of E log|s|."""
        return self._log_term

    @log_term.setter
    def log_term(self, log_term: LogTerm) -> None:
        """Raise ``ValueError`` if there is no such form."""
        if log_term not in LOG_TERMS:
            raise ValueError(f"log_term: expected one of {list(LOG_TERMS)}, got {log_term!r}")
        self._log_term: LogTerm = log_term

    @property
    def precision_bias(self) -> Tensor:
        """c, shape [D]."""
        return self.precision_head.bias

    def likelihood(self, z: Tensor) -> GaussianLikelihood:
        precision = F.linear(z, self.precision_head.weight, self.precision_bias) / self.scale
        return GaussianLikelihood(self.mean_at(z), precision.abs().log(), precision.square())

    def objective(self, x: Tensor, noise_variance: float = 0.0) -> LinearPrecisionObjective:
        return LinearPrecisionObjective(self, x, noise_variance)

    def control(self, x: Tensor, q: Posterior) -> LinearPrecisionControl:
        """Return the objective with log|s| expanded; see ``LinearPrecisionControl``."""
        weight = self.precision_head.weight
        with torch.no_grad():
            mean = F.linear(q.mean, weight) + self.precision_bias
            second_moment = mean.square() + q.linear_variance(weight)
        return LinearPrecisionControl(self, x, second_moment=second_moment.clamp_min(_TINY))

    def has_exact_log_term(self, q: Posterior) -> bool:
        """Return whether ``expected_log_precision`` is exact under ``q``: a normal precision, without an expansion."""
        return q.is_gaussian and self.log_term in ("auto", "exact", "central-limit")

    def expected_log_precision(self, q: Posterior, mean: Tensor, variance: Tensor) -> Tensor:
        """Return E log|s| in nats by the decoder's ``log_term``, from mean and variance of B z + c, all [B, D].

        Raises:
            ValueError: The log term is ``exact``, and s is not normal under this posterior.
        """
        if self.log_term == "exact" and not q.is_gaussian:
            raise ValueError(f"log_term: 'exact' needs a gaussian posterior, got {q.name}; use 'central-limit'")
        if self.log_term == "taylor-square":
            value = log_terms.taylor_of_square(mean, variance, *q.higher_cumulants(self.precision_head.weight))
        elif self.log_term == "taylor":
            value = log_terms.taylor(mean, variance)
        else:
            value = log_terms.normal(mean, variance)
        return value - self.scale.log()


@dataclass(frozen=True)
class LinearPrecisionObjective(ClosedFormObjective):
    """log p(x|z) of a linear decoder with learnable precision, with its expectation."""

    decoder: LinearPrecisionDecoder

    def is_exact(self, q: Posterior) -> bool:
        """Return whether ``expectation`` is exact under ``q``: if the log term is."""
        return self.decoder.has_exact_log_term(q)

    def expected_log_precision(self, q: Posterior, mean: Tensor, variance: Tensor) -> Tensor:
        """Return the log term of ``expectation`` from mean and variance of B z + c, all [B, D]."""
        return self.decoder.expected_log_precision(q, mean, variance)

    def closed_form(self, q: Posterior) -> Tensor:
        """Return E_q log p(x|z) in nats, shape [B]; exact but for the log term (paper, Eq. 7)."""
        decoder = self.decoder
        heads = decoder.mean_head.weight, decoder.mean_head.bias, decoder.precision_head.weight, decoder.precision_bias
        noise = self.noise_variance / decoder.scale.square()
        found = weighted_error(q, decoder.standardized(self.x), noise, *heads)
        log_precision = self.expected_log_precision(q, found.mean, found.variance)
        return log_precision.sum(1) - 0.5 * (found.error + self.x.shape[1] * math.log(2 * math.pi))


@dataclass(frozen=True)
class LinearPrecisionControl(LinearPrecisionObjective):
    """The objective with log|s| replaced by a polynomial in s, so that its expectation is exact for every mean-field q.

    log|s| = 1/2 log s^2 becomes 1/2 (log e + s^2 / e - 1), its tangent in s^2 at a fixed e. The tangent's slope is
    bounded where s vanishes, unlike the slope of log|s|.

    Attributes:
        second_moment: e, [B, D], in units of 1 / scale^2: E s^2 under the posterior at which the control was made.
    """

    second_moment: Tensor = field(kw_only=True)

    def is_exact(self, q: Posterior) -> bool:
        """Return whether ``expectation`` is exact under ``q``: always."""
        return True

    def sampled(self, z: Tensor) -> Tensor:
        likelihood = self.decoder.likelihood(z)
        squared = likelihood.precision_squared * self.decoder.scale.square()
        return likelihood._replace(log_precision=self._tangent(squared)).log_prob(self.x, self.noise_variance)

    def expected_log_precision(self, q: Posterior, mean: Tensor, variance: Tensor) -> Tensor:
        return self._tangent(mean.square() + variance)

    def _tangent(self, squared: Tensor) -> Tensor:
        second_moment = self.second_moment
        return 0.5 * (second_moment.log() + squared / second_moment - 1) - self.decoder.scale.log()


class PositivePrecisionDecoder(LinearPrecisionDecoder):
    """p(x|z) = N(m, s^-2) as in ``LinearPrecisionDecoder``, for z in [0, 1]^k, with a precision of at least L > 0.

    s = (B z + c) / scale with c = L + sum_i max(-B_i, 0) and L = softplus of the bias of ``precision_head``: the least
    s over the unit cube is L / scale. The log term is a strict lower bound of E log s, so the objective less the KL
    divergence is a lower bound of the evidence.

    Args:
        latent_dim: k.
        standardization: Location and scale of the data; the identity leaves both heads raw.
        small_weights: Start with small weights and s = 1 / scale for fair bits; otherwise PyTorch's default.
    """

    def __init__(self, latent_dim: int, standardization: Standardization, *, small_weights: bool = True) -> None:
        super().__init__(latent_dim, standardization, small_weights=small_weights)
        if small_weights:
            weight, bias = self.precision_head.weight, self.precision_head.bias
            with torch.no_grad():
                weight.mul_(INITIAL_RANGE / weight.abs().sum(1, keepdim=True))
                bias.fill_(math.log(math.expm1(1 - 0.5 * INITIAL_RANGE)))

    @property
    def least_precision(self) -> Tensor:
        """L, shape [D], in units of 1 / scale."""
        return LEAST + F.softplus(self.precision_head.bias)

    @property
    def precision_bias(self) -> Tensor:
        return self.least_precision + (-self.precision_head.weight).clamp_min(0).sum(1)

    def has_exact_log_term(self, q: Posterior) -> bool:
        """Return False: the log term is a bound."""
        return False

    def expected_log_precision(self, q: Posterior, mean: Tensor, variance: Tensor) -> Tensor:
        """Return a lower bound of E log s in nats, from mean and variance of B z + c, all [B, D].

        Raises:
            ValueError: The latent variables of ``q`` do not lie in [0, 1].
        """
        if q.support[0] < 0 or q.support[1] > 1:
            raise ValueError(f"posterior: a positive precision needs latent variables in [0, 1], got {q.name}")
        return log_terms.lower_bound(mean, variance, self.least_precision) - self.scale.log()


class LogLinearPrecisionDecoder(LinearHeadsDecoder):
    """p(x|z) = N(m, s^-2) with m = mean + scale (A z + a) and log s = B z + c - log scale, per dimension.

    ``s`` is always positive. Not a decoder of the paper.

    Args:
        latent_dim: k.
        standardization: Location and scale of the data; the identity leaves both heads raw.
        small_weights: Start with small weights and c = 0, so that s is the data's; otherwise PyTorch's default.
    """

    def __init__(self, latent_dim: int, standardization: Standardization, *, small_weights: bool = True) -> None:
        super().__init__(latent_dim, standardization, initial_precision_bias=0.0, small_weights=small_weights)

    def likelihood(self, z: Tensor) -> GaussianLikelihood:
        log_precision = self.precision_head(z) - self.scale.log()
        return GaussianLikelihood(self.mean_at(z), log_precision, (2 * log_precision).exp())

    def objective(self, x: Tensor, noise_variance: float = 0.0) -> LogLinearPrecisionObjective:
        return LogLinearPrecisionObjective(self, x, noise_variance)


class LogLinearPrecisionObjective(ClosedFormObjective):
    """log p(x|z) of a linear decoder with log-linear precision, with its exact expectation."""

    decoder: LogLinearPrecisionDecoder

    def is_exact(self, q: Posterior) -> bool:
        """Return whether there is an ``expectation``, which is then exact: for families with tilted moments."""
        return q.has_tilted_moments()

    def closed_form(self, q: Posterior) -> Tensor:
        """Return E_q log p(x|z) in nats, shape [B].

        E log s is linear. Tilting q by s^2 keeps the latent variables independent, and the expected weighted error is
        E[(x - m)^2 s^2] = E[s^2] ((x - E~ m)^2 + Var~ m), with mean and variance under the tilted distribution.

        Raises:
            NotImplementedError: The family has no tilted moments.
        """
        mean_head, precision_head, scale = self.decoder.mean_head, self.decoder.precision_head, self.decoder.scale
        tilted = q.tilted_moments(mean_head.weight, 2 * precision_head.weight)
        residual = self.decoder.standardized(self.x) - (tilted.mean + mean_head.bias)
        # The root of E s^2 on either side of the error: it overflows only where the product does.
        root = (0.5 * tilted.log_normalizer + precision_head.bias).exp()
        variance = tilted.variance + self.noise_variance / scale.square()
        error = (residual * root).square() + variance * root * root
        log_precision = q.mean @ precision_head.weight.sum(0) + (precision_head.bias - scale.log()).sum()
        return log_precision - 0.5 * error.sum(1) - 0.5 * self.x.shape[1] * math.log(2 * math.pi)
