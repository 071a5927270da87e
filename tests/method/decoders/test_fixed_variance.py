import math

import pytest
import torch
from tests.method.families import FAMILIES
from tests.method.reference import (
    DOUBLE,
    expectation,
    fixed_variance_log_density,
    gradients,
    normal,
    relative,
)

from silent_gradients.decoders import ExactObjective, FixedVarianceDecoder

B, D = 3, 5
VARIANCE = 0.3
X = normal(B, D, seed=20)
PARAMETERS = {
    "bernoulli": normal(B, 6, seed=21, scale=2.0),
    "gaussian": normal(B, 4, seed=22),
    "categorical": normal(B, 9, seed=23, scale=2.0),
    "sign": normal(B, 5, seed=21, scale=2.0),
    "binomial": normal(B, 4, seed=21, scale=2.0),
    "poisson": normal(B, 2, seed=22),
    "laplace": normal(B, 4, seed=22),
    "uniform": normal(B, 4, seed=22),
}


def decoder_for(name, dimensions=D):
    latent_dim = PARAMETERS[name].shape[1] // FAMILIES[name].parameters_per_latent
    decoder = FixedVarianceDecoder(latent_dim, dimensions, VARIANCE).double()
    with torch.no_grad():
        decoder.linear.weight.copy_(normal(dimensions, latent_dim, seed=23))
        decoder.linear.bias.copy_(normal(dimensions, seed=24))
    return decoder


@pytest.mark.parametrize("name", PARAMETERS)
def test_expectation_and_gradients_equal_the_sum_over_all_latents(name):
    decoder = decoder_for(name)
    weight, bias = decoder.linear.weight, decoder.linear.bias
    parameters = PARAMETERS[name].clone().requires_grad_()
    objective = decoder.objective(X)
    assert isinstance(objective, ExactObjective)
    found = objective.expectation(FAMILIES[name](parameters))
    exact = expectation(name, parameters, lambda z: fixed_variance_log_density(z, X, weight, bias, VARIANCE).sum(-1))
    assert found.shape == (B,)
    assert relative(found, exact) < 1e-12
    cotangent = normal(B, seed=25)
    for ours, wanted in zip(
        gradients(found @ cotangent, parameters, weight, bias),
        gradients(exact @ cotangent, parameters, weight, bias),
        strict=True,
    ):
        assert relative(ours, wanted) < 1e-11


@pytest.mark.parametrize("name", PARAMETERS)
def test_sampled_matches_torch_distributions(name):
    decoder = decoder_for(name)
    z = normal(7, B, decoder.linear.in_features, seed=26)
    exact = fixed_variance_log_density(z, X, decoder.linear.weight, decoder.linear.bias, VARIANCE).sum(-1)
    found = decoder.objective(X).sampled(z)
    assert found.shape == (7, B)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(decoder.likelihood(z).log_prob(X), exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PARAMETERS)
def test_float32_is_close_to_float64_at_image_size(name):
    high = decoder_for(name, dimensions=784)
    low = FixedVarianceDecoder(high.linear.in_features, 784, VARIANCE)
    low.load_state_dict(high.state_dict())
    x = normal(B, 784, seed=27)
    exact = high.objective(x).expectation(FAMILIES[name](PARAMETERS[name]))
    found = low.objective(x.float()).expectation(FAMILIES[name](PARAMETERS[name].float()))
    assert found.dtype == torch.float32
    assert relative(found.double(), exact) < 2e-6


def test_a_posterior_without_variance_gives_the_density_at_its_mean():
    decoder = decoder_for("gaussian")
    mean = normal(B, 2, seed=28)
    q = FAMILIES["gaussian"](torch.cat([mean, torch.full_like(mean, -80)], dim=1))
    torch.testing.assert_close(decoder.objective(X).expectation(q), decoder.objective(X).sampled(mean[None])[0])


def test_expectation_never_exceeds_the_density_at_the_mean():
    for name, parameters in PARAMETERS.items():
        q = FAMILIES[name](parameters)
        objective = decoder_for(name).objective(X)
        assert (objective.expectation(q) < objective.sampled(q.mean[None])[0]).all()


def test_initial_values():
    mean = torch.linspace(0, 1, D)
    decoder = FixedVarianceDecoder(50, D, 0.01, mean)
    assert torch.equal(decoder.linear.bias, mean)
    assert decoder.linear.weight.abs().max() < 0.06
    torch.manual_seed(0)
    default = FixedVarianceDecoder(50, D, 0.01)
    torch.manual_seed(0)
    assert torch.equal(default.linear.weight, torch.nn.Linear(50, D).weight)


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan])
def test_impossible_variance(variance):
    with pytest.raises(ValueError, match="variance"):
        FixedVarianceDecoder(2, D, variance)


def test_double_precision_is_kept():
    assert decoder_for("bernoulli").likelihood(torch.zeros(1, 1, 6, dtype=DOUBLE)).precision_squared.dtype == DOUBLE


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_expectation_is_declared_exact(name):
    assert decoder_for(name).objective(X).is_exact(FAMILIES[name](PARAMETERS[name]))
