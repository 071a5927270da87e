"""The arithmetic behind docs/hidden-settings.md, against models whose settings are known, and the tables of images."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from studies.implied_settings import (
    Mnist,
    PrincipalComponents,
    equivalent_deviation,
    implied_kl,
    least_bits,
    least_bpd,
    tables_of_cifar10,
    tables_of_mnist,
)

from silent_gradients.evaluation.limits import LinearModel, Moments
from silent_gradients.evaluation.metrics import bits_per_dimension
from silent_study.data.prepare import dequantize, prepare

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hidden-settings.md"


@pytest.fixture(scope="module")
def moments():
    factors = np.random.default_rng(0).normal(size=(500, 6)) @ np.random.default_rng(1).normal(size=(6, 20))
    return Moments.of(np.clip(128 + 25 * factors, 0, 255).astype(np.uint8), 256)


def test_the_kl_of_a_known_model_comes_out_of_its_bound_and_its_error(moments):
    limit = LinearModel.with_variance(moments, 4, 0.003).limit(moments)
    assert implied_kl(limit.bpd, limit.expected_squared_error, 0.003, 20) == pytest.approx(limit.kl, rel=1e-9)


def test_a_gaussian_fit_of_one_deviation_is_its_own_equivalent():
    dimensions, deviation, kl = 12, 3.5 / 256, 7.0
    # E (x - m)^2 = deviation^2: the fit is right on average.
    reconstruction = dimensions * (0.5 * math.log(2 * math.pi * deviation**2) + 0.5)
    bpd = bits_per_dimension(-reconstruction - kl, dimensions, 256)
    assert equivalent_deviation(bpd, kl, dimensions) == pytest.approx(3.5)


@pytest.mark.parametrize("bits", [1, 7, 186])
def test_fair_bits_that_are_all_known_have_the_largest_divergence(bits):
    assert least_bits(bits * math.log(2) - 1e-9) == bits
    assert least_bits(bits * math.log(2) + 1e-9) == bits + 1


@pytest.mark.parametrize("variance", [0.004, 0.008, 0.015])
def test_no_linear_model_beats_the_least_bound_of_its_error(moments, variance):
    """Decoders near the optima of other variances, each with its best mean-field encoder under variance 0.01."""
    optimum = LinearModel.with_variance(moments, 4, variance)
    weights = optimum.directions * np.sqrt(variance * (optimum.eigenvalues - 1))
    weights += 0.02 * np.random.default_rng(2).normal(size=weights.shape) * np.abs(weights).max()
    precision = np.eye(4) + weights.T @ weights / 0.01
    variances = 1 / np.diag(precision)
    gain = np.linalg.solve(precision, weights.T) / 0.01
    remainder = np.eye(20) - weights @ gain
    error = float(np.trace(remainder @ moments.covariance @ remainder.T) + (weights**2 * variances).sum())
    kl = 0.5 * float(np.trace(gain @ moments.covariance @ gain.T) + (variances - 1 - np.log(variances)).sum())
    bpd = bits_per_dimension(-10 * math.log(2 * math.pi * 0.01) - error / 0.02 - kl, 20, 256)

    least = least_bpd(lambda s: LinearModel.with_variance(moments, 4, s).limit(moments), error, 20)
    assert least < bpd < least + 0.2
    assert least >= LinearModel.with_variance(moments, 4, 0.01).limit(moments).bpd


@pytest.mark.parametrize("k", [0, 1, 5, 13, 19])
def test_the_principal_components_of_all_k_are_those_of_each(moments, k):
    images = np.random.default_rng(3).integers(60, 200, size=(200, 20)).astype(np.uint8)
    evaluated = Moments.of(images, 256)
    components = PrincipalComponents.of(moments, evaluated)
    variance = moments.optimal_variance(k)
    limit = LinearModel.with_variance(moments, k, variance).limit(evaluated)
    assert components.bpd[k] == pytest.approx(limit.bpd, rel=1e-10)
    assert components.kl[k] == pytest.approx(limit.kl, rel=1e-8, abs=1e-8)
    assert components.deviation[k] == pytest.approx(256 * math.sqrt(variance), rel=1e-9)


@pytest.mark.slow
def test_the_page_holds_the_tables_of_mnist(tmp_path):
    if not (mirror := os.environ.get("SILENT_GRADIENTS_MIRROR")):
        pytest.skip("the real MNIST is read from SILENT_GRADIENTS_MIRROR, which is not set")
    prepare("mnist", tmp_path / "mnist", mirror)
    dequantize("mnist", tmp_path / "mnist")
    page = PAGE.read_text()
    for name, table in tables_of_mnist(Mnist.read(tmp_path / "mnist")).items():
        assert table in page, name


@pytest.mark.slow
def test_the_page_holds_the_tables_of_cifar10(tmp_path):
    if not (mirror := os.environ.get("SILENT_GRADIENTS_MIRROR")):
        pytest.skip("the real CIFAR-10 is read from SILENT_GRADIENTS_MIRROR, which is not set")
    prepare("cifar10", tmp_path / "cifar10", mirror)
    dequantize("cifar10", tmp_path / "cifar10")
    page = PAGE.read_text()
    for name, table in tables_of_cifar10(PrincipalComponents.read(tmp_path / "cifar10")).items():
        assert table in page, name
