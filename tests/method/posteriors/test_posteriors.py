import math
from typing import get_args

import pytest
import torch
from tests.method.families import FAMILIES, LATENTS, family_parameters
from tests.method.reference import (
    DOUBLE,
    bernoulli_expectation,
    bivariate_expectation,
    expectation,
    gaussian_expectation,
    gradients,
    normal,
    relative,
    seeded,
)

from silent_gradients import posteriors
from silent_gradients.posteriors import Bernoulli, Gaussian, NonFiniteError, Posterior, ShapeError
from silent_study.settings import PosteriorFamily

B, K, D = 3, 6, 4
PARAMETERS = family_parameters(B, seed=1)


def test_families_are_known_by_name():
    assert set(PARAMETERS) == set(posteriors.FAMILIES)
    assert all(family.name == name for name, family in posteriors.FAMILIES.items())
    assert set(get_args(PosteriorFamily)) <= set(posteriors.FAMILIES)


@pytest.mark.parametrize("name", PARAMETERS)
def test_cumulants_of_each_coordinate(name):
    q = FAMILIES[name](PARAMETERS[name])

    def moment(order, center):
        return expectation(name, PARAMETERS[name], lambda z: (z - center) ** order)

    mean = moment(1, 0)
    variance, third, fourth = moment(2, mean), moment(3, mean), moment(4, mean)
    torch.testing.assert_close(q.mean, mean, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(q.variance, variance, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(q.third_cumulant, third, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(q.fourth_cumulant, fourth - 3 * variance**2, rtol=1e-11, atol=1e-12)


def test_bernoulli_variance_keeps_its_relative_accuracy_in_both_tails():
    logits = torch.tensor([[-60.0, -20.0, 0.0, 20.0, 60.0]])
    exact = [math.exp(-abs(x)) / (1 + math.exp(-abs(x))) ** 2 for x in logits[0].tolist()]
    torch.testing.assert_close(
        Bernoulli(logits).variance[0].double(), torch.tensor(exact, dtype=DOUBLE), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bernoulli_divergence_of_saturated_bits(dtype):
    logits = torch.tensor(
        [[-200.0] * K, [200.0] * K, [-88.0] * K, [104.0] * K, [0.0] * K], dtype=dtype, requires_grad=True
    )
    divergence = Bernoulli(logits).kl_divergence()
    cap = K * math.log(2)
    torch.testing.assert_close(divergence, torch.tensor([cap] * 4 + [0.0], dtype=dtype), rtol=1e-6, atol=1e-12)
    assert (divergence <= cap * (1 + 1e-6)).all()
    (slope,) = torch.autograd.grad(divergence.sum(), logits)
    assert torch.isfinite(slope).all()
    assert slope.abs().max() < 1e-30


def test_bernoulli_divergence_slope_is_logit_times_variance():
    logits = torch.linspace(-30, 30, 61, requires_grad=True)[:, None]
    (slope,) = torch.autograd.grad(Bernoulli(logits).kl_divergence().sum(), logits)
    exact = logits.detach().double()
    exact = exact * exact.sigmoid() * (-exact).sigmoid()
    torch.testing.assert_close(slope.double(), exact, rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize("name", PARAMETERS)
def test_divergence_is_positive_and_zero_at_the_prior(name):
    family = FAMILIES[name]
    assert (family(PARAMETERS[name]).kl_divergence() > 0).all()
    at_zero = torch.zeros(2, 6 * family.parameters_per_latent)
    prior = family(at_zero + (20 if name == "uniform" else 0)).kl_divergence()
    torch.testing.assert_close(prior, torch.zeros(2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PARAMETERS)
def test_samples_have_no_gradient_and_follow_the_generator(name):
    q = FAMILIES[name](PARAMETERS[name].clone().requires_grad_())
    state = torch.get_rng_state()
    first, again, other = (q.sample(3, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert not first.requires_grad
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_bernoulli_has_no_rsample():
    with pytest.raises(NotImplementedError, match="bernoulli"):
        Bernoulli(torch.zeros(1, 2)).rsample(1)


@pytest.mark.parametrize("name", PARAMETERS)
def test_cumulants_of_a_linear_function(name):
    weight = normal(D, LATENTS[name], seed=10)

    def moment(order, center):
        return expectation(name, PARAMETERS[name], lambda z: (z @ weight.T - center) ** order)

    mean = moment(1, 0)
    second, third, fourth = (moment(order, mean) for order in (2, 3, 4))
    q = FAMILIES[name](PARAMETERS[name])
    assert relative(q.mean @ weight.T, mean) < 1e-12
    assert relative(q.linear_variance(weight), second) < 1e-12
    assert relative(q.total_variance(weight), second.sum(1)) < 1e-12
    actual_third, actual_fourth = q.higher_cumulants(weight)
    if name == "gaussian":
        assert actual_third is None
        assert actual_fourth is None
        assert third.abs().max() < 1e-10
        assert (fourth - 3 * second**2).abs().max() < 1e-9
    else:
        assert actual_third is not None
        assert actual_fourth is not None
        torch.testing.assert_close(actual_third, third, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(actual_fourth, fourth - 3 * second**2, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", sorted(set(PARAMETERS) - {"laplace"}))
def test_tilted_moments(name):
    weight, exponent = normal(D, LATENTS[name], seed=13), normal(D, LATENTS[name], seed=14, scale=0.7)

    def tilted(function):
        return expectation(name, PARAMETERS[name], lambda z: (z @ exponent.T).exp() * function(z @ weight.T))

    normalizer = tilted(torch.ones_like)
    mean = tilted(lambda m: m) / normalizer
    variance = tilted(lambda m: (m - mean) ** 2) / normalizer
    found = FAMILIES[name](PARAMETERS[name]).tilted_moments(weight, exponent)
    for actual, expected in zip(found, (normalizer.log(), mean, variance), strict=True):
        assert actual.shape == (B, D)
        assert relative(actual, expected) < 1e-12


def test_a_family_without_a_generating_function_says_so():
    class Heavy(Bernoulli):
        name = "heavy"
        tilted_moments = Posterior.tilted_moments

    assert Bernoulli.has_tilted_moments()
    assert Gaussian.has_tilted_moments()
    assert not Heavy.has_tilted_moments()
    with pytest.raises(NotImplementedError, match="heavy"):
        Heavy(torch.zeros(1, 2)).tilted_moments(torch.zeros(3, 2), torch.zeros(3, 2))


@pytest.mark.parametrize("name", PARAMETERS)
def test_joint_cumulants(name):
    a, b = normal(D, LATENTS[name], seed=11), normal(D, LATENTS[name], seed=12)

    def moment(p, q, center=(0.0, 0.0)):
        return expectation(name, PARAMETERS[name], lambda z: (z @ a.T - center[0]) ** p * (z @ b.T - center[1]) ** q)

    center = moment(1, 0), moment(0, 1)
    c = {(p, q): moment(p, q, center) for p, q in ((2, 0), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2))}
    fourth = c[2, 2] - c[2, 0] * c[0, 2] - 2 * c[1, 1] ** 2
    actual = FAMILIES[name](PARAMETERS[name]).joint_cumulants(a, b)
    for found, exact in zip(actual[:5], (*center, c[2, 0], c[0, 2], c[1, 1]), strict=True):
        assert found is not None
        assert relative(found, exact) < 1e-12
    if name == "gaussian":
        assert actual[5:] == (None, None, None)
        assert max(c[1, 2].abs().max(), c[2, 1].abs().max(), fourth.abs().max()) < 1e-9
    else:
        for higher, exact in zip(actual[5:], (c[1, 2], c[2, 1], fourth), strict=True):
            assert higher is not None
            torch.testing.assert_close(higher, exact, rtol=1e-11, atol=1e-11)


def test_joint_cumulants_reach_the_parameters_like_enumeration():
    logits = PARAMETERS["bernoulli"].clone().requires_grad_()
    a, b = normal(D, K, seed=13).requires_grad_(), normal(D, K, seed=14).requires_grad_()
    cumulants = Bernoulli(logits).joint_cumulants(a, b)

    def fourth_moment(z):
        center = logits.sigmoid()
        return ((z - center) @ a.T) ** 2 * ((z - center) @ b.T) ** 2

    assert cumulants.k22 is not None
    moment = cumulants.k22 + cumulants.variance_m * cumulants.variance_s + 2 * cumulants.covariance**2
    exact = bernoulli_expectation(logits, fourth_moment)
    for found, wanted in zip(gradients(moment.sum(), logits, a, b), gradients(exact.sum(), logits, a, b), strict=True):
        assert relative(found, wanted) < 1e-11


def test_gaussian_linear_functions_are_jointly_normal():
    q = Gaussian(PARAMETERS["gaussian"])
    a, b = normal(D, 2, seed=15), normal(D, 2, seed=16)
    cumulants = q.joint_cumulants(a, b)

    def function(m, s):
        return torch.sin(m) * torch.cos(s)

    law = gaussian_expectation(PARAMETERS["gaussian"], lambda z: function(z @ a.T, z @ b.T))
    for image in range(B):
        for pixel in range(D):
            mean_m, mean_s, variance_m, variance_s, covariance = (
                float(c[image, pixel]) for c in cumulants[:5] if c is not None
            )
            pair = bivariate_expectation((mean_m, mean_s), (variance_m, variance_s, covariance), function)
            assert pair == pytest.approx(float(law[image, pixel]), abs=2e-6)


@pytest.mark.parametrize(
    ("family", "shape"),
    [(Gaussian, (4,)), (Gaussian, (4, 3)), (Gaussian, (2, 4, 4)), (Bernoulli, (4,)), (Bernoulli, (2, 3, 4))],
)
def test_wrong_shapes_are_refused(family, shape):
    with pytest.raises(ShapeError, match=family.name):
        family(torch.zeros(shape))


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("shape", [(B, 2), (1, 1, 2), (1, B, 1), (1, B, 7), (2, 1, B, 2)])
def test_samples_of_another_shape_have_no_density(name, shape):
    parameters = torch.zeros(B, 6 * FAMILIES[name].parameters_per_latent)
    with pytest.raises(ShapeError, match=rf"z: expected shape \[S, {B}, 6\], got "):
        FAMILIES[name](parameters).log_prob(torch.zeros(shape))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_that_are_no_numbers(name):
    parameters = PARAMETERS[name].clone()
    FAMILIES[name](parameters).check_finite()
    parameters[0, 0], parameters[1, 1] = math.nan, -math.inf
    with pytest.raises(NonFiniteError, match=rf"parameters.*2 of {parameters.numel()}"):
        FAMILIES[name](parameters).check_finite()


@pytest.mark.parametrize("name", PARAMETERS)
def test_float32_is_close_to_float64(name):
    parameters = PARAMETERS[name]
    low, high = FAMILIES[name](parameters.float()), FAMILIES[name](parameters)
    for attribute in ("mean", "variance", "third_cumulant", "fourth_cumulant"):
        found = getattr(low, attribute)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), getattr(high, attribute), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(low.kl_divergence().double(), high.kl_divergence(), rtol=1e-5, atol=1e-5)
    assert low.sample(2).dtype == torch.float32
