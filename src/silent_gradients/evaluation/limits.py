"""Closed-form limits of Gaussian latents with a linear decoder of fixed variance: probabilistic PCA.

Pixels are dequantized as ``x = (y + u) / levels``, ``u ~ U[0, 1)``, and u is integrated out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silent_gradients.evaluation.metrics import bits_per_dimension

Levels = NDArray[np.uint8]
Real = NDArray[np.float64]


@dataclass(frozen=True)
class Limit:
    """What the optimal decoder and encoder reach, each as a mean over the evaluated images.

    Attributes:
        bpd: Bits per dimension, ``log2(levels) - ELBO / (D ln 2)``.
        kl: KL divergence of the posterior to the standard normal prior, nats per image.
        expected_squared_error: ``E_q |x - m(z)|^2``, summed over pixels, x in ``[0, 1)``.
        mean_decoded_squared_error: ``|x - m(E_q z)|^2``, likewise.
        used_directions: Latent dimensions that carry anything, ``min(k, #{eigenvalues above the variance})``.
    """

    bpd: float
    kl: float
    expected_squared_error: float
    mean_decoded_squared_error: float
    used_directions: int


def pca_limit(images_fit: Levels, images_evaluated: Levels, levels: int, latent_dim: int, variance: float) -> Limit:
    """The best decoder and encoder for one set of images, valued on another (or on the same).

    Let ``l_1 >= .. >= l_D`` and U be the eigenvalues and eigenvectors of the fitted images' covariance, b their mean,
    s the variance and q the number of used directions. The optimum (Tipping and Bishop 1999) has the orthogonal weights
    ``W = U_q (L_q - s)^(1/2)``; hence its exact posterior ``N(L_q^-1 W'(x - b), diag(s / l_i))`` is one that a
    mean-field encoder can have, and its bound is the likelihood (Lucas et al. 2019). Valued on the same images it is::

        ELBO = -1/2 [D log(2 pi) + sum_(i <= q) log l_i + (D - q) log s + q + sum_(i > q) l_i / s],

    which no encoder and no linear decoder of this variance exceeds on these images. On other images the value is that
    of the optimum carried over, and no limit.

    Args:
        images_fit: Images whose optimum it is, uint8 ``[N, ...]``.
        images_evaluated: Images on which it is valued, uint8 ``[M, ...]``.
        levels: Number of grey levels.
        latent_dim: Latent dimension k.
        variance: Variance s of the likelihood, on the scale of x.

    Raises:
        ValueError: The variance is not positive, or the latent dimension is negative.
    """
    if variance <= 0 or latent_dim < 0:
        raise ValueError(f"expected a positive variance and k >= 0, found {variance} and {latent_dim}")
    center, covariance = _moments(images_fit, levels)
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    used = min(latent_dim, int((eigenvalues > variance).sum()))
    fitted, directions = eigenvalues[::-1][:used], eigenvectors[:, ::-1][:, :used]

    center_evaluated, covariance_evaluated = _moments(images_evaluated, levels)
    shift = center_evaluated - center
    scatter = covariance_evaluated + np.outer(shift, shift)
    # E (u_i'(x - b))^2 over the evaluated images: the eigenvalues again where those are the fitted ones.
    spread = (directions * (scatter @ directions)).sum(axis=0)
    rest = float(np.trace(scatter) - spread.sum())

    dimensions = len(center)
    elbo = -0.5 * float(
        dimensions * math.log(2 * math.pi)
        + (np.log(fitted) + spread / fitted).sum()
        + (dimensions - used) * math.log(variance)
        + rest / variance
    )
    shrinkage = variance / fitted
    kl = 0.5 * float(((1 - shrinkage) * spread / fitted + shrinkage - 1 - np.log(shrinkage)).sum())
    mean_decoded = float((shrinkage**2 * spread).sum()) + rest
    return Limit(
        bpd=bits_per_dimension(elbo, dimensions, levels),
        kl=kl,
        expected_squared_error=mean_decoded + variance * float((1 - shrinkage).sum()),
        mean_decoded_squared_error=mean_decoded,
        used_directions=used,
    )


def optimal_variance(images: Levels, levels: int, latent_dim: int) -> float:
    """The variance of the likelihood that gives the best limit: the mean of the D - k smallest eigenvalues.

    Args:
        images: Images, uint8 ``[N, ...]``.
        levels: Number of grey levels.
        latent_dim: Latent dimension k.

    Returns:
        The variance, on the scale of x (Tipping and Bishop 1999).

    Raises:
        ValueError: k is negative or leaves no direction to average over.
    """
    _, covariance = _moments(images, levels)
    dimensions = len(covariance)
    if not 0 <= latent_dim < dimensions:
        raise ValueError(f"expected 0 <= k < {dimensions}, found {latent_dim}")
    return float(np.linalg.eigvalsh(covariance)[: dimensions - latent_dim].mean())


def _moments(images: Levels, levels: int) -> tuple[Real, Real]:
    """Mean ``[D]`` and population covariance ``[D, D]`` of the dequantized images, the noise integrated out."""
    pixels = images.reshape(len(images), -1)
    count, dimensions = pixels.shape
    total, products = np.zeros(dimensions), np.zeros((dimensions, dimensions))
    # Sums of integers are exact in float64, so nothing is lost by subtracting the mean afterwards; pieces bound memory.
    for start in range(0, count, 8192):
        piece = pixels[start : start + 8192].astype(np.float64)
        total += piece.sum(axis=0)
        products += piece.T @ piece
    mean = total / count
    covariance = products / count - np.outer(mean, mean) + np.eye(dimensions) / 12
    return (mean + 0.5) / levels, covariance / levels**2
