"""Moments of linear functions of independent bits under an exponentially tilted law, in bounded memory.

Under q(z) exp(t z) / E exp(t z) the bits stay independent and only their logits move, from l to l + t. Since t is
another one for every dimension, the tilted probabilities are a tensor [B, D, k], which is therefore never held as a
whole: dimensions are taken a few at a time, and once more for the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**26}
"""Largest tensor over chunk, batch and latent variables by type of device, in bytes (one dimension is the least chunk).
About four are alive at a time: together they fit a core's cache, and keep a GPU busy for longer than a launch takes."""


def tilted_bits(logits: Tensor, weight: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log E[e^t] for t = T z, and mean and variance of m = A z under the law of z tilted by e^t; each [B, D].

    Differentiable by a hand-derived backward pass that computes the tilted probabilities again; once only.

    Args:
        logits: [B, k], of independent bits.
        weight: A, shape [D, k].
        exponent: T, shape [D, k].
    """
    log_normalizer, mean, variance = _TiltedBits.apply(logits, weight, exponent)
    return log_normalizer.T, mean.T, variance.T


def _chunks(logits: Tensor, dimensions: int) -> Iterator[slice]:
    budget = CHUNK_BYTES.get(logits.device.type, CHUNK_BYTES["cpu"])
    size = max(1, budget // max(1, logits.numel() * logits.element_size()))
    for start in range(0, dimensions, size):
        yield slice(start, start + size)


class _TiltedBits(torch.autograd.Function):
    """``tilted_bits`` with the dimensions first, so that every product over the latent variables is one of matrices.

    Bits of a positive logit are flipped, z = flipped + sign z', so that no z' is likely and 1 - p of a saturated bit
    keeps its digits. With P' the tilted probability of z', whose tilted logit is sign t - |l|, and signed = sign P',

        log E e^(t z) = t flipped + softplus(sign t - |l|) - softplus(-|l|),    P = flipped + signed,
        P (1 - P) = signed (sign - signed),                                     1 - 2 P = sign - 2 signed.
    """

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], _output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def forward(logits: Tensor, weight: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flipped, sign, magnitude = _folded(logits)
        log_normalizer, mean = F.linear(exponent, flipped), F.linear(weight, flipped)
        variance = torch.empty_like(mean)
        untilted = F.softplus(-magnitude)
        for rows in _chunks(logits, len(weight)):
            natural = (exponent[rows, None] * sign).sub_(magnitude)
            columns = weight[rows, :, None]
            log_normalizer[rows] += F.softplus(natural).sub_(untilted).sum(2)
            signed = natural.sigmoid_().mul_(sign)
            mean[rows] += (signed @ columns).squeeze(2)
            variance[rows] = ((sign - signed).mul_(signed) @ columns.square()).squeeze(2)
        return log_normalizer, mean, variance

    @staticmethod
    def backward(ctx: Any, by_log_normalizer: Tensor, by_mean: Tensor, by_variance: Tensor) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled():
            raise NotImplementedError("tilted_bits: no second derivatives, hence no backward pass with create_graph")
        logits, weight, exponent = ctx.saved_tensors
        flipped, sign, magnitude = _folded(logits)
        untilted = (-magnitude).sigmoid() * sign
        by_weight, by_exponent = by_mean @ flipped, by_log_normalizer @ (flipped + untilted)
        by_logits = torch.zeros_like(logits)
        for rows in _chunks(logits, len(weight)):
            a = weight[rows, None]
            signed = (exponent[rows, None] * sign).sub_(magnitude).sigmoid_().mul_(sign)
            spread = (sign - signed).mul_(signed)
            by_weight[rows] += (by_mean[rows, None] @ signed + 2 * a * (by_variance[rows, None] @ spread)).squeeze(1)
            # By the logit, the derivatives of the three are P - p, a P (1 - P) and a^2 P (1 - P)(1 - 2 P). P and p are
            # not summed on their own: over all dimensions that is hundreds of times their difference.
            slope = torch.sub(sign, signed, alpha=2).mul_(by_variance[rows, :, None]).mul_(a)
            slope.add_(by_mean[rows, :, None]).mul_(a).mul_(spread)
            slope.add_(signed.sub_(untilted).mul_(by_log_normalizer[rows, :, None]))
            by_exponent[rows] += slope.sum(1)
            by_logits += slope.sum(0)
        return by_logits, by_weight, by_exponent


def _folded(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which bits are flipped (0 or 1), the sign that this gives them (1 or -1) and the magnitude of their logits."""
    flipped = (logits > 0).to(logits.dtype)
    return flipped, 1 - 2 * flipped, logits.abs()
