"""Nonlinear decoder with an exact expectation: squares or cosines.

Not of the paper, whose text says that a nonlinear decoder leaves no closed form. Moments of squares are polynomials in
the cumulants of q; those of cosines are exponentials, as the expected kernels of Titsias and Lawrence (2010) are, and
enough cosines approximate every continuous function (Rahimi and Recht 2007).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
    """What a sum over pairs adds up, and G times its derivatives, [B, M, N] each."""

    value: Tensor  # sum_i p_ir p_is F_i(C_rs)
    slope: Tensor  # G_rs times its derivative by C_rs
    functions: tuple[Tensor, ...]  # the G_rs F_i(C_rs)


_Kernel = Callable[[Tensor, Tensor | None, Tensor, Tensor, Tensor], _Values]
"""Function of covariances and of -h_r - h_s, [B, M, N], of factors p_r [I, B, M, 1] and p_s [I, B, 1, N], and of G."""


def _square_kernel(covariance: Tensor, _exponents: Tensor | None, left: Tensor, right: Tensor, gram: Tensor) -> _Values:
    """Return a quarter of Cov(y_r, y_s) = 2 C^2 + 4 a_r a_s C for a normal z."""
    slope = torch.addcmul(covariance, left[0], right[0])
    value = torch.sub(slope, covariance, alpha=0.5).mul_(covariance)
    return _Values(value, slope * gram, (covariance * gram,))


def _cosine_kernel(covariance: Tensor, exponents: Tensor | None, left: Tensor, right: Tensor, gram: Tensor) -> _Values:
    """Return 2 E y_r y_s = 2 e^(-h_r - h_s) (cos a_r cos a_s cosh C + sin a_r sin a_s sinh C), no exponent positive."""
    assert exponents is not None
    plus, minus = (exponents + covariance).exp_(), (exponents - covariance).exp_()
    even, odd = plus + minus, plus - minus
    cosines, sines = left[0] * right[0], left[1] * right[1]
    value = torch.addcmul(cosines * even, sines, odd)
    even, odd = even * gram, odd * gram
    return _Values(value, torch.addcmul(cosines * odd, sines, even), (even, odd))


LEAST_ROWS = 16
"""Least hidden units in a block but the last: with fewer, operations are short and many."""

KEPT_BYTES = 2**26
"""Derivatives of a model up to about this size are kept for the gradient; larger ones are computed again."""


def _pair_sums(
    kernel: _Kernel, variance: Tensor, weight: Tensor, gram: Tensor, factors: Tensor, half: Tensor | None
) -> Tensor:
    """Return the sums of ``_PairSums``, some images at a time, in forward mode without its backward pass."""
    sums: Callable[..., tuple[Tensor, ...]] = _PairSums.forward if in_forward_mode() else _PairSums.apply
    hidden, images = len(weight), len(variance)
    keep = torch.is_grad_enabled() and images * hidden**2 * variance.element_size() <= KEPT_BYTES
    size = chunk_size(variance, LEAST_ROWS * hidden)
    total = []
    for start in range(0, images, size):
        own = slice(start, start + size)
        halves = None if half is None else half[own]
        total.append(sums(kernel, keep, variance[own], weight, gram, factors[:, own], halves)[0])
    return torch.cat(total) if total else variance.new_zeros(0)


class _PairSums(torch.autograd.Function):
    """sum_rs G_rs sum_i p_ir p_is F_i(C_rs, h_r + h_s), [B], for C = V diag(v) V' and a symmetric G.

    F is proportional to e^(-h_r - h_s), or h is None. The pairs with r <= s are processed a block at a time: beside
    kept derivatives, which are further results, memory is that of a block. Without ``keep``, as where no gradient is
    wanted, none are.
    """

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.kernel, _, *tensors = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *output[1:])

    @staticmethod
    def forward(
        kernel: _Kernel,
        keep: bool,
        variance: Tensor,
        weight: Tensor,
        gram: Tensor,
        factors: Tensor,
        half: Tensor | None,
    ) -> tuple[Tensor, ...]:
        total = torch.zeros_like(variance[:, 0])
        kept: list[Tensor] = []
        for block in _blocks(variance, weight, gram):
            values = block.values(kernel, variance, weight, factors, half)
            total = total + values.value.flatten(1) @ block.counted.flatten()
            kept += block.derivatives(values, factors) if keep else ()
        return total, *kept

    @staticmethod
    def backward(ctx: Any, by_total: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        variance, weight, gram, factors, half, *kept = ctx.saved_tensors
        if by_total is None:
            return (None,) * 7
        # What is kept has no derivative, and so none of second order.
        kept = [] if torch.is_grad_enabled() else kept
        scaled, by_variance = variance * by_total[:, None], torch.zeros_like(variance)
        by_weight, by_factors, by_gram = [], [], []
        for number, block in enumerate(_blocks(variance, weight, gram)):
            value, by_covariance, by_left, by_right = kept[4 * number : 4 * number + 4] or block.derivatives(
                block.values(ctx.kernel, variance, weight, factors, half), factors
            )
            by_counted = (by_total @ value.flatten(1)).view_as(block.counted)
            by_gram.append(F.pad(by_counted * block.times, (block.rows.start, 0)))
            by_factors.append((by_left, by_right))
            # Derivatives by C of each image, and by v_j V_rj
            rows = weight[block.rows]
            by_scaled = by_covariance @ weight[block.columns]
            by_variance = by_variance + (by_scaled * rows).sum(1)
            pairs, weighted = by_covariance.flatten(0, 1), scaled[:, None] * rows
            by_columns = pairs.mT @ weighted.reshape(-1, weight.shape[1])  # not flatten: torch's older vmap lacks it
            by_weight.append(((by_scaled * scaled[:, None]).sum(0), by_columns))
        by_factor = _joined(by_factors, 2) * by_total[:, None]
        by_half = None if half is None else -(factors * by_factor).sum(0)
        by_scales = by_variance * by_total[:, None], _joined(by_weight, 0), torch.cat(by_gram)
        return None, None, *by_scales, by_factor, by_half


def _joined(parts: list[tuple[Tensor, Tensor]], dim: int) -> Tensor:
    """Return the sum, [..., R, ...], of what each block adds to its rows and to the columns from there on."""
    finished: list[Tensor] = []
    rest: Tensor | int = 0
    for rows, columns in parts:
        size = rows.shape[dim]
        own, rest = (columns + rest).split([size, columns.shape[dim] - size], dim)
        finished.append(own + rows)
    return torch.cat(finished, dim)


class _Block(NamedTuple):
    """The pairs of M hidden units with the N that are not before them."""

    rows: slice
    columns: slice
    times: Tensor  # [N], how often a pair counts: twice if its reverse is in no block
    counted: Tensor  # [M, N], G times that

    def values(
        self, kernel: _Kernel, variance: Tensor, weight: Tensor, factors: Tensor, half: Tensor | None
    ) -> _Values:
        """Return what the pairs add up."""
        covariance = F.linear(variance[:, None] * weight[self.rows], weight[self.columns])
        exponents = None if half is None else -half[:, self.rows, None] - half[:, None, self.columns]
        sides = factors[..., self.rows, None], factors[..., None, self.columns]
        return kernel(covariance, exponents, *sides, self.counted)

    def derivatives(self, values: _Values, factors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the value and the derivatives of the counted sum by C and by the factors of rows and of columns."""
        left, right = factors[..., self.rows], factors[..., self.columns]
        # Vectors as rows: a product with one made a column by [..., None] is eight times as slow.
        functions = values.functions
        by_left = torch.stack([(each @ p[:, None].mT).squeeze(2) for each, p in zip(functions, right, strict=True)])
        by_right = torch.stack([(p[:, None] @ each).squeeze(1) for each, p in zip(functions, left, strict=True)])
        return values.value, values.slope, by_left, by_right


def _blocks(variance: Tensor, weight: Tensor, gram: Tensor) -> Iterator[_Block]:
    hidden = len(weight)
    # Half of a block's first M columns is computed for nothing.
    size = min(chunk_size(variance, len(variance) * hidden), max(LEAST_ROWS, hidden // 8))
    for start in range(0, hidden, size):
        rows, columns = slice(start, min(start + size, hidden)), slice(start, None)
        times = weight.new_full((hidden - start,), 2.0)
        times[: rows.stop - start] = 1.0
        yield _Block(rows, columns, times, gram[rows, columns] * times)
