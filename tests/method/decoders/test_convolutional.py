import math

import pytest
import torch
from tests.method.reference import DOUBLE, normal
from torch import nn
from torch.distributions import Normal

from silent_gradients.decoders import ConvolutionalDecoder, ExactObjective, Standardization
from silent_gradients.decoders.convolutional import LAST_LAYER_SCALE

LATENT_DIM = 5
TABLE_6 = ["Linear", "Unflatten", *[("Conv2d", 3, 1, 1), "ReLU"] * 4, ("Conv2d", 1, 1, 0)]
TABLE_8 = [
    "Linear",
    "Unflatten",
    *[("ConvTranspose2d", 4, 1, 0), "ReLU", "BatchNorm2d"],
    *[("ConvTranspose2d", 4, 2, 1), "ReLU", "BatchNorm2d"] * 2,
    ("ConvTranspose2d", 4, 2, 1),
]
CASES = [
    ("plain", (1, 8, 8), (3, 4, 5, 6, 7), TABLE_6),
    ("plain", (1, 28, 28), (3, 4, 5, 6, 7), TABLE_6),
    ("plain", (3, 7, 9), (3, 4, 5, 6, 7), TABLE_6),
    ("strided", (3, 32, 32), (6, 5, 4, 3), TABLE_8),
    ("strided", (1, 32, 32), (6, 5, 4, 3), TABLE_8),
]


def described(network):
    return [
        (type(layer).__name__, layer.kernel_size[0], layer.stride[0], layer.padding[0])
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        else type(layer).__name__
        for layer in network
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


@pytest.mark.parametrize(("architecture", "shape", "channels", "table"), CASES)
def test_layers_are_those_of_the_table(architecture, shape, channels, table):
    decoder = make(architecture, shape, channels)
    assert described(decoder.network) == table
    convolutions = [layer for layer in decoder.network if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert [layer.in_channels for layer in convolutions] == list(channels)
    assert convolutions[-1].out_channels == 2 * shape[0]
    assert decoder.network(torch.randn(4, LATENT_DIM)).shape == (4, 2 * shape[0], *shape[1:])


@pytest.mark.parametrize(("architecture", "shape", "channels", "table"), CASES)
def test_likelihood_shapes(architecture, shape, channels, table):
    decoder = make(architecture, shape, channels)
    likelihood = decoder.likelihood(torch.randn(2, 3, LATENT_DIM))
    assert {tuple(tensor.shape) for tensor in likelihood} == {(2, 3, math.prod(shape))}
    objective = decoder.objective(torch.rand(3, math.prod(shape)))
    assert objective.sampled(torch.randn(2, 3, LATENT_DIM)).shape == (2, 3)
    assert not isinstance(objective, ExactObjective)


@pytest.mark.parametrize(("architecture", "shape", "channels", "table"), CASES)
def test_density_is_that_of_the_network_output(architecture, shape, channels, table):
    """First C channels are the standardised means, the last C the log precisions, image by image."""
    cap = 3.0
    decoder = make(architecture, shape, channels, math.exp(cap), small_last_layer=False).double().eval()
    z, x = normal(2, 3, LATENT_DIM, seed=62), normal(3, math.prod(shape), seed=63)
    scale = normal(math.prod(shape), seed=61).exp().float().double()
    location = normal(math.prod(shape), seed=60).float().double()
    found = decoder.objective(x).sampled(z)
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
    decoder = make(largest_precision=largest).double()
    last = decoder.network[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    for excess in (0.0, 5.0, 20.0):
        with torch.no_grad():
            last.bias[1] = math.log(largest) + decoder.log_scale.max() + excess
        likelihood = decoder.likelihood(normal(1, 2, LATENT_DIM, seed=64))
        assert (likelihood.log_precision < math.log(largest)).all()
        assert (likelihood.precision_squared < largest**2).all()
        torch.testing.assert_close(likelihood.precision_squared, torch.exp(2 * likelihood.log_precision))
        (slope,) = torch.autograd.grad(likelihood.log_precision.sum(), last.bias)
        assert slope[1] > 0
    float32 = make(largest_precision=largest)
    layer = float32.network[-1]
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    with torch.no_grad():
        layer.bias[1] = math.log(largest) + float32.log_scale.max() + 30
    value = float32.likelihood(torch.zeros(1, 1, LATENT_DIM)).log_precision
    assert (value <= math.log(largest) + 1e-6).all()
    (slope,) = torch.autograd.grad(value.sum(), layer.bias)
    assert slope[1] > 0


def test_far_below_the_cap_the_precision_is_the_network_output():
    decoder = make(largest_precision=1e6).double()
    log_precision = decoder.likelihood(torch.zeros(1, 1, LATENT_DIM, dtype=DOUBLE)).log_precision
    raw = decoder.network(torch.zeros(1, LATENT_DIM, dtype=DOUBLE))[0, 1].flatten()
    torch.testing.assert_close(log_precision[0, 0], raw - decoder.log_scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("architecture", ["plain", "strided"])
def test_the_last_layer_starts_small(architecture):
    _, shape, channels, _ = next(case for case in CASES if case[0] == architecture)
    last, default = (make(architecture, shape, channels, small_last_layer=small).network[-1] for small in (True, False))
    assert isinstance(last, nn.Conv2d | nn.ConvTranspose2d)
    assert isinstance(default, nn.Conv2d | nn.ConvTranspose2d)
    assert last.bias is not None
    assert (last.bias == 0).all()
    torch.testing.assert_close(last.weight, LAST_LAYER_SCALE * default.weight)


@pytest.mark.parametrize(
    ("architecture", "shape", "channels", "message"),
    [
        ("plain", (1, 8, 8), (4, 4, 4, 4), "decoder_channels"),
        ("plain", (1, 8, 8), (4, 4, 4, 4, 4, 4), "decoder_channels"),
        ("strided", (3, 32, 32), (4, 4, 4), "decoder_channels"),
        ("strided", (1, 28, 28), (4, 4, 4, 4), "32x32"),
        ("dense", (1, 8, 8), (4, 4, 4, 4, 4), "architecture"),
    ],
)
def test_impossible_networks_are_refused(architecture, shape, channels, message):
    with pytest.raises(ValueError, match=message):
        make(architecture, shape, channels)


def test_buffers_are_saved_and_loaded():
    decoder = make()
    other = ConvolutionalDecoder("plain", LATENT_DIM, (1, 8, 8), (3, 4, 5, 6, 7), Standardization.identity(64, 1000.0))
    other.load_state_dict(decoder.state_dict())
    z = torch.randn(1, 2, LATENT_DIM)
    for ours, theirs in zip(decoder.likelihood(z), other.likelihood(z), strict=True):
        assert torch.equal(ours, theirs)
