"""The convolutional encoders of Tables 5 (plain) and 7 (strided) of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from silent_gradients.networks import Network

LAST_LAYER_SCALE = 0.3
"""Factor on the last layer's initial weights (biases are zero): posteriors start close to the prior."""


def encoder(
    architecture: str,
    outputs: int,
    shape: tuple[int, int, int],
    channels: Sequence[int],
    *,
    small_last_layer: bool = True,
) -> Network:
    """An encoder from images [B, C, H, W] to posterior parameters [B, outputs].

    Args:
        architecture: ``plain``: three 3x3 convolutions at full size, ReLU after the first two, and a linear layer
            (Table 5). ``strided``: 4x4 convolutions 32 -> 16 -> 8 -> 4 -> 1, each with ReLU and BatchNorm, and a linear
            layer (Table 7).
        outputs: Number of posterior parameters, ``parameters_per_latent * k``.
        shape: (C, H, W) of the images.
        channels: Three (plain) or four (strided) numbers of channels.
        small_last_layer: Start the last layer with small weights and zero bias; otherwise PyTorch's default.

    Raises:
        ValueError: The number of channels or the image size does not fit the architecture.
    """
    image_channels, height, width = shape
    widths = [image_channels, *channels]
    layers: list[nn.Module] = []
    if architecture == "plain":
        if len(channels) != 3:
            raise ValueError(f"encoder_channels: a plain encoder has 3, got {list(channels)}")
        for position, (inputs, out) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(inputs, out, 3, padding=1))
            if position < 2:
                layers.append(nn.ReLU())
        features = channels[-1] * height * width
    elif architecture == "strided":
        if len(channels) != 4:
            raise ValueError(f"encoder_channels: a strided encoder has 4, got {list(channels)}")
        if (height, width) != (32, 32):
            raise ValueError(f"a strided encoder reads 32x32 images, got {height}x{width}; use the plain one")
        for position, (inputs, out) in enumerate(pairwise(widths)):
            stride, padding = (2, 1) if position < 3 else (1, 0)
            layers += [nn.Conv2d(inputs, out, 4, stride, padding), nn.ReLU(), nn.BatchNorm2d(out)]
        features = channels[-1]
    else:
        raise ValueError(f"architecture: expected 'plain' or 'strided', got {architecture!r}")
    last = nn.Linear(features, outputs)
    if small_last_layer:
        with torch.no_grad():
            last.weight.mul_(LAST_LAYER_SCALE)
            last.bias.zero_()
    return Network(*layers, nn.Flatten(), last)
