"""Nonlinear decoder of two layers with an exact expectation: squares or cosines of linear functions of z.

Not of the paper, whose text says that a nonlinear decoder leaves no closed form. Moments of squares are polynomials in
the cumulants of q; those of cosines are exponentials, as the expected kernels of Titsias and Lawrence (2010) are, and
enough cosines approximate every continuous function (Rahimi and Recht 2007).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from silent_gradients.decoders.fixed_variance import INITIAL_WEIGHT_SCALE, PixelVarianceDecoder, small_linear
from silent_gradients.posteriors.contract import Posterior

Activation = Literal["square", "cosine"]


class TwoLayerDecoder(PixelVarianceDecoder):
    """p(x|z) = N(A z + U y + b, diag(v)) with y = phi(V z + c) and phi a square or a cosine.

    Args:
        latent_dim: k.
        dimensions: D.
        hidden: R, number of hidden units; the expectation costs R^2 per image.
        activation: ``square``, exact for every family of independent latent variables, or ``cosine``, exact for
            Gaussian ones.
        variance: v, one number or [D]; the initial one if it is learned.
        mean: [D], initial b: the data's mean; None for 1/2.
        learned_variance: Learn a variance for each dimension.

    Raises:
        ShapeError: ``mean`` is not [D], or ``variance`` is neither a number nor [D].
        ValueError: Unknown activation, or ``variance`` is not positive and finite.
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
        return q.is_gaussian or (self.activation == "square" and q.has_independent_coordinates)

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
        hidden, variance = (_squares if self.activation == "square" else _cosines)(
            q, self.hidden, linear.weight.T @ weighted, output.T @ weighted
        )
        mean = F.linear(q.mean, linear.weight, linear.bias) + F.linear(hidden, output)
        return mean, variance + q.total_variance(precision.sqrt()[:, None] * linear.weight)


def _covariance(q: Posterior, weight: Tensor) -> Tensor:
    """Return the covariances C of V z for ``weight`` V [R, k], shape [B, R, R]."""
    products = weight[:, None] * weight
    return F.linear(q.variance, products.flatten(0, 1)).unflatten(1, products.shape[:2])


def _squares(q: Posterior, hidden: nn.Linear, cross: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return E y [B, R] of y = (V z + c)^2, and 2 sum H_jr Cov(z_j, y_r) + sum G_rs Cov(y_r, y_s), [B].

    Args:
        q: The posterior.
        hidden: V and c.
        cross: H, shape [k, R].
        gram: G, shape [R, R].
    """
    weight = hidden.weight
    squared, a, covariance = weight.square(), F.linear(q.mean, weight, hidden.bias), _covariance(q, weight)
    products = a[:, :, None] * a[:, None]
    total = (gram * covariance * (2 * covariance + 4 * products)).sum((1, 2))
    total = total + 4 * (a * F.linear(q.variance, weight * cross.T)).sum(1)
    if not q.is_gaussian:
        weighted = gram @ squared
        third, fourth = q.third_cumulant, q.fourth_cumulant
        total = total + 4 * (a * F.linear(third, weight * weighted)).sum(1) + fourth @ (squared * weighted).sum(0)
        total = total + 2 * third @ (squared * cross.T).sum(0)
    return a.square() + covariance.diagonal(dim1=1, dim2=2), total


def _cosines(q: Posterior, hidden: nn.Linear, cross: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return what ``_squares`` does for y = cos(V z + c) and a Gaussian q."""
    weight = hidden.weight
    a, covariance = F.linear(q.mean, weight, hidden.bias), _covariance(q, weight)
    half = 0.5 * covariance.diagonal(dim1=1, dim2=2)
    mean, damping = a.cos() * (-half).exp(), -half[:, :, None] - half[:, None]
    difference, joint = a[:, :, None] - a[:, None], a[:, :, None] + a[:, None]
    # Exponents are 0 at most: together before exp.
    products = difference.cos() * (damping + covariance).exp() + joint.cos() * (damping - covariance).exp()
    total = (gram * (0.5 * products - mean[:, :, None] * mean[:, None])).sum((1, 2))
    slopes = a.sin() * (-half).exp()
    return mean, total - 2 * (slopes * F.linear(q.variance, weight * cross.T)).sum(1)
