"""Linear precision that is kept positive over the unit cube: a strict lower bound for discrete latent variables."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from silent_gradients.decoders import log_terms
from silent_gradients.decoders.likelihood import Standardization
from silent_gradients.decoders.linear_precision import LinearPrecisionDecoder
from silent_gradients.posteriors import JointCumulants, Posterior

INITIAL_RANGE = 0.4
"""How far s goes over the unit cube at the start, in units of 1 / scale and around 1."""
LEAST = 1e-6
"""Added to the least precision, in units of 1 / scale: softplus may underflow, and its logarithm is taken."""


class PositivePrecisionDecoder(LinearPrecisionDecoder):
    """p(x|z) = N(m, s^-2) as in ``LinearPrecisionDecoder``, for z in [0, 1]^k, with a precision of at least L > 0.

    s = (B z + c) / scale with c = L + sum_i max(-B_i, 0) and L = softplus of the bias of ``precision_head``: the least
    of s over the unit cube is L / scale. The log term is a strict lower bound of E log s, hence the objective less the
    KL divergence one of the evidence.

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
        """Never: the log term is a bound."""
        return False

    def expected_log_precision(self, q: Posterior, cumulants: JointCumulants) -> Tensor:
        """Lower bound of E log s in nats, shape [B, D]; ``cumulants`` are those of (A z, B z).

        Raises:
            ValueError: The latent variables of ``q`` do not lie in [0, 1].
        """
        low, high = q.support
        if low < 0 or high > 1:
            raise ValueError(f"posterior: a positive precision needs latent variables in [0, 1], got {q.name}")
        mean = cumulants.mean_s + self.precision_bias
        return log_terms.lower_bound(mean, cumulants.variance_s, self.least_precision) - self.scale.log()
