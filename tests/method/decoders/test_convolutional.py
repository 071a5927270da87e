import math

import pytest
import torch
from tests.method.reference import DOUBLE, normal
from torch.distributions import Normal

from silent_gradients import ConvolutionalDecoder, ExactObjective, Standardization

LATENT_DIM = 5
CASES = [
    ("plain", (1, 8, 8), (3, 4, 5, 6, 7)),
    ("plain", (1, 28, 28), (3, 4, 5, 6, 7)),
    ("plain", (3, 7, 9), (3, 4, 5, 6, 7)),
    ("strided", (3, 32, 32), (6, 5, 4, 3)),
    ("strided", (1, 32, 32), (6, 5, 4, 3)),
]


def standardization(dimensions, largest_precision=1000.0):
    return Standardization(
        normal(dimensions, seed=60).float(), normal(dimensions, seed=61).exp().float(), largest_precision
    )


def make(architecture="plain", shape=(1, 8, 8), channels=(3, 4, 5, 6, 7), largest_precision=1000.0, **options):
    torch.manual_seed(0)
    return ConvolutionalDecoder(
        architecture, LATENT_DIM, shape, channels, standardization(math.prod(shape), largest_precision), **options
    )


@pytest.mark.parametrize(("architecture", "shape", "channels"), CASES)
def test_density_is_that_of_the_network_output(architecture, shape, channels):
    """First C channels are the standardised means, the last C the log precisions, image by image."""
    cap = 3.0
    decoder = make(architecture, shape, channels, math.exp(cap), small_last_layer=False).double().eval()
    z, x = normal(2, 3, LATENT_DIM, seed=62), normal(3, math.prod(shape), seed=63)
    scale = normal(math.prod(shape), seed=61).exp().float().double()
    location = normal(math.prod(shape), seed=60).float().double()
    objective = decoder.objective(x)
    assert not isinstance(objective, ExactObjective)
    assert {tuple(tensor.shape) for tensor in decoder.likelihood(z)} == {(2, 3, math.prod(shape))}
    found = objective.sampled(z)
    assert found.shape == (2, 3)
    for sample in range(2):
        for image in range(3):
            output = decoder.network(z[sample, image][None])[0]
            mean = location + scale * output[: shape[0]].flatten()
            raw = output[shape[0] :].flatten() - scale.log()
            log_precision = -torch.logaddexp(-raw, torch.tensor(-cap, dtype=DOUBLE))
            exact = Normal(mean, torch.exp(-log_precision)).log_prob(x[image]).sum()
            torch.testing.assert_close(found[sample, image], exact, rtol=1e-6, atol=1e-5)


def test_precision_stays_below_the_cap_and_keeps_a_gradient():
    largest = 900.0
    for dtype, excess, rounding in ((DOUBLE, 0, 0), (DOUBLE, 5, 0), (DOUBLE, 20, 0), (torch.float32, 30, 1e-6)):
        decoder = make(largest_precision=largest).to(dtype)
        last = decoder.network[-1]
        last.bias.data[1] = math.log(largest) + decoder.log_scale.max() + excess
        likelihood = decoder.likelihood(normal(1, 2, LATENT_DIM, seed=64).to(dtype))
        assert (likelihood.log_precision <= math.log(largest) + rounding).all()
        torch.testing.assert_close(likelihood.precision_squared, torch.exp(2 * likelihood.log_precision))
        (slope,) = torch.autograd.grad(likelihood.log_precision.sum(), last.bias)
        assert slope[1] > 0


def test_far_below_the_cap_the_precision_is_the_network_output():
    decoder = make(largest_precision=1e6).double()
    log_precision = decoder.likelihood(torch.zeros(1, 1, LATENT_DIM, dtype=DOUBLE)).log_precision
    raw = decoder.network(torch.zeros(1, LATENT_DIM, dtype=DOUBLE))[0, 1].flatten()
    torch.testing.assert_close(log_precision[0, 0], raw - decoder.log_scale, rtol=0, atol=1e-4)


def test_buffers_are_saved_and_loaded():
    decoder = make()
    other = ConvolutionalDecoder("plain", LATENT_DIM, (1, 8, 8), (3, 4, 5, 6, 7), Standardization.identity(64, 1000.0))
    other.load_state_dict(decoder.state_dict())
    z = torch.randn(1, 2, LATENT_DIM)
    for ours, theirs in zip(decoder.likelihood(z), other.likelihood(z), strict=True):
        assert torch.equal(ours, theirs)
