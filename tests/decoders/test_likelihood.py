import pytest
import torch
from tests.reference import normal
from torch.distributions import Normal

from silent_gradients.decoders import ExactObjective, GaussianLikelihood, Objective, Standardization
from silent_gradients.decoders.likelihood import Decoder, SampledObjective


class Quadratic(Decoder):
    def likelihood(self, z):
        return GaussianLikelihood(z.square(), z, (2 * z).exp())


def test_log_prob_matches_torch_distributions():
    mean, precision, x = normal(4, 3, 5, seed=50), normal(4, 3, 5, seed=51), normal(3, 5, seed=52)
    likelihood = GaussianLikelihood(mean, precision.abs().log(), precision.square())
    exact = Normal(mean, 1 / precision.abs()).log_prob(x).sum(-1)
    assert (precision < 0).any()
    torch.testing.assert_close(likelihood.log_prob(x), exact, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 5), (4, 3, 5)])
def test_precision_may_broadcast(shape):
    mean, x = normal(4, 3, 5, seed=53), normal(3, 5, seed=54)
    precision = normal(*shape, seed=55).exp()
    exact = Normal(mean, (1 / precision).expand(4, 3, 5)).log_prob(x).sum(-1)
    found = GaussianLikelihood(mean, precision.log(), precision.square()).log_prob(x)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


def test_any_decoder_gives_a_sampled_objective():
    x, z = normal(3, 5, seed=56), normal(4, 3, 5, seed=57)
    objective: Objective = Quadratic().objective(x)
    assert isinstance(objective, SampledObjective)
    assert not isinstance(objective, ExactObjective)
    exact = Normal(z**2, torch.exp(-z)).log_prob(x).sum(-1)
    torch.testing.assert_close(objective.sampled(z), exact, rtol=1e-11, atol=1e-11)


def test_identity_standardization():
    identity = Standardization.identity(4, 900.0)
    assert identity.mean.tolist() == [0.0] * 4
    assert identity.scale.tolist() == [1.0] * 4
    assert identity.largest_precision == 900.0
