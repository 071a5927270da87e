import math

import pytest
import torch
from tests.method.families import FAMILIES, LATENTS, family_parameters
from tests.method.reference import (
    expectation,
    gradients,
    log_linear_precision_log_density,
    normal,
    relative,
)

from silent_gradients import (
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    Standardization,
)
from silent_gradients.posteriors import Bernoulli, Posterior

B, D = 3, 5
X = normal(B, D, seed=120)
PARAMETERS = family_parameters(B, seed=121)
del PARAMETERS["laplace"]  # it has no tilted moments


def decoder_with(latent_dim, standardization=None):
    decoder = LogLinearPrecisionDecoder(latent_dim, standardization or Standardization.identity(D, 1000.0)).double()
    with torch.no_grad():
        decoder.mean_head.weight.copy_(normal(D, latent_dim, seed=123))
        decoder.mean_head.bias.copy_(normal(D, seed=124))
        decoder.precision_head.weight.copy_(normal(D, latent_dim, seed=125, scale=0.4))
        decoder.precision_head.bias.copy_(normal(D, seed=126))
    return decoder


def heads(decoder):
    return tuple(decoder.parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_constant_precision_is_that_of_the_linear_decoder(name):
    log_linear, linear = (
        decoder_with(LATENTS[name]),
        LinearPrecisionDecoder(LATENTS[name], Standardization.identity(D, 1e3)),
    )
    linear.double().load_state_dict(log_linear.state_dict())
    with torch.no_grad():
        log_linear.precision_head.weight.zero_()
        linear.precision_head.weight.zero_()
        linear.precision_head.bias.copy_(log_linear.precision_head.bias.exp())
    q = FAMILIES[name](PARAMETERS[name])
    found, wanted = (decoder.objective(X).expectation(q) for decoder in (log_linear, linear))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PARAMETERS)
def test_float32_is_close_to_float64_at_image_size(name):
    dimensions, latents = 784, 48
    family = FAMILIES[name]
    standardization = Standardization(
        normal(dimensions, seed=131).float(), normal(dimensions, seed=132).exp().float() / 887, 1e3
    )
    low = LogLinearPrecisionDecoder(latents, standardization)
    with torch.no_grad():
        low.mean_head.weight.copy_(normal(dimensions, latents, seed=133, scale=0.1))
        low.precision_head.weight.copy_(normal(dimensions, latents, seed=134, scale=0.03))
    high = LogLinearPrecisionDecoder(latents, standardization).double()
    high.load_state_dict(low.state_dict())
    parameters = normal(B, latents * family.parameters_per_latent, seed=135).float().requires_grad_()
    double = parameters.detach().double().requires_grad_()
    x = (standardization.mean + standardization.scale * normal(B, dimensions, seed=136)).float()
    found, exact = (
        low.objective(x).expectation(family(parameters)),
        high.objective(x.double()).expectation(family(double)),
    )
    assert found.dtype == torch.float32
    assert relative(found.double(), exact) < 1e-6
    for ours, wanted in zip(
        gradients(found.sum(), parameters, *low.parameters()),
        gradients(exact.sum(), double, *high.parameters()),
        strict=True,
    ):
        # The slope by a class is a difference of sums over all dimensions.
        assert relative(ours.double(), wanted) < (5e-5 if name == "categorical" else 1e-5)


def test_declared_exact_where_the_family_has_tilted_moments():
    class Heavy(Bernoulli):
        name = "heavy"
        tilted_moments = Posterior.tilted_moments

    for name, parameters in PARAMETERS.items():
        assert decoder_with(LATENTS[name]).objective(X).is_exact(FAMILIES[name](parameters))
    objective, q = decoder_with(6).objective(X), Heavy(PARAMETERS["bernoulli"])
    assert not objective.is_exact(q)
    with pytest.raises(NotImplementedError, match="heavy"):
        objective.expectation(q)


def test_the_expectation_is_finite_where_the_expected_squared_precision_is_not():
    """E s^2 = e^100 is no float32, e^100 times an error of e^-40 is one."""
    error = math.exp(-20)
    decoder = LogLinearPrecisionDecoder(1, Standardization.identity(1, 1e3))
    with torch.no_grad():
        decoder.mean_head.weight.zero_()
        decoder.precision_head.weight.zero_()
        decoder.precision_head.bias.fill_(50.0)
    value = decoder.objective(torch.tensor([[error]])).expectation(Bernoulli(torch.zeros(1, 1))).detach()
    assert float(value) == pytest.approx(50 - 0.5 * math.exp(60) - 0.5 * math.log(2 * math.pi), rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("seed", range(5))
def test_saturated_posteriors_equal_the_sum_over_all_latents(scale, seed):
    logits = scale * torch.where(normal(B, 6, seed=140 + seed) > 0, 30.0, -30.0).double()
    logits.requires_grad_()
    decoder = decoder_with(6)
    found = decoder.objective(X).expectation(Bernoulli(logits))
    exact = expectation("bernoulli", logits, lambda z: log_linear_precision_log_density(z, X, heads(decoder))).sum(1)
    assert relative(found, exact) < 1e-12
    ours, wanted = (torch.autograd.grad(value.sum(), logits, retain_graph=True)[0] for value in (found, exact))
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-13)
