"""E log|s| of a random precision s with known cumulants: exact for a normal s, and approximations.

Every function takes the first cumulants of s as tensors of one shape and returns nats of that shape.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# R(w) = E log|s| - 1/2 log(S^2 + V) for s ~ N(S, V) and w = V / (S^2 + V): w times a rational function of w, within
# 2.0e-7 on [0, 1]. Least-squares fits of the exact form 1/2 log V + g(S / sqrt V),
# g(t) = -(gamma + log 2)/2 + int_0^{t/sqrt 2} 2 Dawson(u) du, which tests/method/decoders/test_log_terms.py tests.
# fmt: off
_NUMERATOR = (
    -0.9999901606901269, 4.517501871604608, -193.8350251994701, -930.1251700142188, -6387.203208937641,
    -159600.5062873841, -1449.9401038668577, 1913.2954705646368,
)
_DENOMINATOR = (
    1.0, -6.029837781531856, 200.74757597474087, 443.03864002063204, 11143.683071238953, 44052.06701703874,
    155693.67104124403, 50829.697631982235,
)
# P(w) = -2 R'(w), which both derivatives of E log|s| are made of, within 2.8e-6 on [0, 1]. The derivatives of the fit
# above would be off by up to 4e-5.
_SLOPE_NUMERATOR = (
    2.0000027954482054, -38.83122676737908, 926.1692595526496, -3179.3365159250748, 112099.14288531222,
    -479800.2072327865, 21113963.987912476, -20626414.50124329, -117584.26430771407,
)
_SLOPE_DENOMINATOR = (
    1.0, -22.4123357534262, 515.031057722847, -2722.6495923457337, 44700.59513646981, 104554.37652267977,
    1861402.55589634, 7763345.570971695, 21126198.697224382,
)
# fmt: on
_TINY = 1e-20
"""Keeps S = V = 0 finite; far below any float32 precision that occurs."""
_TAYLOR_TINY = 1e-16
"""The same for the expansions, whose gradients divide by the square of the second moment: 1 / 1e-40 is infinite in
float32, and a bit that is saturated at s = 0 would make the gradient NaN."""


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value


def normal(mean: Tensor, variance: Tensor) -> Tensor:
    """Return E log|s| of s ~ N(mean, variance), smooth through mean = 0 and variance = 0.

    Exact to 4e-7 nats in float32. The first derivatives have a fit of their own, within 1e-6 / sqrt(E s^2) by the mean
    and 2e-6 / E s^2 by the variance. Second derivatives come from this fit and are within 4e-5.

    For a sum of many independent terms that is not normal this is the central-limit form.
    """
    return _Normal.apply(mean, variance)


class _Normal(torch.autograd.Function):
    """``normal`` and its derivatives S / q (1 + w P) and (1 - (1 - w) P) / (2 q), where q = S^2 + V and w = V / q."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], _output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def forward(mean: Tensor, variance: Tensor) -> Tensor:
        second_moment = mean.square() + variance + _TINY
        w = variance / second_moment
        return 0.5 * second_moment.log() + w * _polynomial(_NUMERATOR, w) / _polynomial(_DENOMINATOR, w)

    @staticmethod
    def backward(ctx: Any, by_value: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = ctx.saved_tensors
        second_moment = mean.square() + variance + _TINY
        w = variance / second_moment
        slope = _polynomial(_SLOPE_NUMERATOR, w) / _polynomial(_SLOPE_DENOMINATOR, w)
        by_second_moment = by_value / second_moment
        return by_second_moment * mean * (1 + w * slope), 0.5 * by_second_moment * (1 - (1 - w) * slope)


_NEAR = 0.1
"""Below this 1 - L/S the excess of the lower bound is a power series: its closed form cancels."""
_POWER_SERIES = tuple(1 / (n + 2) for n in range(14))


def lower_bound(mean: Tensor, variance: Tensor, least: Tensor) -> Tensor:
    """Return a lower bound of E log s for any s >= ``least`` > 0 with this mean and variance.

    log S - V / S^2 theta(L / S) with theta(r) = (r - 1 - log r) / (1 - r)^2, which is 1/2, the coefficient of the
    second-order expansion, at r = 1 and larger below. The parabola in s that touches log s at S and meets it at L stays
    below it on [L, inf): their difference has a double zero at S, one at L, and a third derivative of one sign.
    """
    distance = (1 - least / mean).clamp_min(0)
    near = distance < _NEAR
    # Either form gets harmless numbers where the other one is taken, or its gradient would be infinity times zero.
    far = torch.where(near, 0.5, distance)
    ratio = torch.where(near, 0.5, least / mean)
    series = _polynomial(_POWER_SERIES, torch.where(near, distance, 0))
    theta = torch.where(near, series, -(far + ratio.log()) / far.square())
    return mean.log() - variance / mean / mean * theta


def taylor_of_square(mean: Tensor, variance: Tensor, third: Tensor | None, fourth: Tensor | None) -> Tensor:
    """Return the second-order expansion of 1/2 E log s^2 around E s^2 (Teh et al. 2006): the paper's log term.

    Not a bound: it overestimates by up to 0.18 nats for a normal s. ``third`` and ``fourth`` are the cumulants of s,
    None where they vanish.
    """
    squared_mean = mean.square()
    second_moment = squared_mean + variance + _TAYLOR_TINY
    variance_of_square = 4 * squared_mean * variance + 2 * variance.square()
    if third is not None and fourth is not None:
        variance_of_square = variance_of_square + 4 * mean * third + fourth
    # Divided twice: the gradient of a division by the square would hold its fourth power.
    return 0.5 * (second_moment.log() - 0.5 * variance_of_square / second_moment / second_moment)


def taylor(mean: Tensor, variance: Tensor) -> Tensor:
    """Return the second-order expansion of E log|s| around E s; it falls without bound as E s goes to 0."""
    # The share of the variance is felt below |t| = 1e-5 only: at t = 0 a gradient would be infinity times zero.
    squared_mean = mean.square() + 1e-12 * variance + _TAYLOR_TINY
    return 0.5 * squared_mean.log() - 0.5 * variance / squared_mean
