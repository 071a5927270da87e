"""Moments under exponential tilting, in bounded memory.

Under q(z) exp(t z) / E exp(t z) independent variables stay independent, and each distribution changes: the logits of
bits move from l to l + t. Since t differs for every dimension, the tilted distributions are tensors [B, D, k]. They are
never held as a whole: dimensions are processed a few at a time, and again for the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from math import comb, factorial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**26}
"""Largest tensor over chunk, batch and latent variables by type of device, in bytes (one dimension is the least chunk).
About four exist at a time: together they fit a core's cache, and keep a GPU busy for longer than a launch takes."""


def tilted_bits(logits: Tensor, weight: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log E[e^t] for t = T z, and mean and variance of m = A z under q(z) tilted by e^t; each [B, D].

    Differentiable once, by a hand-derived backward pass that computes the tilted probabilities again. The logits of the
    independent bits are [B, k], the weights A and T [D, k].
    """
    log_normalizer, mean, variance = _TiltedBits.apply(logits, weight, exponent)
    return log_normalizer.T, mean.T, variance.T


def chunk_size(like: Tensor, numbers: int) -> int:
    """Return how many rows of so many numbers of the type of ``like`` [...] make a chunk, at least 1."""
    budget = CHUNK_BYTES.get(like.device.type, CHUNK_BYTES["cpu"])
    return max(1, budget // max(1, numbers * like.element_size()))


def _chunks(rows: Tensor, numbers: int) -> list[slice]:
    size = chunk_size(rows, numbers)
    return [slice(start, start + size) for start in range(0, len(rows), size)]


class _TiltedBits(torch.autograd.Function):
    """``tilted_bits`` with the dimensions first: every product over the latent variables is a matrix product.

    Bits with a positive logit are flipped, z = flipped + sign z', so that no z' is likely and 1 - p of a saturated bit
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
        for rows in _chunks(weight, logits.numel()):
            natural = (exponent[rows, None] * sign).sub_(magnitude)
            columns = weight[rows, :, None]
            log_normalizer[rows] += F.softplus(natural).sub_(untilted).sum(2)
            signed = natural.sigmoid_().mul_(sign)
            mean[rows] += (signed @ columns).squeeze(2)
            variance[rows] = ((sign - signed).mul_(signed) @ columns.square()).squeeze(2)
        return log_normalizer, mean, variance

    @staticmethod
    def backward(ctx: Any, *by_moments: Tensor) -> tuple[Tensor, ...]:
        by_logits, by_weight, by_exponent = _TiltedBitsGradient.apply(*ctx.saved_tensors, *by_moments)
        return by_logits, by_weight, by_exponent


class _TiltedBitsGradient(torch.autograd.Function):
    """The backward pass of ``_TiltedBits``, which has no derivative of its own."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(_ctx: Any, *_by_gradients: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError("tilted_bits: no second derivatives, as of a log-linear precision with bits")

    @staticmethod
    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:
        logits, weight, exponent, by_log_normalizer, by_mean, by_variance = inputs
        flipped, sign, magnitude = _folded(logits)
        untilted = (-magnitude).sigmoid() * sign
        by_weight, by_exponent = by_mean @ flipped, by_log_normalizer @ (flipped + untilted)
        by_logits = torch.zeros_like(logits)
        for rows in _chunks(weight, logits.numel()):
            a = weight[rows, None]
            signed = (exponent[rows, None] * sign).sub_(magnitude).sigmoid_().mul_(sign)
            spread = (sign - signed).mul_(signed)
            by_weight[rows] += (by_mean[rows, None] @ signed + 2 * a * (by_variance[rows, None] @ spread)).squeeze(1)
            # By the logit, the derivatives of the three are P - p, a P (1 - P) and a^2 P (1 - P)(1 - 2 P). P and p are
            # not summed separately: over all dimensions each sum is hundreds of times their difference.
            slope = torch.sub(sign, signed, alpha=2).mul_(by_variance[rows, :, None]).mul_(a)
            slope.add_(by_mean[rows, :, None]).mul_(a).mul_(spread)
            slope.add_(signed.sub_(untilted).mul_(by_log_normalizer[rows, :, None]))
            by_exponent[rows] += slope.sum(1)
            by_logits += slope.sum(0)
        return by_logits, by_weight, by_exponent


def _folded(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which bits are flipped (0 or 1), the resulting sign (1 or -1) and the magnitude of the logits."""
    flipped = (logits > 0).to(logits.dtype)
    return flipped, 1 - 2 * flipped, logits.abs()


def _series(terms: int) -> list[float]:
    """Return the first coefficients of log(sinh x / x) in powers of x^2, from x^2 on: 2^(2n) B_2n / (2n (2n)!)."""
    bernoulli = [Fraction(1)]
    for n in range(1, 2 * terms + 1):
        bernoulli.append(-sum((comb(n + 1, j) * bernoulli[j] for j in range(n)), Fraction(0)) / (n + 1))
    return [float(4**n * bernoulli[2 * n] / (2 * n * factorial(2 * n))) for n in range(1, terms + 1)]


_LOG_SINH_RATIO = _series(18)
"""Coefficients that leave an error below 1e-18 for |x| < 1: they fall as pi^(-2n)."""


def log_sinh_ratio(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log(sinh x / x) of x [...] and its first two derivatives: by the series below 1, in e^(-2|x|) above."""
    near = x.abs() < 1
    inner, outer = torch.where(near, x, 0), torch.where(near, 1, x.abs())
    squared = inner.square()
    value, slope, curvature = (torch.zeros_like(x) for _ in range(3))
    for n, coefficient in reversed(list(enumerate(_LOG_SINH_RATIO, 1))):
        value = value * squared + coefficient
        slope = slope * squared + 2 * n * coefficient
        curvature = curvature * squared + 2 * n * (2 * n - 1) * coefficient
    decayed, left = (-2 * outer).exp(), -(-2 * outer).expm1()
    far_value = outer + (left / (2 * outer)).log()
    far_slope = x.sign() * ((1 + decayed) / left - 1 / outer)
    far_curvature = outer.reciprocal().square() - 4 * decayed / left.square()
    return (
        torch.where(near, value * squared, far_value),
        torch.where(near, slope * inner, far_slope),
        torch.where(near, curvature, far_curvature),
    )


def moments_by_rows(moments: _Function, weight: Tensor, exponent: Tensor, *of: Tensor) -> Iterator[Tensor]:
    """Yield the moments of ``tilted_bits``, [B, D], from a function of rows of A and T [D, k] and of tensors ``of``."""
    return (moment.T for moment in by_rows(moments, (weight, exponent), of, of[0].numel()))


_Function = Callable[..., tuple[Tensor, ...]]
"""Function from rows of some tensors, and from others as a whole, to rows of the results."""


def by_rows(function: _Function, rows: Sequence[Tensor], others: Sequence[Tensor], numbers: int) -> tuple[Tensor, ...]:
    """Return a function's results [N, ...] from a few rows at a time, computed again for the gradient.

    Args:
        function: The function, of ``rows`` and ``others``; every row of its results is that of the same row alone.
        rows: Tensors [N, ...].
        others: Further tensors.
        numbers: How many numbers it holds at a time per row.
    """
    return _ByRows.apply(function, len(rows), numbers, *rows, *others)


class _ByRows(torch.autograd.Function):
    """``by_rows``."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: tuple[Tensor, ...]) -> None:
        ctx.function, ctx.count, ctx.numbers, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def forward(function: _Function, count: int, numbers: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        rows, others = tensors[:count], tensors[count:]
        parts = [function(*(each[some] for each in rows), *others) for some in _chunks(rows[0], numbers)]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    @staticmethod
    def backward(ctx: Any, *by_results: Tensor) -> tuple[Tensor | None, ...]:
        rows, others = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        by_rows, by_others = [], [torch.zeros_like(each) for each in others]
        for some in _chunks(rows[0], ctx.numbers):
            pullback: Any = torch.func.vjp(ctx.function, *(each[some] for each in rows), *others)[1]
            found = pullback(tuple(by[some] for by in by_results))
            by_rows.append(found[: ctx.count])
            by_others = [a + b for a, b in zip(by_others, found[ctx.count :], strict=True)]
        return None, None, None, *(torch.cat(part) for part in zip(*by_rows, strict=True)), *by_others
