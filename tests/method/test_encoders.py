import pytest
import torch
from torch import nn

from silent_gradients.encoders import LAST_LAYER_SCALE, encoder


def convolution(layer):
    assert layer.kernel_size[0] == layer.kernel_size[1]
    return (type(layer).__name__, layer.kernel_size[0], layer.stride[0], layer.padding[0])


def described(network):
    return [
        convolution(layer) if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) else type(layer).__name__
        for layer in network
    ]


TABLE_5 = [
    ("Conv2d", 3, 1, 1),
    "ReLU",
    ("Conv2d", 3, 1, 1),
    "ReLU",
    ("Conv2d", 3, 1, 1),
    "Flatten",
    "Linear",
]
TABLE_7 = [
    *[("Conv2d", 4, 2, 1), "ReLU", "BatchNorm2d"] * 3,
    *[("Conv2d", 4, 1, 0), "ReLU", "BatchNorm2d"],
    "Flatten",
    "Linear",
]
CASES = [
    ("plain", (1, 8, 8), (4, 6, 5), TABLE_5),
    ("plain", (1, 28, 28), (4, 6, 5), TABLE_5),
    ("plain", (3, 7, 9), (2, 3, 4), TABLE_5),
    ("strided", (3, 32, 32), (4, 5, 6, 7), TABLE_7),
    ("strided", (1, 32, 32), (4, 5, 6, 7), TABLE_7),
]


@pytest.mark.parametrize(("architecture", "shape", "channels", "table"), CASES)
def test_layers_are_those_of_the_table(architecture, shape, channels, table):
    network = encoder(architecture, 10, shape, channels)
    assert described(network) == table
    assert network(torch.rand(2, *shape)).shape == (2, 10)
    widths = [layer.out_channels for layer in network if isinstance(layer, nn.Conv2d)]
    assert widths == list(channels)
    norms = [layer.num_features for layer in network if isinstance(layer, nn.BatchNorm2d)]
    assert norms == (list(channels) if architecture == "strided" else [])


def test_strided_sizes():
    sizes, x = [], torch.rand(2, 3, 32, 32)
    for layer in encoder("strided", 10, (3, 32, 32), (4, 5, 6, 7)):
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            sizes.append(tuple(x.shape[2:]))
    assert sizes == [(16, 16), (8, 8), (4, 4), (1, 1)]


@pytest.mark.parametrize(("architecture", "shape", "channels", "table"), CASES)
def test_the_last_layer_starts_small(architecture, shape, channels, table):
    last = []
    for small in (True, False):
        torch.manual_seed(0)
        last.append(encoder(architecture, 10, shape, channels, small_last_layer=small)[-1])
    small_layer, default = last
    assert isinstance(small_layer, nn.Linear)
    assert isinstance(default, nn.Linear)
    assert (small_layer.bias == 0).all()
    assert (default.bias != 0).any()
    torch.testing.assert_close(small_layer.weight, LAST_LAYER_SCALE * default.weight)


@pytest.mark.parametrize(
    ("architecture", "shape", "channels", "message"),
    [
        ("plain", (1, 8, 8), (4, 4), "encoder_channels"),
        ("plain", (1, 8, 8), (4, 4, 4, 4), "encoder_channels"),
        ("strided", (3, 32, 32), (4, 4, 4), "encoder_channels"),
        ("strided", (1, 28, 28), (4, 4, 4, 4), "32x32"),
        ("strided", (3, 32, 64), (4, 4, 4, 4), "32x32"),
        ("dense", (1, 8, 8), (4, 4, 4), "'plain' or 'strided'"),
    ],
)
def test_impossible_networks_are_refused(architecture, shape, channels, message):
    with pytest.raises(ValueError, match=message):
        encoder(architecture, 10, shape, channels)
