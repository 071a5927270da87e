"""Nonlinear decoder with an exact expectation: squares or cosines.

Not of the paper, whose text says that a nonlinear decoder leaves no closed form. Moments of squares are polynomials in
the cumulants of q; those of cosines are exponentials, as the expected kernels of Titsias and Lawrence (2010) are, and
enough cosines approximate every continuous function (Rahimi and Recht 2007).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from silent_gradients import checks
from silent_gradients.decoders.fixed_variance import INITIAL_WEIGHT_SCALE, PixelVarianceDecoder, small_linear
from silent_gradients.decoders.likelihood import in_forward_mode
from silent_gradients.posteriors.contract import Posterior
from silent_gradients.posteriors.tilting import by_rows, chunk_size

Activation = Literal["square", "cosine"]


class TwoLayerDecoder(PixelVarianceDecoder):
    """p(x|z) = N(A z + U y + b, diag(v)) with y = phi(V z + c) and phi a square or a cosine.

    Args:
        latent_dim: k.
        dimensions: D.
        hidden: R, number of hidden units; the expectation costs R^2 per image.
        activation: ``square``, exact for every family of independent latent variables, or ``cosine``, exact for every
            family with a characteristic function; quick for Gaussian ones, R^2 k per image for others.
        variance: v, one number or [D]; the initial one if it is learned.
        mean: [D], initial b: the data's mean; None for 1/2.
        learned_variance: Learn a variance for each dimension.

    Raises:
        ShapeError: ``mean`` is not [D], or ``variance`` is neither a number nor [D].
        ValueError: Unknown activation, ``variance`` is not positive and finite, or R not a whole number of 1 or more.
    """

    def __init__(
        self,
        latent_dim: int,
        dimensions: int,
        hidden: int,
        activation: Activation,
        variance: float | Tensor,
        mean: Tensor | None = None,
        *,
        learned_variance: bool = False,
    ) -> None:
        super().__init__(latent_dim, dimensions, variance, learned=learned_variance)
        checks.whole("hidden", hidden)
        if activation not in get_args(Activation):
            raise ValueError(f"activation: expected one of {list(get_args(Activation))}, got {activation!r}")
        self.activation: Activation = activation
        self.linear, self.hidden = small_linear(latent_dim, dimensions, mean), nn.Linear(latent_dim, hidden)
        self.output = nn.Linear(hidden, dimensions, bias=False)
        nn.init.normal_(self.output.weight, std=INITIAL_WEIGHT_SCALE)
        square = activation == "square"
        nn.init.normal_(self.hidden.weight, std=(0.5 if square else 1.0) / math.sqrt(latent_dim))
        with torch.no_grad():
            if square:
                self.hidden.bias.normal_(std=0.1)
            else:
                self.hidden.bias.uniform_(0, 2 * math.pi)

    def mean(self, z: Tensor) -> Tensor:
        inner = self.hidden(z)
        return self.linear(z) + self.output(inner.square() if self.activation == "square" else inner.cos())

    def is_exact(self, q: Posterior) -> bool:
        return q.has_independent_coordinates if self.activation == "square" else q.has_characteristic()

    def moments(self, q: Posterior, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Return E_q m and the weighted variance of m = A z + U y + b: of z, of y and of both.

        Raises:
            NotImplementedError: There are none for the family.
        """
        if not self.is_exact(q):
            raise NotImplementedError(
                f"q: a decoder of {self.activation}s has no expectation under a {q.name} posterior; sample it"
            )
        linear, output = self.linear, self.output.weight
        weighted = precision[:, None] * output
        expected = _squares if self.activation == "square" else _normal_cosines if q.is_gaussian else _cosines
        hidden, variance = expected(q, self.hidden, linear.weight.T @ weighted, output.T @ weighted)
        mean = F.linear(q.mean, linear.weight, linear.bias) + F.linear(hidden, output)
        return mean, variance + q.total_variance(precision.sqrt()[:, None] * linear.weight)


