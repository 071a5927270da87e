import pytest
import torch
from tests.method.reference import normal
from torch.distributions import Normal

from silent_gradients import (
    ExactObjective,
    GaussianLikelihood,
    Objective,
    Standardization,
)
from silent_gradients.decoders.likelihood import Decoder, SampledObjective


class Quadratic(Decoder):
    def likelihood(self, z):
        return GaussianLikelihood(z.square(), z, (2 * z).exp())


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 5), (4, 3, 5)])
def test_log_prob_matches_torch_distributions(shape):
    """For precisions of either sign, which may broadcast."""
    mean, precision, x = normal(4, 3, 5, seed=53), normal(*shape, seed=55), normal(3, 5, seed=54)
    assert len(precision) == 1 or (precision < 0).any()
    exact = Normal(mean, (1 / precision.abs()).expand(4, 3, 5)).log_prob(x).sum(-1)
    found = GaussianLikelihood(mean, precision.abs().log(), precision.square()).log_prob(x)
    torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-11)


def test_any_decoder_gives_a_sampled_objective():
    x, z = normal(3, 5, seed=56), normal(4, 3, 5, seed=57)
    objective: Objective = Quadratic(5, 5).objective(x)
    assert isinstance(objective, SampledObjective)
    assert not isinstance(objective, ExactObjective)
    exact = Normal(z**2, torch.exp(-z)).log_prob(x).sum(-1)
    torch.testing.assert_close(objective.sampled(z), exact, rtol=1e-11, atol=1e-11)
    # Noise is off unless asked for, and weighs the squared precision e^(2 z).
    assert torch.equal(objective.sampled(z), Quadratic(5, 5).objective(x, 0.0).sampled(z))
    noisy = Quadratic(5, 5).objective(x, noise_variance=0.3).sampled(z)
    torch.testing.assert_close(noisy, exact - 0.15 * (2 * z).exp().sum(-1), rtol=1e-11, atol=1e-11)


def test_identity_standardization():
    identity = Standardization.identity(4, 900.0)
    assert identity.mean.tolist() == [0.0] * 4
    assert identity.scale.tolist() == [1.0] * 4
    assert identity.largest_precision == 900.0
