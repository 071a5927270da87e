"""The layers of Tables 5 to 8 of the paper, their starts and the numbers they refuse."""

import pytest
import torch
from torch import nn

from silent_gradients import networks
from silent_study.settings import ARCHITECTURES

TABLES = {
    ("encoder", "plain"): [*[("Conv2d", 3, 1, 1), "ReLU"] * 2, ("Conv2d", 3, 1, 1), "Flatten", "Linear"],
    ("encoder", "strided"): [
        *[("Conv2d", 4, 2, 1), "ReLU", "BatchNorm2d"] * 3,
        *[("Conv2d", 4, 1, 0), "ReLU", "BatchNorm2d"],
        "Flatten",
        "Linear",
    ],
    ("decoder", "plain"): ["Linear", "Unflatten", *[("Conv2d", 3, 1, 1), "ReLU"] * 4, ("Conv2d", 1, 1, 0)],
    ("decoder", "strided"): [
        "Linear",
        "Unflatten",
        *[("ConvTranspose2d", 4, 1, 0), "ReLU", "BatchNorm2d"],
        *[("ConvTranspose2d", 4, 2, 1), "ReLU", "BatchNorm2d"] * 2,
        ("ConvTranspose2d", 4, 2, 1),
    ],
}
"""Tables 5, 7, 6 and 8."""
SHAPES = {"plain": [(1, 8, 8), (1, 28, 28), (3, 7, 9)], "strided": [(3, 32, 32), (1, 32, 32)]}
CHANNELS = {
    ("encoder", "plain"): (4, 6, 5),
    ("encoder", "strided"): (4, 5, 6, 7),
    ("decoder", "plain"): (3, 4, 5, 6, 7),
    ("decoder", "strided"): (6, 5, 4, 3),
}
CASES = [(part, architecture, shape) for part, architecture in TABLES for shape in SHAPES[architecture]]
NUMBERS = 10
"""Posterior parameters of an encoder, latent variables of a decoder."""


def make(part, architecture, shape, channels=None, **options):
    torch.manual_seed(0)
    return getattr(networks, part)(architecture, NUMBERS, shape, channels or CHANNELS[part, architecture], **options)


def described(layer):
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return type(layer).__name__
    assert layer.kernel_size[0] == layer.kernel_size[1]
    return (type(layer).__name__, layer.kernel_size[0], layer.stride[0], layer.padding[0])


@pytest.mark.parametrize(("part", "architecture", "shape"), CASES)
def test_layers_are_those_of_the_table(part, architecture, shape):
    network, channels = make(part, architecture, shape), list(CHANNELS[part, architecture])
    assert [described(layer) for layer in network] == TABLES[part, architecture]
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    norms = [layer.num_features for layer in network if isinstance(layer, nn.BatchNorm2d)]
    widths = [(layer.in_channels, layer.out_channels) for layer in convolutions]
    if part == "encoder":
        assert [out for _, out in widths] == channels
        assert norms == (channels if architecture == "strided" else [])
        assert network(torch.rand(2, *shape)).shape == (2, NUMBERS)
    else:
        assert [*[inputs for inputs, _ in widths], widths[-1][1]] == [*channels, 2 * shape[0]]
        assert network(torch.randn(4, NUMBERS)).shape == (4, 2 * shape[0], *shape[1:])


def test_strided_sizes():
    sizes, x = [], torch.rand(2, 3, 32, 32)
    for layer in make("encoder", "strided", (3, 32, 32)):
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            sizes.append(tuple(x.shape[2:]))
    assert sizes == [(16, 16), (8, 8), (4, 4), (1, 1)]


@pytest.mark.parametrize(("part", "architecture", "shape"), CASES)
def test_the_last_layer_starts_small(part, architecture, shape):
    small, default = (make(part, architecture, shape, small_last_layer=small)[-1] for small in (True, False))
    assert (small.bias == 0).all()
    assert (default.bias != 0).any()
    scale = {"encoder": networks.ENCODER_LAST_LAYER_SCALE, "decoder": networks.DECODER_LAST_LAYER_SCALE}[part]
    torch.testing.assert_close(small.weight, scale * default.weight)


@pytest.mark.parametrize(("part", "architecture"), TABLES)
def test_networks_have_the_numbers_that_the_settings_of_the_study_allow_and_no_others(part, architecture):
    traits = ARCHITECTURES[architecture]
    number = traits.encoder_channels if part == "encoder" else traits.decoder_channels
    size = traits.image_size or (4, 4)
    assert len(CHANNELS[part, architecture]) == number
    make(part, architecture, (1, *size), (4,) * number)
    for wrong in (number - 1, number + 1):
        with pytest.raises(ValueError, match=f"{part}_channels.*{number}, got"):
            make(part, architecture, (1, *size), (4,) * wrong)
    for height, width in ((28, 28), (32, 64)):
        if traits.image_size is None:
            make(part, architecture, (1, height, width), (4,) * number)
        else:
            needed = f"{size[0]}x{size[1]} images, got {height}x{width}; use the plain one"
            with pytest.raises(ValueError, match=needed):
                make(part, architecture, (1, height, width), (4,) * number)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_unknown_architectures_are_refused(part):
    assert set(networks.ARCHITECTURES) == set(ARCHITECTURES)
    with pytest.raises(ValueError, match=r"architecture.*'plain', 'strided'.*'dense'"):
        make(part, "dense", (1, 8, 8), (4,) * 3)
