"""Linear decoder of binary pixels, exact under Gaussian posteriors.

The logits of the pixels are linear in z, so under a Gaussian posterior each is normal, and the expected log-likelihood
is an integral in one dimension. It has a closed form but for E log(1 + e^-|logit|); with y = e^-|logit|, a polynomial
in y approximates log(1 + y), and E e^(-n |logit|) is known.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from silent_gradients import checks
from silent_gradients.decoders.fixed_variance import small_linear
from silent_gradients.decoders.likelihood import ClosedFormObjective, Decoder
from silent_gradients.posteriors.contract import Posterior

# c_1, c_2, ... of the polynomials in y on [0, 1] nearest log(1 + y), with its value and slope at 1: within 8e-9 (and
# 2e-7 for y times the slope) for float32, 1e-17 (and 1e-15) for float64.
# fmt: off
_SINGLE = (
    0.9999990546036854, -0.49996186790127156, 0.3327928142397269, -0.24615070171264652, 0.18393038637111175,
    -0.1237521031670235, 0.0648201750884805, -0.02204369951654113, 0.0035131225544234317,
)
_DOUBLE = (
    0.9999999999999934, -0.4999999999988361, 0.33333333325941034, -0.24999999758549837, 0.199999952202843,
    -0.16666603669571672, 0.14285126951006136, -0.12495960930965294, 0.1108999163743707, -0.09914099849545521,
    0.08814252608097622, -0.07617380297810708, 0.061837871211306364, -0.04519537366103538, 0.02839157271031336,
    -0.014596740369847518, 0.005808884275206567, -0.0016613081981825433, 0.00030174483668669465,
    -2.6022608890877062e-05,
)
# fmt: on
_LEAST_LOGIT = 5.0
"""Largest magnitude of the initial biases: probabilities of the data are 0 or 1 in pixels that never change."""


class BernoulliLikelihood(NamedTuple):
    """p(x|z) of independent bits.

    Attributes:
        logits: Of the bits, [S, B, D].
    """

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        """Probability that a bit is 1, [S, B, D]."""
        return self.logits.sigmoid()

    def log_prob(self, x: Tensor, noise_variance: float = 0.0) -> Tensor:
        """Return log p(x|z) in nats of x [B, D] in [0, 1], summed over D, [S, B]; there is no noise to average over."""
        checks.shaped("x", x, *self.logits.shape[1:])
        return (x * F.logsigmoid(self.logits) + (1 - x) * F.logsigmoid(-self.logits)).sum(-1)


class BernoulliDecoder(Decoder):
    """p(x|z) of independent bits x with logits A z + b. Bits/dim are those of ``evaluate(vae, x, levels=1)``.

    Args:
        latent_dim: k.
        dimensions: D.
        mean: [D], the data's mean, whose logits are the initial b; None for b = 0.

    Raises:
        ShapeError: ``mean`` is not [D].
    """

    def __init__(self, latent_dim: int, dimensions: int, mean: Tensor | None = None) -> None:
        super().__init__(latent_dim, dimensions)
        self.linear = small_linear(latent_dim, dimensions, mean)
        with torch.no_grad():
            self.linear.bias.logit_().clamp_(-_LEAST_LOGIT, _LEAST_LOGIT)

    def likelihood(self, z: Tensor) -> BernoulliLikelihood:
        return BernoulliLikelihood(self.linear(z))

    def objective(self, x: Tensor, noise_variance: float = 0.0) -> BernoulliObjective:
        """Return log p(x|z) of the images x [B, D], bits or probabilities of bits.

        Raises:
            ShapeError: x is not [B, D].
            TypeError: x is not of the weights' floating-point type.
            ValueError: ``noise_variance`` is not 0: bits have no noise; or x is not in [0, 1] (on the CPU).
        """
        if noise_variance:
            raise ValueError(f"noise_variance: expected 0 for pixels that are bits, got {noise_variance}")
        return BernoulliObjective(self, x)


class BernoulliObjective(ClosedFormObjective):
    """log p(x|z) of bits, with its expectation: exact for a Gaussian posterior, by the central limit for others."""

    decoder: BernoulliDecoder

    def check_range(self, least: float, largest: float) -> None:
        """Raise ``ValueError`` if x is not in [0, 1]."""
        if least < 0 or largest > 1:
            raise ValueError(f"x: expected bits or their probabilities, in [0, 1], got {least:g} to {largest:g}")

    def is_exact(self, q: Posterior) -> bool:
        """Return whether ``expectation`` is exact under ``q``: if the logits are normal."""
        return q.is_gaussian

    def closed_form(self, q: Posterior) -> Tensor:
        """Return E_q log p(x|z) in nats, shape [B]: two matrix products."""
        linear = self.decoder.linear
        mean = F.linear(q.mean, linear.weight, linear.bias)
        return -cross_entropy(mean, q.linear_variance(linear.weight), self.x).sum(1)


def cross_entropy(mean: Tensor, variance: Tensor, x: Tensor) -> Tensor:
    """Return E softplus(l) - x E l of logits l ~ N(mean, variance) and bits x in [0, 1], all of one shape, in nats.

    Within 1e-6 in float32 (and the rounding of the result) and 1e-14 in float64, for any mean and variance. The
    derivatives by mean and variance are explicit and keep their digits where a bit is certain.
    """
    return _CrossEntropy.apply(mean, variance, x)


class _CrossEntropy(torch.autograd.Function):
    """``cross_entropy`` and its derivatives.

    With a = |mean|, s^2 = variance and t = a / s, E e^(-n |l|) is A_n + B_n for
    A_n = e^(-n a + n^2 s^2 / 2) Phi(t - n s) and B_n = e^(n a + n^2 s^2 / 2) Phi(-t - n s), and E max(l, 0) less
    max(mean, 0) is s phi(t) - a Phi(-t). By a, the slope of the latter is -Phi(-t) and that of A_n + B_n is
    -n (A_n - B_n), but for terms in phi(t), which cancel in the sum. By the heat equation the slope by the variance is
    half the second one by the mean, sum_n c_n n^2 (A_n + B_n) / 2.
    """

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], _output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def forward(mean: Tensor, variance: Tensor, x: Tensor) -> Tensor:
        sums, _, _ = _exponential_sums(mean, variance)
        a, deviation, t = _standardized(mean, variance)
        half = 0.5 * torch.special.erfcx(t / math.sqrt(2))
        above = deviation * (-0.5 * t.square()).exp() * (1 / math.sqrt(2 * math.pi) - t * half)
        return above + sums + torch.where(mean > 0, (1 - x) * a, x * a)

    @staticmethod
    def backward(ctx: Any, by_value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance, x = ctx.saved_tensors
        _, slopes, curvatures = _exponential_sums(mean, variance)
        _, _, t = _standardized(mean, variance)
        # The probability of the less likely value; ndtr(-t) would lose digits far out.
        other = 0.5 * (-0.5 * t.square()).exp() * torch.special.erfcx(t / math.sqrt(2)) + slopes
        by_mean = torch.where(mean > 0, (1 - x) - other, other - x)
        return by_value * by_mean, 0.5 * by_value * curvatures, -by_value * mean


def _standardized(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return |mean|, the deviation, which is positive, and their ratio."""
    deviation = variance.clamp_min(torch.finfo(variance.dtype).tiny ** 0.75).sqrt()
    return mean.abs(), deviation, mean.abs() / deviation


def _exponential_sums(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums over n of c_n (A_n + B_n), c_n n (A_n - B_n) and c_n n^2 (A_n + B_n)."""
    a, s, t = _standardized(mean, variance)
    density = 0.5 * (-0.5 * t.square()).exp()
    sums, slopes, curvatures = (torch.zeros_like(a) for _ in range(3))
    for n, coefficient in enumerate(_DOUBLE if a.dtype == torch.float64 else _SINGLE, 1):
        # Either form of A where its factors are at most 1; both agree at t = n s.
        far = (n * (0.5 * n * s.square() - a)).clamp_max(0).exp() * torch.special.ndtr((t - n * s).clamp_min(0))
        near = density * torch.special.erfcx((n * s - t).clamp_min(0) / math.sqrt(2))
        first = torch.where(t > n * s, far, near)
        second = density * torch.special.erfcx((n * s + t) / math.sqrt(2))
        sums = sums + coefficient * (first + second)
        slopes = slopes + coefficient * n * (first - second)
        curvatures = curvatures + coefficient * n**2 * (first + second)
    return sums, slopes, curvatures
