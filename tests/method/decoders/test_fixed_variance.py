import math

import pytest
import torch
from tests.method.families import FAMILIES, LATENTS, family_parameters
from tests.method.reference import (
    DOUBLE,
    normal,
    relative,
)

from silent_gradients import FixedVarianceDecoder

B, D = 3, 5
VARIANCE = 0.3
X = normal(B, D, seed=20)
PARAMETERS = family_parameters(B, seed=21)


def decoder_for(name, dimensions=D):
    latent_dim = LATENTS[name]
    decoder = FixedVarianceDecoder(latent_dim, dimensions, VARIANCE).double()
    with torch.no_grad():
        decoder.linear.weight.copy_(normal(dimensions, latent_dim, seed=23))
        decoder.linear.bias.copy_(normal(dimensions, seed=24))
    return decoder


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
