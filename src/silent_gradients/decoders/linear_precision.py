"""Linear decoder whose mean and precision are both linear in z (paper, Section 4.1, Eq. 5-7, Theorem 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from silent_gradients.decoders import log_terms
from silent_gradients.decoders.likelihood import GaussianLikelihood, SampledObjective, Standardization
from silent_gradients.decoders.linear_heads import LinearHeadsDecoder
from silent_gradients.posteriors import JointCumulants, Posterior

_TINY = 1e-20
"""Keeps the second moment of a precision that is 0 in every sample positive; far below any that occurs."""

LogTerm = Literal["auto", "taylor-square", "taylor", "exact", "central-limit"]


class LinearPrecisionDecoder(LinearHeadsDecoder):
    """p(x|z) = N(m, s^-2) with m = mean + scale (A z + a) and s = (B z + c) / scale, per dimension.

    ``s`` is the reciprocal of the standard deviation and may have either sign: only its square enters the density.

    Args:
        latent_dim: k.
        standardization: Location and scale of the data; the identity leaves both heads raw.
        log_term: ``auto`` is ``exact`` for a Gaussian posterior and ``central-limit`` otherwise; ``taylor-square`` is
            the paper's; ``taylor`` expands log|s| itself.
        small_weights: Start with small weights and c = 1, so that s is far from 0; otherwise PyTorch's default.
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
        self.log_term: LogTerm = log_term

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
        """The objective with log|s| expanded; see ``LinearPrecisionControl``."""
        weight = self.precision_head.weight
        with torch.no_grad():
            mean = F.linear(q.mean, weight) + self.precision_bias
            second_moment = mean.square() + q.linear_variance(weight)
        return LinearPrecisionControl(self, x, second_moment=second_moment.clamp_min(_TINY))

    def has_exact_log_term(self, q: Posterior) -> bool:
        """Whether ``expected_log_precision`` is the true one under ``q``: of a normal precision, and not expanded."""
        return q.is_gaussian and self.log_term in ("auto", "exact", "central-limit")

    def expected_log_precision(self, q: Posterior, cumulants: JointCumulants) -> Tensor:
        """E log|s| in nats in the decoder's ``log_term``, shape [B, D]; ``cumulants`` are those of (A z, B z).

        Raises:
            ValueError: ``exact`` is asked for a posterior under which s is not normal.
        """
        mean, variance = cumulants.mean_s + self.precision_bias, cumulants.variance_s
        match self.log_term:
            case "exact" if not q.is_gaussian:
                raise ValueError(f"log_term: 'exact' needs a gaussian posterior, got {q.name}; use 'central-limit'")
            case "auto" | "exact" | "central-limit":
                value = log_terms.normal(mean, variance)
            case "taylor-square":
                value = log_terms.taylor_of_square(mean, variance, *q.higher_cumulants(self.precision_head.weight))
            case "taylor":
                value = log_terms.taylor(mean, variance)
            case _ as unknown:
                assert_never(unknown)
        return value - self.scale.log()


@dataclass(frozen=True)
class LinearPrecisionObjective(SampledObjective):
    """log p(x|z) of a linear decoder with learnable precision, with its expectation."""

    decoder: LinearPrecisionDecoder

    def is_exact(self, q: Posterior) -> bool:
        """Whether ``expectation`` is the true one under ``q``: where the log term is."""
        return self.decoder.has_exact_log_term(q)

    def expected_log_precision(self, q: Posterior, cumulants: JointCumulants) -> Tensor:
        """The log term of ``expectation``, [B, D]."""
        return self.decoder.expected_log_precision(q, cumulants)

    def expectation(self, q: Posterior) -> Tensor:
        """E_q log p(x|z) in nats, shape [B]; exact but for the log term (paper, Eq. 7).

        The expected weighted error is exact for every mean-field q with finite fourth moments:
        E[(x-m)^2 s^2] = (r^2 + V_m)(S^2 + V_s) - 4 r S C + 2 C^2 - 2 r K12 + 2 S K21 + K22 with r = x - E m.

        Raises:
            ShapeError: q is of another number of images or latent variables.
        """
        self.check_posterior(q)
        decoder = self.decoder
        cumulants = q.joint_cumulants(decoder.mean_head.weight, decoder.precision_head.weight)
        residual = decoder.residual(self.x, cumulants.mean_m)
        precision = cumulants.mean_s + decoder.precision_bias
        covariance = cumulants.covariance
        noise = self.noise_variance / decoder.scale.square()
        error = (residual.square() + cumulants.variance_m + noise) * (precision.square() + cumulants.variance_s)
        error = error + covariance * (2 * covariance - 4 * residual * precision)
        if cumulants.k12 is not None and cumulants.k21 is not None and cumulants.k22 is not None:
            error = error - 2 * residual * cumulants.k12 + 2 * precision * cumulants.k21 + cumulants.k22
        log_precision = self.expected_log_precision(q, cumulants)
        return (log_precision - 0.5 * error).sum(1) - 0.5 * self.x.shape[1] * math.log(2 * math.pi)


@dataclass(frozen=True)
class LinearPrecisionControl(LinearPrecisionObjective):
    """The objective with log|s| replaced by a polynomial in s, so that its expectation is exact for every mean-field q.

    log|s| = 1/2 log s^2 becomes 1/2 (log e + s^2 / e - 1), its tangent in s^2 at a fixed e. Unlike that of log|s|, its
    slope is bounded where s vanishes.

    Attributes:
        second_moment: e, [B, D], in units of 1 / scale^2: E s^2 under the posterior that the control was made for.
    """

    second_moment: Tensor = field(kw_only=True)

    def is_exact(self, q: Posterior) -> bool:
        """Whether ``expectation`` is the true one under ``q``: always."""
        return True

    def sampled(self, z: Tensor) -> Tensor:
        likelihood = self.decoder.likelihood(z)
        squared = likelihood.precision_squared * self.decoder.scale.square()
        return likelihood._replace(log_precision=self._tangent(squared)).log_prob(self.x, self.noise_variance)

    def expected_log_precision(self, q: Posterior, cumulants: JointCumulants) -> Tensor:
        mean = cumulants.mean_s + self.decoder.precision_bias
        return self._tangent(mean.square() + cumulants.variance_s)

    def _tangent(self, squared: Tensor) -> Tensor:
        second_moment = self.second_moment
        return 0.5 * (second_moment.log() + squared / second_moment - 1) - self.decoder.scale.log()
