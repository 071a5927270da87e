"""Straight-through and Gumbel-Softmax: means by quadrature and enumeration, known biases, and the samples' law."""

import pytest
import torch
from scipy import integrate, special
from tests.method.families import forced
from tests.method.reference import DOUBLE, expectation, fixed_variance_log_density, gradients, normal, seeded

from silent_gradients import Bernoulli
from silent_gradients.estimators import create
from silent_gradients.estimators.pathwise import relaxed_sample

LOGIT, TARGET = 0.6, 0.9
TRUE_SLOPE = special.expit(LOGIT) * special.expit(-LOGIT) * (-((1 - TARGET) ** 2) + TARGET**2)
LOGITS = normal(3, 3, seed=130)
X, WEIGHT, BIAS, VARIANCE = normal(3, 4, seed=131), normal(4, 3, seed=132), normal(4, seed=133), 0.3


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


def test_the_bias_shrinks_with_the_temperature():
    temperatures = (2.0, 1.0, 0.5, 0.1, 0.02)
    bias = [abs(relaxed_slope(temperature) - TRUE_SLOPE) for temperature in temperatures]
    assert bias == sorted(bias, reverse=True)
    assert bias[-1] < 0.03 * bias[1]


def frequencies_deviate_by(found, exact, samples):
    return ((found - exact) / (exact * (1 - exact) / samples).sqrt()).abs().max()


def test_relaxed_samples_follow_the_concrete_law():
    """P(b < c) = P(logistic noise < temperature logit(c) - logit) by the inverse of the relaxation."""
    logits = torch.tensor([[LOGIT, -2.0]], dtype=DOUBLE)
    b = relaxed_sample(logits, 50_000, 0.7, seeded(91))
    assert b.shape == (50_000, 1, 2)
    for c in (0.05, 0.3, 0.5, 0.9):
        exact = torch.sigmoid(0.7 * torch.logit(torch.tensor(c, dtype=DOUBLE)) - logits[0])
        assert frequencies_deviate_by((b[:, 0] < c).double().mean(0), exact, 50_000) < 4.5
    bits = (relaxed_sample(logits, 50_000, 0.3, seeded(92)) > 0.5).double().mean(0)[0]
    assert frequencies_deviate_by(bits, torch.sigmoid(logits[0]), 50_000) < 4.5


@pytest.mark.parametrize("uniform", [0.0, 1e-45, 1 - 2**-24])
def test_extreme_noise_and_logits_stay_finite(uniform, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.full(shape, uniform, dtype=options["dtype"]))
    logits = torch.tensor([[-200.0, 0.0, 200.0]], requires_grad=True)
    b = relaxed_sample(logits, 1, 0.1, None)
    assert torch.isfinite(b).all()
    assert ((b >= 0) & (b <= 1)).all()
    assert torch.isfinite(torch.autograd.grad(b.sum(), logits)[0]).all()


class FixedVariance:
    def sampled(self, z):
        return fixed_variance_log_density(z, X, WEIGHT, BIAS, VARIANCE).sum(-1)


class Multilinear:
    """Linear in every bit."""

    def sampled(self, z):
        return z[..., 0] * z[..., 1] * z[..., 2] - 2 * z[..., 1] * z[..., 2] + z[..., 0]


def mean_slope(objective):
    """Mean gradient of straight-through over all codes, and the true one."""
    logits = LOGITS.clone().requires_grad_()

    def one(code):
        surrogate = create("straight-through")(forced(code[None])(logits), objective, state={}).surrogate
        return gradients(surrogate.sum(), logits)[0]

    found = expectation("bernoulli", LOGITS, lambda z: torch.stack([one(code) for code in z]))
    exact = gradients(expectation("bernoulli", logits, objective.sampled).sum(), logits)[0]
    return found, exact


def test_the_bias_on_a_fixed_variance_is_the_known_one():
    found, exact = mean_slope(FixedVariance())
    p = torch.sigmoid(LOGITS)
    bias = (1 - 2 * p) * p * (1 - p) * WEIGHT.square().sum(0) / (2 * VARIANCE)
    torch.testing.assert_close(found - exact, bias, rtol=1e-11, atol=1e-11)
    assert bias.abs().max() > 0.1


def test_a_function_that_is_linear_in_every_bit_has_no_bias():
    found, exact = mean_slope(Multilinear())
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["straight-through", "straight-through-gumbel-softmax"])
def test_the_objective_sees_genuine_bits(name):
    seen = []

    class Recorded(Parabola):
        def sampled(self, z):
            seen.append(z.detach())
            return super().sampled(z)

    logits = torch.tensor([[-1.5, 0.0, 2.0]])
    create(name, {"samples": 20_000})(Bernoulli(logits), Recorded(), generator=seeded(135), state={})
    (z,) = seen
    assert set(z.unique().tolist()) == {0.0, 1.0}
    assert frequencies_deviate_by(z.double().mean(0), torch.sigmoid(logits.double()), 20_000) < 4.5
