"""E[(x - m)^2 s^2] of linear heads, with its own backward pass.

Nearly all time of a guide's step is here: products with [D, k] matrices made of the weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from silent_gradients.decoders.likelihood import in_forward_mode
from silent_gradients.posteriors.contract import JointCumulants, Posterior, joint_cumulants

LARGE = 2**16
"""Numbers in a weight from which on the backward pass by hand is the faster one."""


class WeightedError(NamedTuple):
    """Moments of x - m and s for m = A z + a and s = B z + c."""

    error: Tensor  # E[(x - m)^2 s^2] plus the noise's E s^2, summed over dimensions, [B]
    mean: Tensor  # E s, [B, D]
    variance: Tensor  # Var s, [B, D]


def weighted_error(
    q: Posterior, x: Tensor, noise: Tensor, weight_m: Tensor, bias_m: Tensor, weight_s: Tensor, bias_s: Tensor
) -> WeightedError:
    """Return the expected weighted error, exact for every mean-field q with finite fourth moments.

    With r = x - E m, S = E s and the joint cumulants of m and s it is, in every dimension,
    (r^2 + V_m + noise)(S^2 + V_s) - 4 r S C + 2 C^2 - 2 r K12 + 2 S K21 + K22 (paper, Eq. 7 and Theorem 1). x is
    [B, D], ``noise`` the variance [D] of independent noise on it; weights A and B are [D, k], biases a and c [D].
    """
    heads = (x, noise, weight_m, bias_m, weight_s, bias_s)
    # The compiler and forward mode have no rule for the function; a family with cumulants of its own has no such one.
    own_cumulants = type(q).joint_cumulants is not Posterior.joint_cumulants
    without_rule = torch.compiler.is_compiling() or in_forward_mode()
    if weight_m.numel() < LARGE or own_cumulants or without_rule:
        return _from_cumulants(q.joint_cumulants(weight_m, weight_s), x, noise, bias_m, bias_s)
    cumulants = () if q.is_gaussian else (q.third_cumulant, q.fourth_cumulant)
    return WeightedError(*_WeightedError.apply(*heads, q.mean, q.variance, *cumulants)[:3])


def _from_cumulants(joint: JointCumulants, x: Tensor, noise: Tensor, bias_m: Tensor, bias_s: Tensor) -> WeightedError:
    # In float32 with the biases added last: the residual is a small difference of numbers of order one.
    residual, mean, covariance = x - (joint.mean_m + bias_m), joint.mean_s + bias_s, joint.covariance
    error = (residual.square() + joint.variance_m + noise) * (mean.square() + joint.variance_s)
    error = error + covariance * (2 * covariance - 4 * residual * mean)
    if joint.k12 is not None and joint.k21 is not None and joint.k22 is not None:
        error = error - 2 * residual * joint.k12 + 2 * mean * joint.k21 + joint.k22
    return WeightedError(error.sum(1), mean, joint.variance_s)


def _plain(x: Tensor, noise: Tensor, a: Tensor, bias_m: Tensor, b: Tensor, *rest: Tensor) -> WeightedError:
    """Return the definition for independent latent variables, whose cumulants [B, k] follow ``bias_s`` in ``rest``."""
    bias_s, *cumulants = rest
    return _from_cumulants(joint_cumulants(a, b, *cumulants), x, noise, bias_m, bias_s)


class _WeightedError(torch.autograd.Function):
    """``_plain`` with its first derivatives; those of higher order are those of ``_plain``.

    Products of weights are made once and the terms in K22, summed over dimensions, are products with a vector. Factors
    per image multiply [B, k] in the place of [B, D].
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:
        x, noise, a, bias_m, b, bias_s, mean, variance, *higher = inputs
        aa, bb, ab = a * a, b * b, a * b
        residual, s = x - (F.linear(mean, a) + bias_m), F.linear(mean, b) + bias_s
        variance_s, covariance = F.linear(variance, bb), F.linear(variance, ab)
        square, moment = residual.square() + F.linear(variance, aa) + noise, s.square() + variance_s
        error = torch.addcmul(square * moment, covariance, covariance - 2 * residual * s, value=2)
        if not higher:
            return error.sum(1), s, variance_s, residual, square, moment, covariance, aa, bb, ab
        third, fourth = higher
        abb, aab, aabb = ab * b, ab * a, (ab * ab).sum(0)
        k12, k21 = F.linear(third, abb), F.linear(third, aab)
        error = torch.addcmul(torch.addcmul(error, residual, k12, value=-2), s, k21, value=2)
        more = (abb, aab, aabb, k12, k21)
        value = error.sum(1) + fourth @ aabb
        return value, s, variance_s, residual, square, moment, covariance, aa, bb, ab, *more

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[3:])
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.inputs = len(inputs)

    @staticmethod
    def backward(ctx: Any, by_error: Tensor | None, by_s: Tensor | None, by_v: Tensor | None, *_: None) -> Any:
        saved = ctx.saved_tensors  # once: a checkpoint's tensors are unpacked by it
        inputs, (s, *kept) = saved[: ctx.inputs], saved[ctx.inputs :]
        by_error = s.new_zeros(len(s)) if by_error is None else by_error
        by_s, by_v = (torch.zeros_like(s) if by is None else by for by in (by_s, by_v))
        if torch.is_grad_enabled():
            pullback: Any = torch.func.vjp(_plain, *inputs)[1]
            return pullback(WeightedError(by_error, by_s, by_v))
        _, _, a, _, b, _, mean, variance, *higher = inputs
        _, residual, square, moment, covariance, aa, bb, ab, *more = kept
        # Half of the derivatives by the residual (negative), by S and by C, per unit of the error.
        g = by_error[:, None]
        half_r = torch.addcmul(residual * moment, covariance, s, value=-2)
        half_s = torch.addcmul(s * square, covariance, residual, value=-2)
        if higher:
            *_, k12, k21 = more
            half_r, half_s = half_r - k12, half_s + k21
        half_c = 2 * (covariance - residual * s)
        by_s, by_v = torch.addcmul(by_s, half_s, g, value=2), torch.addcmul(by_v, square, g)
        g_mean, g_variance = -2 * g * mean, 2 * g * variance
        cross = half_c.mT @ g_variance
        by_a = _plus(_plus(half_r.mT @ g_mean, a, moment.mT @ g_variance), b, cross)
        by_b = _plus(_plus(by_s.mT @ mean, b, by_v.mT @ variance, 2), a, cross)
        by_mean = torch.addcmul(by_s @ b, g, half_r @ a, value=-2)
        by_variance = by_v @ bb + g * (moment @ aa + 2 * (half_c @ ab))
        by_higher: tuple[Tensor, ...] = ()
        if higher:
            abb, aab, aabb, *_ = more
            third, fourth = higher
            g_third = 2 * g * third
            # d(ab^2) = b^2 da + 2 ab db, d(a^2 b) = 2 ab da + a^2 db and d(a^2 b^2) / 2 = ab^2 da + a^2 b db
            by_abb, by_aab, by_aabb = residual.mT @ -g_third, s.mT @ g_third, 2 * (by_error @ fourth)
            by_a = _plus(_plus(_plus(by_a, bb, by_abb), ab, by_aab, 2), abb, by_aabb)
            by_b = _plus(_plus(_plus(by_b, ab, by_abb, 2), aa, by_aab), aab, by_aabb)
            by_higher = 2 * g * (s @ aab - residual @ abb), g * aabb
        by_x = 2 * g * half_r
        return by_x, by_error @ moment, by_a, -by_x.sum(0), by_b, by_s.sum(0), by_mean, by_variance, *by_higher


def _plus(total: Tensor, one: Tensor, other: Tensor, value: float = 1) -> Tensor:
    """Return total + value * one * other, in place outside ``torch.vmap``: large new arrays cost more than the sum."""
    if any(map(torch._C._functorch.is_functorch_wrapped_tensor, (total, other))):
        return torch.addcmul(total, one, other, value=value)
    return total.addcmul_(one, other, value=value)
