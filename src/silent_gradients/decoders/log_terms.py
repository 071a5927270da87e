"""E log|s| of a random precision s: exact and approximate.

Every function takes the first cumulants of s as tensors of one shape and returns nats of that shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

# R(w) = E log|s| - 1/2 log(S^2 + V) for s ~ N(S, V) and w = V / (S^2 + V): w times a rational function of w, within
# 2.0e-7 on [0, 1]. Least-squares fits of the exact form 1/2 log V + g(S / sqrt V),
# g(t) = -(gamma + log 2)/2 + int_0^{t/sqrt 2} 2 Dawson(u) du, which tests/method/decoders/test_log_terms.py tests.
# For float32; below is the series for float64.
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
# R / y in Chebyshev polynomials of 2 y - 1 for y = 9 w / (1 + 8 w), within 1e-15 on [0, 1]. With V = 1, y is
# 1 / (1 + t^2 / 9): the series converges geometrically in t, which one in w does not.
_SERIES = (
    -0.3333333333333333, -0.28982513823492445, -0.06385022590596358, 0.019197280471642555, 0.022249310606829754,
    0.007738028913577863, 0.001108701738055199, 0.0005846888343542213, 0.0006085070859479556, 0.00022115700148629498,
    4.1087303534216175e-05, 4.062975325443923e-05, 2.5793954245454317e-05, 5.059116930242024e-06,
    2.930003871830166e-06, 2.811443683578698e-06, 6.151440357116099e-07, 2.169731333627823e-07, 3.207526273644355e-07,
    6.840086976830133e-08, 1.3819325772788889e-08, 4.006866491888841e-08, 6.3483827899103665e-09,
    3.675054912737436e-10, 5.586999506902825e-09, 2.3940800540795225e-10, -5.3760688191435605e-11,
    8.556467456740086e-10, -1.0956918120098876e-10, 9.402318695127482e-12, 1.345361523075043e-10,
    -4.6598208064552256e-11, 1.2961967729667539e-11, 1.8825600042103465e-11, -1.2459226410760459e-11,
    5.764969544049457e-12, 1.447847338285199e-12, -2.480001599107126e-12, 1.7834402176177273e-12,
    -3.4895507721538016e-13, -2.9020164131013385e-13, 4.091927914336523e-13, -2.102530959154965e-13,
    3.1722616815485654e-14, 5.815529427265325e-14, -5.958015475986234e-14, 3.025471066657746e-14,
    -2.62708528549873e-15, -9.266259173317478e-15, 9.424943961925678e-15, -4.701959724023838e-15,
    5.166281189085502e-16, 1.4398591040714153e-15, -1.5246790120450254e-15, 8.294741335109146e-16,
    -1.4673935348029362e-16, -2.0314602995363752e-16, 2.535787535644297e-16,
)
# fmt: on
_SERIES_SLOPE: tuple[float, ...] = tuple((2 * np.polynomial.chebyshev.chebder(_SERIES)).tolist())
_STRETCH = 9.0


_EXPANDED = 0.42
"""Power for the expansions, 1e-16 in float32: their gradients divide by the second moment's square, and 1 / 1e-40 would
be infinite, the gradient of a bit that is saturated at s = 0 NaN."""


def _tiny(dtype: torch.dtype, power: float = 0.53) -> float:
    """Return what keeps S = V = 0 finite, far below any second moment that occurs: 1e-20 in float32."""
    return torch.finfo(dtype).tiny ** power


def _chebyshev(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Return the series by Clenshaw's recurrence."""
    later = last = torch.zeros_like(x)
    for coefficient in reversed(coefficients[1:]):
        later, last = 2 * x * later - last + coefficient, later
    return x * later - last + coefficients[0]


def _remainder(w: Tensor) -> Tensor:
    """Return R(w)."""
    if w.dtype != torch.float64:
        return w * _polynomial(_NUMERATOR, w) / _polynomial(_DENOMINATOR, w)
    y = _STRETCH * w / (1 + (_STRETCH - 1) * w)
    return y * _chebyshev(_SERIES, 2 * y - 1)


def _slope(w: Tensor) -> Tensor:
    """Return P(w) = -2 R'(w)."""
    if w.dtype != torch.float64:
        return _polynomial(_SLOPE_NUMERATOR, w) / _polynomial(_SLOPE_DENOMINATOR, w)
    stretched = 1 + (_STRETCH - 1) * w
    y = _STRETCH * w / stretched
    by_y = _chebyshev(_SERIES, 2 * y - 1) + y * _chebyshev(_SERIES_SLOPE, 2 * y - 1)
    return -2 * _STRETCH * by_y / stretched.square()


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value


def normal(mean: Tensor, variance: Tensor) -> Tensor:
    """Return E log|s| of s ~ N(mean, variance), smooth through mean = 0 and variance = 0.

    Exact to 4e-7 nats in float32, to 1e-14 in float64. The first derivatives have a fit of their own in float32, within
    1e-6 / sqrt(E s^2) by the mean and 2e-6 / E s^2 by the variance; second derivatives are within 4e-5.

    For a sum of many independent terms that is not normal this is the central-limit form.
    """
    # The compiler has no rule for a function with a forward mode.
    return (_Normal if torch.compiler.is_compiling() else _NormalWithForwardMode).apply(mean, variance)


class _Normal(torch.autograd.Function):
    """``normal`` and its derivatives S / q (1 + w P) and (1 - (1 - w) P) / (2 q), where q = S^2 + V and w = V / q."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], _output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def forward(mean: Tensor, variance: Tensor) -> Tensor:
        second_moment = mean.square() + variance + _tiny(mean.dtype)
        return 0.5 * second_moment.log() + _remainder(variance / second_moment)

    @staticmethod
    def backward(ctx: Any, by_value: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = ctx.saved_tensors
        second_moment = mean.square() + variance + _tiny(mean.dtype)
        w = variance / second_moment
        slope, by_second_moment = _slope(w), by_value / second_moment
        return by_second_moment * mean * (1 + w * slope), 0.5 * by_second_moment * (1 - (1 - w) * slope)


class _NormalWithForwardMode(_Normal):
    @staticmethod
    def jvp(ctx: Any, of_mean: Tensor, of_variance: Tensor) -> Tensor:
        by_mean, by_variance = _Normal.backward(ctx, torch.ones_like(of_mean))
        return by_mean * of_mean + by_variance * of_variance


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
    second_moment = squared_mean + variance + _tiny(mean.dtype, _EXPANDED)
    variance_of_square = 4 * squared_mean * variance + 2 * variance.square()
    if third is not None and fourth is not None:
        variance_of_square = variance_of_square + 4 * mean * third + fourth
    # Divided twice: the gradient of a division by the square would hold its fourth power.
    return 0.5 * (second_moment.log() - 0.5 * variance_of_square / second_moment / second_moment)


def taylor(mean: Tensor, variance: Tensor) -> Tensor:
    """Return the second-order expansion of E log|s| around E s; it falls without bound as E s goes to 0."""
    # The share of the variance is felt below |t| of about 8 eps only: at t = 0 a gradient would be infinity times zero.
    share = 70 * torch.finfo(mean.dtype).eps ** 2
    squared_mean = mean.square() + share * variance + _tiny(mean.dtype, _EXPANDED)
    return 0.5 * squared_mean.log() - 0.5 * variance / squared_mean
