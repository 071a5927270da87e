import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from silent_gradients.evaluation.limits import Limit, LinearModel, Moments, factor_analysis_limit, pca_limit

LEVELS, D = 9, 6
Real = NDArray[np.float64]


def _images(seed: int, count: int) -> NDArray[np.uint8]:
    """Correlated levels."""
    generator = np.random.default_rng(seed)
    latent = generator.normal(size=(count, 2)) @ generator.normal(size=(2, D)) * 1.5 + 4
    noisy = latent + generator.normal(scale=0.4, size=(count, D))
    return np.clip(noisy.round(), 0, LEVELS - 1).astype(np.uint8).reshape(count, 1, 2, 3)


def _dequantized(images: NDArray[np.uint8]) -> Real:
    """Finitely many dequantizations with the exact mean and covariance of uniform noise, ``[2 D N, D]``."""
    noise = 0.5 + np.sqrt(D / 12) * np.concatenate([np.eye(D), -np.eye(D)])
    x: Real = (images.reshape(-1, 1, D) + noise) / LEVELS
    return x.reshape(-1, D)


def _optimum(x: Real, latent_dim: int, variance: float) -> tuple[Real, Real]:
    """Weights and mean of Tipping and Bishop by the singular values of the data."""
    _, singular, directions = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    scale = np.sqrt(np.maximum(singular**2 / len(x) - variance, 0))[:latent_dim]
    return directions[:latent_dim].T * scale, x.mean(axis=0)


def _bits(log_density: Real, x: Real) -> float:
    return float(np.log2(LEVELS) - log_density.mean() / (x.shape[1] * np.log(2)))


FIT, OTHER = _images(1, 40), _images(2, 25)
CASES = [(k, variance) for k in (0, 1, 2, 4, 6, 10) for variance in (1.0, 0.02, 0.003, 0.0005)]


def _assert_terms(limit: Limit, model: tuple[Real, Real, Real], x: Real) -> None:
    """Compare with the likelihood and the exact posterior of the model of weights, mean and noise variances."""
    W, b, noise = model
    k = W.shape[1]
    covariance = np.linalg.inv(np.eye(k) + (W.T / noise) @ W)
    # A mean-field encoder can have it.
    assert np.abs(covariance - np.diag(np.diag(covariance))).max(initial=0) < 1e-12
    mean = (x - b) / noise @ W @ covariance
    kl = 0.5 * ((mean**2).sum(axis=1) + np.trace(covariance) - k - np.linalg.slogdet(covariance)[1])
    residual = (x - b - mean @ W.T) ** 2
    spread = ((W @ covariance) * W).sum(axis=1)
    bound = -0.5 * (np.log(2 * np.pi * noise).sum() + ((residual + spread) / noise).sum(axis=1)) - kl
    log_density = stats.multivariate_normal(b, W @ W.T + np.diag(noise)).logpdf(x)
    assert limit.bpd == pytest.approx(_bits(log_density, x), rel=1e-9)
    assert limit.bpd == pytest.approx(_bits(bound, x), rel=1e-9)
    assert limit.kl == pytest.approx(kl.mean(), rel=1e-9, abs=1e-12)
    assert limit.mean_decoded_squared_error == pytest.approx(residual.sum(axis=1).mean(), rel=1e-8)
    assert limit.expected_squared_error == pytest.approx(residual.sum(axis=1).mean() + spread.sum(), rel=1e-8)
    assert limit.used_directions == np.count_nonzero(np.abs(W).sum(axis=0))


@pytest.mark.parametrize(("latent_dim", "variance"), CASES)
@pytest.mark.parametrize("evaluated", [FIT, OTHER], ids=["same", "other"])
def test_terms_are_those_of_the_likelihood_and_the_exact_posterior(latent_dim, variance, evaluated):
    model = (*_optimum(_dequantized(FIT), latent_dim, variance), np.full(D, variance))
    _assert_terms(pca_limit(FIT, evaluated, LEVELS, latent_dim, variance), model, _dequantized(evaluated))


@pytest.mark.parametrize("latent_dim", [0, 1, 3, 5])
def test_no_other_variance_has_a_better_limit(latent_dim):
    best = Moments.of(FIT, LEVELS).optimal_variance(latent_dim)
    limits = [pca_limit(FIT, FIT, LEVELS, latent_dim, best * factor).bpd for factor in (0.5, 0.99, 1, 1.01, 2)]
    assert min(limits) == limits[2]


def _factor_model(latent_dim: int) -> tuple[Real, Real, Real]:
    """Weights, mean and noise variances of the factor analysis of ``FIT``."""
    model = LinearModel.with_learnt_variances(Moments.of(FIT, LEVELS), latent_dim)
    return np.sqrt(model.noise)[:, None] * model.directions * np.sqrt(model.eigenvalues - 1), model.mean, model.noise


FLOOR = 1 / (12 * LEVELS**2)
DIMENSIONS = [0, 1, 2, 3, 4, 6, 10]


