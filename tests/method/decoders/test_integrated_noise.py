"""Noise integrated out, against Gauss-Legendre quadrature: two nodes are exact for a quadratic in the noise."""

import math

import numpy as np
import pytest
import torch
from tests.method.reference import DOUBLE, gradients, normal, relative, seeded

from silent_gradients import (
    ConvolutionalDecoder,
    FixedVarianceDecoder,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    PositivePrecisionDecoder,
    Standardization,
)
from silent_gradients.posteriors import FAMILIES

B, D, K, LEVELS = 3, 16, 4, 5
VARIANCE = 1 / (12 * LEVELS**2)
Y = torch.randint(LEVELS, (B, D), generator=seeded(170)).double()
MIDPOINTS = (Y + 0.5) / LEVELS
STANDARDIZATION = Standardization(normal(D, seed=171), normal(D, seed=172).exp(), 1000.0)
PARAMETERS = {"bernoulli": normal(B, K, seed=173), "gaussian": normal(B, 2 * K, seed=174, scale=0.5)}
LINEAR = {
    "fixed-variance": lambda: FixedVarianceDecoder(K, D, 0.3),
    **{
        log_term: lambda log_term=log_term: LinearPrecisionDecoder(K, STANDARDIZATION, log_term)
        for log_term in ("auto", "taylor-square", "taylor")
    },
    "log-linear": lambda: LogLinearPrecisionDecoder(K, STANDARDIZATION),
    "positive": lambda: PositivePrecisionDecoder(K, STANDARDIZATION),
}
DECODERS = LINEAR | {
    "convolutional": lambda: ConvolutionalDecoder("plain", K, (1, 4, 4), (2, 2, 2, 2, 2), STANDARDIZATION),
}
CASES = [(name, family) for name in LINEAR for family in PARAMETERS if (name, family) != ("positive", "gaussian")]


def decoder_with(name):
    decoder = DECODERS[name]().double()
    with torch.no_grad():
        for number, parameter in enumerate(decoder.parameters()):
            parameter += normal(*parameter.shape, seed=180 + number, scale=0.3)
    return decoder


def average_over_noise(value):
    """The mean over u, uniform on [0, 1), of ``value((y + u) / levels)``, a sum of quadratics of one u each."""
    points, weights = np.polynomial.legendre.leggauss(2)
    return sum(
        weight / 2 * value((Y + (point + 1) / 2) / LEVELS) for point, weight in zip(points, weights, strict=True)
    )


def compare(found, exact, *leaves):
    assert relative(found, exact) < 1e-12
    cotangent = normal(*found.shape, seed=175)
    ours, wanted = (gradients((value * cotangent).sum(), *leaves) for value in (found, exact))
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_expectation_is_the_average_over_the_noise(name, family):
    decoder, parameters = decoder_with(name), PARAMETERS[family].clone().requires_grad_()
    found = decoder.objective(MIDPOINTS, VARIANCE).expectation(FAMILIES[family](parameters))
    exact = average_over_noise(lambda x: decoder.objective(x).expectation(FAMILIES[family](parameters)))
    compare(found, exact, parameters, *decoder.parameters())
    assert (found < decoder.objective(MIDPOINTS).expectation(FAMILIES[family](parameters))).all()


@pytest.mark.parametrize("name", DECODERS)
def test_sampled_is_the_average_over_the_noise(name):
    decoder, z = decoder_with(name), torch.rand(6, B, K, generator=seeded(176), dtype=DOUBLE).requires_grad_()
    found = decoder.objective(MIDPOINTS, noise_variance=VARIANCE).sampled(z)
    compare(found, average_over_noise(lambda x: decoder.objective(x).sampled(z)), z, *decoder.parameters())


@pytest.mark.parametrize("name", DECODERS)
def test_there_is_none_unless_asked_for(name):
    decoder, z = decoder_with(name), torch.rand(6, B, K, generator=seeded(177), dtype=DOUBLE)
    assert torch.equal(decoder.objective(MIDPOINTS).sampled(z), decoder.likelihood(z).log_prob(MIDPOINTS))
    assert torch.equal(decoder.objective(MIDPOINTS).sampled(z), decoder.objective(MIDPOINTS, 0.0).sampled(z))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("variance", [-1e-9, math.nan])
def test_impossible_variances_are_refused(name, variance):
    with pytest.raises(ValueError, match="noise_variance"):
        decoder_with(name).objective(MIDPOINTS, variance)
