import math

import pytest
import torch
from scipy import integrate, special
from tests.method.reference import DOUBLE, gradients, seeded

from silent_gradients.estimators import EstimatorError, create
from silent_gradients.estimators.gumbel_softmax import relaxed_sample
from silent_gradients.posteriors import Bernoulli

LOGIT, TARGET = 0.6, 0.9
TRUE_SLOPE = special.expit(LOGIT) * special.expit(-LOGIT) * (-((1 - TARGET) ** 2) + TARGET**2)


class Parabola:
    def sampled(self, z):
        return -(z - TARGET).square().sum(-1)


def relaxed_slope(temperature):
    """d/dlogit of E -(b - target)^2, b = sigmoid((logit + Logistic) / temperature), by quadrature over the noise."""

    def integrand(noise):
        b = special.expit((LOGIT + noise) / temperature)
        density = special.expit(noise) * special.expit(-noise)
        return density * -2 * (b - TARGET) * b * (1 - b) / temperature

    return integrate.quad(integrand, -40, 40, limit=500, points=[-LOGIT], epsabs=1e-12)[0]


def sampled_slopes(temperature, calls=50, copies=4000):
    logits = torch.full((1, 1), LOGIT, dtype=DOUBLE, requires_grad=True)
    estimator, generator = create("gumbel-softmax", {"temperature": temperature}), seeded(90)
    drawn = []
    for _ in range(calls):
        estimate = estimator(Bernoulli(logits.expand(copies, 1)), Parabola(), generator=generator, state={})
        drawn += gradients(estimate.surrogate.mean(), logits)
    found = torch.cat(drawn).flatten()
    return float(found.mean()), float(found.std()) / math.sqrt(calls)


@pytest.mark.parametrize("temperature", [2.0, 1.0, 0.5, 0.1])
def test_mean_gradient_is_that_of_the_relaxed_objective(temperature):
    mean, error = sampled_slopes(temperature)
    assert abs(mean - relaxed_slope(temperature)) < 5 * error
    assert error < 0.02 * TRUE_SLOPE


def test_the_bias_shrinks_with_the_temperature():
    bias = [abs(relaxed_slope(temperature) - TRUE_SLOPE) for temperature in (2.0, 1.0, 0.5, 0.1, 0.02)]
    assert bias == sorted(bias, reverse=True)
    mean, error = sampled_slopes(1.0)
    assert abs(mean - TRUE_SLOPE) > 20 * error
    assert bias[-1] < 0.03 * bias[1]


def test_relaxed_samples_follow_the_concrete_law():
    """P(b < c) = P(logistic noise < temperature logit(c) - logit) by the inverse of the relaxation."""
    q = Bernoulli(torch.tensor([[LOGIT, -2.0]], dtype=DOUBLE))
    b = relaxed_sample(q, 50_000, 0.7, seeded(91))
    assert b.shape == (50_000, 1, 2)
    for c in (0.05, 0.3, 0.5, 0.9):
        exact = torch.sigmoid(0.7 * torch.logit(torch.tensor(c, dtype=DOUBLE)) - q.logits[0])
        found = (b[:, 0] < c).double().mean(0)
        assert ((found - exact) / (exact * (1 - exact) / 50_000).sqrt()).abs().max() < 4.5


def test_rounded_relaxed_samples_are_bits_of_the_posterior():
    q = Bernoulli(torch.tensor([[LOGIT, -2.0]], dtype=DOUBLE))
    bits = (relaxed_sample(q, 50_000, 0.3, seeded(92)) > 0.5).double().mean(0)[0]
    p = torch.sigmoid(q.logits[0])
    assert ((bits - p) / (p * (1 - p) / 50_000).sqrt()).abs().max() < 4.5


@pytest.mark.parametrize("uniform", [0.0, 1e-45, 1 - 2**-24])
def test_extreme_noise_and_logits_stay_finite(uniform, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.full(shape, uniform, dtype=options["dtype"]))
    logits = torch.tensor([[-200.0, 0.0, 200.0]], requires_grad=True)
    b = relaxed_sample(Bernoulli(logits), 1, 0.1, None)
    assert torch.isfinite(b).all()
    assert ((b >= 0) & (b <= 1)).all()
    assert torch.isfinite(torch.autograd.grad(b.sum(), logits)[0]).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_impossible_temperatures(temperature):
    with pytest.raises(EstimatorError, match="temperature"):
        create("gumbel-softmax", {"temperature": temperature})
