"""Test of the mean of high-dimensional samples (Chen and Qin 2010)."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

_ROUNDING = 1e-5
"""Differences below this share of the mean's norm count as rounding of float32."""


class MeanDifference(NamedTuple):
    """The difference of two means.

    Attributes:
        relative: Norm of the difference over the norm of the second mean, estimated without the bias of the samples'
            noise; 0 if the estimate is negative.
        z: The estimated squared norm over its standard deviation under equal means. It is normal in high dimensions
            and skewed to the right in low ones: values above about 4 show a difference.
    """

    relative: float
    z: float


def mean_difference(samples: Tensor, reference: Tensor) -> MeanDifference:
    """Compare the mean of independent samples with the mean of a reference.

    The squared norm of the difference and its deviation are estimated by products of different samples alone, so noise
    adds nothing to their expectation. No covariance matrix is formed, and there may be fewer samples [N, d] than
    dimensions. The reference is [M, d], M samples, or [1, d], the mean itself.

    Raises:
        ValueError: There are too few samples.
    """
    if len(samples) < 4 or len(reference) in (0, 2, 3):
        raise ValueError(f"expected 4 samples or more, got {len(samples)}, and of the reference {len(reference)}")
    exact = len(reference) == 1
    # Relative to the reference's mean: rounding of a large common mean would hide the difference.
    center = reference.double().mean(0)
    x, y = samples.double() - center, reference.double() - center
    own, theirs = x @ x.T, y @ y.T
    squared = _between(own)
    variance = 2 * _squared_covariance(own) / (len(x) * (len(x) - 1))
    norm = float(center @ center)
    if not exact:
        cross = x @ y.T
        squared += _between(theirs) - 2 * float(cross.mean())
        variance += 2 * _squared_covariance(theirs) / (len(y) * (len(y) - 1))
        variance += 4 * _covariances_product(cross) / cross.numel()
        norm -= float(theirs.trace()) / (len(y) * (len(y) - 1))
    norm = max(norm, 0.0)
    deviation = math.hypot(math.sqrt(max(variance, 0.0)), _ROUNDING**2 * norm)
    relative = math.sqrt(max(squared, 0.0) / norm) if norm > 0 else math.inf if squared > 0 else 0.0
    return MeanDifference(relative, squared / deviation if deviation > 0 else 0.0)


def _between(gram: Tensor) -> float:
    """Return the mean of the products x_i'x_j over i != j: the squared norm of the mean, without bias."""
    count = len(gram)
    return float(gram.sum() - gram.trace()) / (count * (count - 1))


def _squared_covariance(gram: Tensor) -> float:
    """Return tr(S^2) of the samples' covariance S, without bias: the mean of all other samples centres each factor."""
    count, diagonal = len(gram), gram.diagonal()
    # [j, k]: the product of x_k with the mean of all samples but j and k.
    others = (gram.sum(0) - gram - diagonal) / (count - 2)
    products = (gram - others) * (gram - others.T)
    return float(products.sum() - products.trace()) / (count * (count - 1))


def _covariances_product(cross: Tensor) -> float:
    """Return tr(S T) of the covariances S and T of two independent samples from their products, [N, M]."""
    first, second = cross.shape
    products = (cross - (cross.sum(0) - cross) / (first - 1)) * (
        cross - (cross.sum(1, keepdim=True) - cross) / (second - 1)
    )
    return float(products.mean())