@pytest.mark.parametrize("latent_dim", [1, 2, 3, 4])
def test_no_factor_model_within_the_bounds_has_a_better_likelihood(latent_dim):
    """Quasi-Newton steps in all weights and noise variances, from other starting points."""
    x = _dequantized(FIT)
    covariance, generator = np.cov(x.T, bias=True), np.random.default_rng(7)

    def deviance(parameters: Real) -> tuple[float, Real]:
        W, log_noise = parameters[: D * latent_dim].reshape(D, latent_dim), parameters[D * latent_dim :]
        model = W @ W.T + np.diag(np.exp(log_noise))
        inverse = np.linalg.inv(model)
        slope = inverse - inverse @ covariance @ inverse
        value = np.linalg.slogdet(model)[1] + np.trace(inverse @ covariance)
        return value, np.concatenate([(2 * slope @ W).ravel(), np.diag(slope) * np.exp(log_noise)])

    bounds = [(None, None)] * (D * latent_dim) + [(np.log(FLOOR), None)] * D
    best = min(
        optimize.minimize(
            deviance,
            np.concatenate([0.1 * generator.normal(size=D * latent_dim), np.log(np.diag(covariance))]),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-9},
        ).fun
        for _ in range(5)
    )
    reached = np.log2(LEVELS) + (D * np.log(2 * np.pi) + best) / (2 * D * np.log(2))
    assert factor_analysis_limit(FIT, FIT, LEVELS, latent_dim).bpd == pytest.approx(reached, abs=1e-6)


@pytest.mark.parametrize("latent_dim", DIMENSIONS)
@pytest.mark.parametrize("evaluated", [FIT, OTHER], ids=["same", "other"])
def test_terms_of_factor_analysis_are_those_of_its_exact_posterior(latent_dim, evaluated):
    model, limit = _factor_model(latent_dim), factor_analysis_limit(FIT, evaluated, LEVELS, latent_dim)
    _assert_terms(limit, model, _dequantized(evaluated))
    assert limit.used_directions <= latent_dim


@pytest.mark.parametrize("latent_dim", DIMENSIONS)
def test_factor_analysis_ascends_within_its_bounds_and_beats_probabilistic_pca(latent_dim):
    models = list(LinearModel.factor_analyses(Moments.of(FIT, LEVELS), latent_dim))
    deviances = [model.deviance for model in models]
    assert all(after < before for before, after in pairwise(deviances))
    assert all((model.noise >= FLOOR * (1 - 1e-9)).all() for model in models)
    if latent_dim < D:
        variance = Moments.of(FIT, LEVELS).optimal_variance(latent_dim)
        pca = pca_limit(FIT, FIT, LEVELS, latent_dim, variance).bpd
        assert factor_analysis_limit(FIT, FIT, LEVELS, latent_dim).bpd <= pca


def test_more_factors_are_never_worse_and_all_of_them_are_the_normal_law_itself():
    found = [factor_analysis_limit(FIT, FIT, LEVELS, k).bpd for k in range(D + 1)]
    assert all(after <= before + 1e-7 for before, after in pairwise(found))
    x = _dequantized(FIT)
    normal = stats.multivariate_normal(x.mean(axis=0), np.cov(x.T, bias=True)).logpdf(x)
    assert found[-1] == pytest.approx(_bits(normal, x), abs=1e-7)


def test_a_pixel_that_never_changes_costs_its_dequantization_noise_alone():
    constant = np.full((40, 1, 2, 3), 4, dtype=np.uint8)
    limit = factor_analysis_limit(constant, constant, LEVELS, 2)
    assert limit.bpd == pytest.approx(0.5 * np.log2(2 * np.pi * np.e / 12), rel=1e-9)
    assert (limit.kl, limit.used_directions) == (0, 0)
    assert limit.expected_squared_error == pytest.approx(D * FLOOR, rel=1e-9)


def test_mnist_has_the_limits_computed_independently():
    mirror = os.environ.get("SILENT_GRADIENTS_MIRROR")
    folder = Path(mirror or "") / "MNIST" / "raw"
    if not mirror or not folder.is_dir():
        pytest.skip("needs the real MNIST: set SILENT_GRADIENTS_MIRROR to a folder that holds MNIST/raw")
    train, test = (
        np.fromfile(folder / f"{part}-images-idx3-ubyte", dtype=np.uint8, offset=16).reshape(-1, 784)
        for part in ("train", "t10k")
    )
    same, other = (pca_limit(train, images, 256, 200, 0.01) for images in (train, test))
    assert same.bpd == pytest.approx(6.7196, abs=1e-4)
    assert other.bpd == pytest.approx(6.7139, abs=1e-4)
    oracle = pca_limit(test, test, 256, 200, 0.01)
    assert oracle.bpd == pytest.approx(6.7062, abs=1e-4)
    assert (oracle.kl, oracle.expected_squared_error, oracle.mean_decoded_squared_error) == pytest.approx(
        (198, 3.67, 2.17), rel=3e-3
    )
    assert Moments.of(train, 256).optimal_variance(200) == pytest.approx(0.0030, abs=5e-5)
    assert pca_limit(train, train, 256, 784, 0.01).used_directions == 251