def _squares(q: Posterior, hidden: nn.Linear, cross: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return E y [B, R] of y = (V z + c)^2, and 2 sum H_jr Cov(z_j, y_r) + sum G_rs Cov(y_r, y_s), [B].

    Args:
        q: The posterior.
        hidden: V and c.
        cross: H, shape [k, R].
        gram: G, shape [R, R].
    """
    weight = hidden.weight
    squared, a = weight.square(), F.linear(q.mean, weight, hidden.bias)
    total = _pair_sums(_square_kernel, q.variance, weight, 4 * gram, a[None], None)
    total = total + 4 * (a * F.linear(q.variance, weight * cross.T)).sum(1)
    if not q.is_gaussian:
        weighted = gram @ squared
        third, fourth = q.third_cumulant, q.fourth_cumulant
        total = total + 4 * (a * F.linear(third, weight * weighted)).sum(1) + fourth @ (squared * weighted).sum(0)
        total = total + 2 * third @ (squared * cross.T).sum(0)
    return a.square() + q.linear_variance(weight), total


def _normal_cosines(q: Posterior, hidden: nn.Linear, cross: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return what ``_squares`` does for y = cos(V z + c) and a Gaussian q."""
    weight = hidden.weight
    a, half = F.linear(q.mean, weight, hidden.bias), 0.5 * q.linear_variance(weight)
    factors = torch.stack((a.cos(), a.sin()))
    mean, slopes = factors * (-half).exp()
    total = _pair_sums(_cosine_kernel, q.variance, weight, 0.5 * gram, factors, half) - (mean @ gram * mean).sum(1)
    return mean, total - 2 * (slopes * F.linear(q.variance, weight * cross.T)).sum(1)


def _cosines(q: Posterior, hidden: nn.Linear, cross: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return what ``_squares`` does for y = cos(V z + c) and any q with a characteristic function.

    With E e^(i t z) = e^(L + i f), E cos(t z + c) is e^L cos(f + c), and E (H z) cos(t z + c) the derivative of
    e^L sin(f + c) along H. A product of cosines is half the sum of those of the sum and of the difference.
    """
    weight, bias, family = hidden.weight, hidden.bias[:, None], type(q)

    def expected(frequency: Tensor, phase: Tensor, counted: Tensor, parameters: Tensor) -> tuple[Tensor]:
        modulus, argument = family(parameters).log_characteristic(frequency)
        return (counted * modulus.exp() * (argument + phase).cos(),)

    found: Any = torch.func.vjp(q.log_characteristic, weight)
    (modulus, argument), pullback = found
    # The pullback is linear in what it pulls back: its own is the derivative along a direction.
    ((stretched, turned),) = torch.func.vjp(pullback, (modulus, argument))[1]((cross.T,))
    damping, angle = modulus.exp(), argument + bias
    mean = (damping * angle.cos()).T
    joint = (damping * (angle.cos() * turned + angle.sin() * stretched)).sum(0) - (q.mean @ cross * mean).sum(1)
    r, s = torch.triu_indices(*gram.shape, device=gram.device)
    counted = torch.where(r == s, 0.5, 1.0).to(gram.dtype) * gram[r, s]
    rows = [torch.cat((of[r] + of[s], of[r] - of[s])) for of in (weight, bias)]
    (products,) = by_rows(expected, (*rows, counted.repeat(2)[:, None]), (q.parameters,), q.mean.numel())
    return mean, 2 * joint + products.sum(0) - (mean @ gram * mean).sum(1)


class _Values(NamedTuple):
    """What a sum over pairs adds up, [B, M, N] each.

    Attributes:
        value: sum_i p_ir p_is F_i(C_rs).
        slope: Its derivative by C_rs.
        functions: The F_i(C_rs).
    """

    value: Tensor
    slope: Tensor
    functions: tuple[Tensor, ...]


_Kernel = Callable[["_Block", Tensor, Tensor], _Values]
"""Function of a block and of factors p_r [I, B, M, 1] and p_s [I, B, 1, N]."""


def _square_kernel(block: _Block, left: Tensor, right: Tensor) -> _Values:
    """Return a quarter of Cov(y_r, y_s) = 2 C^2 + 4 a_r a_s C for a normal z."""
    covariance, a = block.covariance, (left[0], right[0])
    value = torch.addcmul(0.5 * covariance, *a) * covariance
    return _Values(value, torch.addcmul(covariance, *a), (covariance,))


def _cosine_kernel(block: _Block, left: Tensor, right: Tensor) -> _Values:
    """Return 2 E y_r y_s = 2 e^(-h_r - h_s) (cos a_r cos a_s cosh C + sin a_r sin a_s sinh C), no exponent positive."""
    assert block.halves is not None
    plus, minus = (block.covariance - block.halves).exp(), torch.add(block.covariance, block.halves).neg_().exp()
    even, odd = plus + minus, plus - minus
    cosines, sines = left * right
    value, slope = (torch.addcmul(cosines * one, sines, other) for one, other in ((even, odd), (odd, even)))
    return _Values(value, slope, (even, odd))


KEPT_BYTES = 2**26
"""Covariances of a model up to about this size are kept for the gradient; larger ones are computed again."""


def _pair_sums(*arguments: Any) -> Tensor:
    """Return the sums of ``_PairSums``, in forward mode without its backward pass."""
    sums: Callable[..., tuple[Tensor, ...]] = _PairSums.forward if in_forward_mode() else _PairSums.apply
    return sums(*arguments)[0]


class _PairSums(torch.autograd.Function):
    """sum_rs G_rs sum_i p_ir p_is F_i(C_rs, h_r + h_s), [B], for C = V diag(v) V' and a symmetric G.

    F is proportional to e^(-h_r - h_s), or h is None. The pairs with r <= s are processed a block at a time: beside
    kept covariances, which are further results, memory is that of a block.
    """

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.kernel, *tensors = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *output[1:])

    @staticmethod
    def forward(
        kernel: _Kernel, variance: Tensor, weight: Tensor, gram: Tensor, factors: Tensor, half: Tensor | None
    ) -> tuple[Tensor, ...]:
        total, kept = torch.zeros_like(variance[:, 0]), []
        keep = len(weight) ** 2 * total.nbytes <= 2 * KEPT_BYTES
        for block in _blocks(variance, weight, gram, half):
            value = kernel(block, *block.parts(factors)).value
            total = total + value.flatten(1) @ block.counted.flatten()
            kept += [block.covariance] if keep else []
        return total, *kept

    @staticmethod
    def backward(ctx: Any, by_total: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        variance, weight, gram, factors, half, *kept = ctx.saved_tensors
        if by_total is None:
            return (None,) * 6
        # What is kept has no derivative, and so none of second order.
        kept = [] if torch.is_grad_enabled() else kept
        scaled, scale = variance * by_total[:, None], by_total[:, None, None]
        by_variance, by_weight, by_factors = (torch.zeros_like(each) for each in (variance, weight, factors))
        by_gram = []
        for block in _blocks(variance, weight, gram, half, kept):
            left, right = block.parts(factors)
            value, slope, functions = ctx.kernel(block, left, right)
            before, after = (block.rows.start, len(weight) - block.rows.stop), (block.rows.start, 0)
            by_counted = (by_total @ value.flatten(1)).view_as(block.counted)
            by_gram.append(F.pad(by_counted * block.times, after))
            counted = [function * block.counted for function in functions]
            by_left = torch.stack([(each @ p.mT) for each, p in zip(counted, right, strict=True)]) * scale
            by_right = torch.stack([(each.mT @ p) for each, p in zip(counted, left, strict=True)]) * scale
            by_factors = by_factors + F.pad(by_left.squeeze(3), before) + F.pad(by_right.squeeze(3), after)
            # Derivatives by C of each image, and by v_j V_rj
            by_covariance, rows = slope * block.counted, weight[block.rows]
            by_scaled = by_covariance @ weight[block.columns]
            by_variance = by_variance + (by_scaled * rows).sum(1)
            by_rows = (by_scaled * scaled[:, None]).sum(0)
            pairs, weighted = by_covariance.flatten(0, 1), scaled[:, None] * rows
            by_columns = pairs.mT @ weighted.reshape(-1, weight.shape[1])  # not flatten: torch's older vmap lacks it
            by_weight = by_weight + F.pad(by_rows, (0, 0, *before)) + F.pad(by_columns, (0, 0, *after))
        by_half = None if half is None else -(factors * by_factors).sum(0)
        return None, by_variance * by_total[:, None], by_weight, torch.cat(by_gram), by_factors, by_half


class _Block(NamedTuple):
    """The pairs of M hidden units with the N that are not before them."""

    rows: slice
    columns: slice
    times: Tensor  # [N], how often a pair counts: twice if its reverse is in no block
    counted: Tensor  # [M, N], G times that
    covariance: Tensor  # [B, M, N]
    halves: Tensor | None  # [B, M, N], h_r + h_s

    def parts(self, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Return factors [I, B, R] of the rows, [I, B, M, 1], and of the columns, [I, B, 1, N]."""
        return factors[..., self.rows, None], factors[..., None, self.columns]


def _blocks(
    variance: Tensor, weight: Tensor, gram: Tensor, half: Tensor | None, kept: Sequence[Tensor] = ()
) -> Iterator[_Block]:
    hidden = len(weight)
    size = chunk_size(variance, len(variance) * hidden)
    for number, start in enumerate(range(0, hidden, size)):
        rows, columns = slice(start, min(start + size, hidden)), slice(start, None)
        times = (torch.arange(start, hidden, device=weight.device) >= rows.stop).to(weight.dtype) + 1
        scaled = None if kept else variance[:, None] * weight[rows]
        covariance = kept[number] if scaled is None else F.linear(scaled, weight[columns])
        halves = None if half is None else half[:, rows, None] + half[:, None, columns]
        yield _Block(rows, columns, times, gram[rows, columns] * times, covariance, halves)
