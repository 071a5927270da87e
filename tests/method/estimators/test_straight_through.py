import math

import pytest
import torch
from scipy import integrate, special
from tests.method.reference import DOUBLE, bernoulli_expectation, fixed_variance_log_density, gradients, normal, seeded

from silent_gradients.estimators import create
from silent_gradients.posteriors import Bernoulli

LOGITS = normal(3, 3, seed=130)
X, WEIGHT, BIAS, VARIANCE = normal(3, 4, seed=131), normal(4, 3, seed=132), normal(4, seed=133), 0.3


class FixedVariance:
    def sampled(self, z):
        return fixed_variance_log_density(z, X, WEIGHT, BIAS, VARIANCE).sum(-1)


class Multilinear:
    """Linear in every bit."""

    def sampled(self, z):
        return z[..., 0] * z[..., 1] * z[..., 2] - 2 * z[..., 1] * z[..., 2] + z[..., 0]


def mean_slope(objective):
    """Mean gradient over all codes, and the true one."""
    logits = LOGITS.clone().requires_grad_()

    def one(code):
        class Forced(Bernoulli):
            def sample(self, samples, generator=None):
                return code[None]

        surrogate = create("straight-through")(Forced(logits), objective, state={}).surrogate
        return gradients(surrogate.sum(), logits)[0]

    found = bernoulli_expectation(LOGITS, lambda z: torch.stack([one(code) for code in z]))
    exact = gradients(bernoulli_expectation(logits, objective.sampled).sum(), logits)[0]
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


class Parabola:
    def sampled(self, z):
        return -(z - 0.9).square().sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_relaxed_straight_through_by_quadrature(temperature):
    """The slope of the objective at the rounded bit times that of the relaxed one, averaged over the noise."""
    logit, copies, calls = 0.6, 4000, 50

    def integrand(noise):
        b = special.expit((logit + noise) / temperature)
        density = special.expit(noise) * special.expit(-noise)
        return density * -2 * ((noise > -logit) - 0.9) * b * (1 - b) / temperature

    exact = integrate.quad(integrand, -40, 40, limit=500, points=[-logit], epsabs=1e-12)[0]
    logits = torch.full((1, 1), logit, dtype=DOUBLE, requires_grad=True)
    estimator = create("straight-through-gumbel-softmax", {"temperature": temperature})
    generator, drawn = seeded(134), []
    for _ in range(calls):
        surrogate = estimator(Bernoulli(logits.expand(copies, 1)), Parabola(), generator=generator, state={}).surrogate
        drawn += gradients(surrogate.mean(), logits)
    found = torch.cat(drawn).flatten()
    assert abs(float(found.mean()) - exact) < 5 * float(found.std()) / math.sqrt(calls)


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
    p = torch.sigmoid(logits.double())
    assert ((z.double().mean(0) - p) / (p * (1 - p) / 20_000).sqrt()).abs().max() < 4.5
