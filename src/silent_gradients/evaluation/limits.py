"""Closed-form limits: probabilistic PCA and factor analysis.

Pixels are dequantized as ``x = (y + u) / levels``, ``u ~ U[0, 1)``, and u is integrated out. All numbers are float64.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silent_gradients import checks
from silent_gradients.evaluation.metrics import bits_per_dimension

Levels = NDArray[np.uint8]
Real = NDArray[np.float64]

CONVERGED = 1e-8
"""Gain of one step of factor analysis, in bits/dim, below which it has converged."""
MOST_STEPS = 1000
_LARGEST_LOG_STEP = 1.0
_RIDGE = 1e-9
_AT_THE_FLOOR = 1e-12


@dataclass(frozen=True)
class Limit:
    """The metrics of the optimal decoder and encoder, each a mean over the evaluated images.

    Attributes:
        bpd: Bits per dimension, ``log2(levels) - ELBO / (D ln 2)``.
        kl: KL divergence of the posterior to the standard normal prior, nats per image.
        expected_squared_error: ``E_q |x - m(z)|^2``, summed over pixels, x in ``[0, 1)``.
        mean_decoded_squared_error: ``|x - m(E_q z)|^2``, likewise.
        used_directions: Number of latent dimensions in use.
    """

    bpd: float
    kl: float
    expected_squared_error: float
    mean_decoded_squared_error: float
    used_directions: int


def pca_limit(images_fit: Levels, images_evaluated: Levels, levels: int, latent_dim: int, variance: float) -> Limit:
    """Return the metrics of the best decoder and encoder for one set of images on another (or on the same).

    Let ``l_1 >= .. >= l_D`` and U be the eigenvalues and eigenvectors of the fitted images' covariance, b their mean,
    s the variance and ``q = min(k, #{l_i > s})`` the number of used directions. The optimum (Tipping and Bishop 1999)
    has the orthogonal weights ``W = U_q (L_q - s)^(1/2)``. Hence a mean-field encoder can have its exact posterior
    ``N(L_q^-1 W'(x - b), diag(s / l_i))``, and its bound is the likelihood (Lucas et al. 2019). On the same images it
    is::

        ELBO = -1/2 [D log(2 pi) + sum_(i <= q) log l_i + (D - q) log s + q + sum_(i > q) l_i / s],

    which no encoder and no linear decoder of this variance exceeds on these images. On other images it is not a limit.

    Args:
        images_fit: Images that decoder and encoder are optimal for, uint8 ``[N, ...]``.
        images_evaluated: Images of the metrics, uint8 ``[M, ...]``.
        levels: Number of grey levels.
        latent_dim: k.
        variance: Variance s of the likelihood, on the scale of x.

    Raises:
        ValueError: The variance is not positive, the latent dimension is negative, or the images are no grey levels.
    """
    fitted, evaluated = (Moments.of(images, levels) for images in (images_fit, images_evaluated))
    return LinearModel.with_variance(fitted, latent_dim, variance).limit(evaluated)


def factor_analysis_limit(images_fit: Levels, images_evaluated: Levels, levels: int, latent_dim: int) -> Limit:
    """Return the metrics of a factor analysis of one set of images on another (or on the same).

    The model is ``x ~ N(b, W W' + diag(noise))``. Its log-likelihood is maximised over W, b and noise variances of at
    least the variance of the dequantization noise, ``1 / (12 levels^2)``. W is determined up to a rotation of the
    latent variables, and most rotations have a posterior that is not mean-field. The rotation that makes
    ``W' diag(noise)^-1 W`` diagonal has a mean-field posterior, with a mean linear in x and a constant variance, so an
    encoder can have it: the likelihood is then an evidence lower bound, with the KL divergence and the errors returned.

    It is a limit of linear means with a learnable variance per pixel that is the same for every image, and of nothing
    with more freedom. Linear decoders whose precision is linear in z contain it (zero weights in the precision): with
    Gaussian latents and enough training they must be at least as good. The likelihood may have several maxima; this is
    the one that ascent from Jöreskog's (1967) starting point finds.

    The arguments are those of ``pca_limit``.

    Raises:
        ValueError: The latent dimension is negative.
    """
    fitted, evaluated = (Moments.of(images, levels) for images in (images_fit, images_evaluated))
    return LinearModel.with_learnt_variances(fitted, latent_dim).limit(evaluated)


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of a set of dequantized images."""

    mean: Real  # [D]
    covariance: Real  # of the population, [D, D]
    levels: int  # number of grey levels

    @classmethod
    def of(cls, images: Levels, levels: int) -> Moments:
        """Return the moments of images, uint8 ``[N, ...]``, with the dequantization noise integrated out.

        Raises:
            ValueError: There is no image, or they are no whole numbers below ``levels``, a whole number of 1 or more.
        """
        if not isinstance(images, np.ndarray) or images.dtype.kind not in "ui" or images.ndim < 2 or not images.size:
            raise ValueError(
                f"images: expected a NumPy array of whole grey levels [N, ...], got {type(images).__name__} of shape "
                f"{list(np.shape(images))}; (x * levels).astype(np.uint8) makes one of images in [0, 1)"
            )
        if images.max() >= checks.whole("levels", levels):
            raise ValueError(f"images: expected grey levels below {levels}, got {images.max()}")
        pixels = images.reshape(len(images), -1)
        count, dimensions = pixels.shape
        total, products = np.zeros(dimensions), np.zeros((dimensions, dimensions))
        # Sums of integers are exact in float64, so the mean can be subtracted afterwards; pieces bound the memory.
        for start in range(0, count, 8192):
            piece = pixels[start : start + 8192].astype(np.float64)
            total += piece.sum(axis=0)
            products += piece.T @ piece
        mean = total / count
        covariance = products / count - np.outer(mean, mean) + np.eye(dimensions) / 12
        return cls((mean + 0.5) / levels, covariance / levels**2, levels)

    def optimal_variance(self, latent_dim: int) -> float:
        """Return the likelihood variance with the best limit: the mean of the D - k smallest eigenvalues.

        The variance is on the scale of x (Tipping and Bishop 1999).

        Raises:
            ValueError: k is negative or leaves no direction to average over.
        """
        dimensions = len(self.mean)
        if checks.whole("latent_dim", latent_dim, 0) >= dimensions:
            raise ValueError(f"latent_dim: expected less than {dimensions}, got {latent_dim}")
        return float(np.linalg.eigvalsh(self.covariance)[: dimensions - latent_dim].mean())


@dataclass(frozen=True, eq=False)
class LinearModel:
    """The maximum-likelihood model ``N(b, W W' + diag(noise))`` for given noise variances.

    The covariance C is whitened by the noise, ``diag(noise)^(-1/2) C diag(noise)^(-1/2)``, with eigenvalues ``l_i`` and
    eigenvectors U. Then ``W = diag(noise)^(1/2) U_q (L_q - 1)^(1/2)``, where q counts the eigenvalues above 1, at most
    k of them.
    """

    mean: Real  # b, [D]
    whitened: Real  # covariance, [D, D]
    noise: Real  # variances, [D]
    eigenvalues: Real  # those in use, [q]
    directions: Real  # their eigenvectors, [D, q]

    @classmethod
    def with_variance(cls, fitted: Moments, latent_dim: int, variance: float) -> LinearModel:
        """Return the model of probabilistic PCA: the same variance for every pixel; see ``pca_limit``.

        Raises:
            ValueError: The variance is not positive, or the latent dimension is negative.
        """
        variance = checks.number("variance", variance, "a positive number")
        return cls._best(fitted, np.full(len(fitted.mean), variance), checks.whole("latent_dim", latent_dim, 0))

    @classmethod
    def with_learnt_variances(cls, fitted: Moments, latent_dim: int) -> LinearModel:
        """Return the model of factor analysis; see ``factor_analysis_limit``.

        Raises:
            ValueError: The latent dimension is negative.
        """
        # A model is as large as the covariance: only the last one is kept.
        return deque(cls.factor_analyses(fitted, latent_dim), maxlen=1).pop()

    @classmethod
    def _best(cls, fitted: Moments, noise: Real, latent_dim: int) -> LinearModel:
        whitened = fitted.covariance / np.sqrt(np.outer(noise, noise))
        eigenvalues, eigenvectors = np.linalg.eigh(whitened)
        used = min(latent_dim, int((eigenvalues > 1).sum()))
        return cls(fitted.mean, whitened, noise, eigenvalues[::-1][:used], eigenvectors[:, ::-1][:, :used])

    @property
    def deviance(self) -> float:
        """Return minus twice the mean log-likelihood of the fitted data in nats, but for ``D log(2 pi)``."""
        unexplained = np.trace(self.whitened) - self.eigenvalues.sum()
        return float(np.log(self.noise).sum() + (np.log(self.eigenvalues) + 1).sum() + unexplained)

    def limit(self, evaluated: Moments) -> Limit:
        """Return the metrics of the model on other images, or on the fitted ones.

        Raises:
            ValueError: The images have another number of pixels.
        """
        noise, directions, eigenvalues = self.noise, self.directions, self.eigenvalues
        if evaluated.mean.shape != self.mean.shape:
            raise ValueError(f"images_evaluated: expected {len(self.mean)} pixels, got {len(evaluated.mean)}")
        shift = evaluated.mean - self.mean
        scatter = (evaluated.covariance + np.outer(shift, shift)) / np.sqrt(np.outer(noise, noise))
        projected = scatter @ directions
        # E (u_i' diag(noise)^(-1/2) (x - b))^2: equal to the eigenvalues on the fitted data.
        spread = (directions * projected).sum(axis=0)
        dimensions, variance = len(noise), 1 / eigenvalues
        elbo = -0.5 * float(
            dimensions * math.log(2 * math.pi)
            + np.log(noise).sum()
            + (np.log(eigenvalues) + spread * variance).sum()
            + np.trace(scatter)
            - spread.sum()
        )
        # The mean decodes to x - b times the projection, shrunk as the posterior mean is.
        shrunk = directions * (1 - variance)
        errors = np.diag(scatter) + (shrunk * (shrunk @ (directions.T @ projected) - 2 * projected)).sum(axis=1)
        mean_decoded = float((noise * errors).sum())
        weights_squared = noise[:, None] * directions**2 * (eigenvalues - 1)
        return Limit(
            bpd=bits_per_dimension(elbo, dimensions, evaluated.levels),
            kl=0.5 * float(((1 - variance) * spread * variance + variance - 1 + np.log(eigenvalues)).sum()),
            expected_squared_error=mean_decoded + float((weights_squared * variance).sum()),
            mean_decoded_squared_error=mean_decoded,
            used_directions=len(eigenvalues),
        )

    @classmethod
    def factor_analyses(cls, fitted: Moments, latent_dim: int) -> Iterator[LinearModel]:
        """Yield models of increasing likelihood until convergence.

        With the best W for given noise variances (an eigendecomposition) the likelihood is a function of their
        logarithms alone. Its gradient is known. With P the projection onto the unused directions and R the part of the
        whitened covariance in them, P * R (entry by entry) approximates its curvature, as P * P does if the model fits
        (Jöreskog 1967). If a step of Newton's method, kept within the bounds, does not raise the likelihood,
        ``noise = diag(C - W W')`` replaces it: a step of expectation maximisation, which never lowers the likelihood.

        Raises:
            ValueError: The latent dimension is negative.
        """
        checks.whole("latent_dim", latent_dim, 0)
        floor, dimensions = 1 / (12 * fitted.levels**2), len(fitted.mean)
        lowest, highest = math.log(floor), np.log(np.diag(fitted.covariance).clip(min=floor))
        share = 1 - latent_dim / (2 * dimensions)
        model = cls._best(fitted, (share / np.diag(np.linalg.inv(fitted.covariance))).clip(min=floor), latent_dim)
        yield model
        for _ in range(MOST_STEPS):
            used = model.directions @ model.directions.T
            unused = np.eye(dimensions) - used
            rest = model.whitened - (model.directions * model.eigenvalues) @ model.directions.T
            gradient = np.diag(unused) - np.diag(rest)
            log_noise = np.log(model.noise)
            free = (log_noise > lowest + _AT_THE_FLOOR) | (gradient < 0)
            curvature = (unused * rest)[np.ix_(free, free)] + _RIDGE * np.eye(int(free.sum()))
            step = np.zeros(dimensions)
            step[free] = -np.linalg.solve(curvature, gradient[free])
            newton = np.clip(log_noise + step.clip(-_LARGEST_LOG_STEP, _LARGEST_LOG_STEP), lowest, highest)
            fixed_point = np.maximum(model.noise * (np.diag(used) + np.diag(rest)), floor)
            for noise in (np.exp(newton), fixed_point):
                candidate = cls._best(fitted, noise, latent_dim)
                gain = (model.deviance - candidate.deviance) / (2 * dimensions * math.log(2))
                if gain > 0:
                    model = candidate
                    yield model
                    break
            if gain < CONVERGED:
                return
