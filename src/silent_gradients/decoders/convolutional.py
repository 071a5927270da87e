"""The nonlinear decoders of Tables 6 (plain) and 8 (strided) of the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from silent_gradients.decoders.likelihood import Decoder, GaussianLikelihood, Standardization
from silent_gradients.networks import Network
from silent_gradients.posteriors import ShapeError

LAST_LAYER_SCALE = 0.1
"""Factor on the last layer's initial weights: the decoder starts near a constant Gaussian per pixel, from where
over-confident pixels are rare."""


def plain_layers(latent_dim: int, shape: tuple[int, int, int], channels: Sequence[int]) -> list[nn.Module]:
    """Layers of Table 6: linear, reshape to full size, four 3x3 convolutions with ReLU, a 1x1 convolution.

    Args:
        latent_dim: k.
        shape: (C, H, W) of the images; the last layer has 2 C channels.
        channels: Five numbers: of the reshaped linear layer, then of the four convolutions.
    """
    if len(channels) != 5:
        raise ValueError(f"decoder_channels: a plain decoder has 5, got {list(channels)}")
    image_channels, height, width = shape
    layers: list[nn.Module] = [
        nn.Linear(latent_dim, channels[0] * height * width),
        nn.Unflatten(1, (channels[0], height, width)),
    ]
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    return [*layers, nn.Conv2d(channels[-1], 2 * image_channels, 1)]


def strided_layers(latent_dim: int, shape: tuple[int, int, int], channels: Sequence[int]) -> list[nn.Module]:
    """Layers of Table 8: linear, then 4x4 transposed convolutions 1 -> 4 -> 8 -> 16 -> 32 with BatchNorm.

    Args:
        latent_dim: k.
        shape: (C, 32, 32) of the images; the last layer has 2 C channels.
        channels: Four numbers: of the linear layer, then of the first three transposed convolutions.
    """
    if len(channels) != 4:
        raise ValueError(f"decoder_channels: a strided decoder has 4, got {list(channels)}")
    if shape[1:] != (32, 32):
        raise ValueError(f"a strided decoder makes 32x32 images, got {shape[1]}x{shape[2]}; use the plain one")
    layers: list[nn.Module] = [nn.Linear(latent_dim, channels[0]), nn.Unflatten(1, (channels[0], 1, 1))]
    for position, (inputs, outputs) in enumerate(pairwise(channels)):
        stride, padding = (1, 0) if position == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride, padding), nn.ReLU(), nn.BatchNorm2d(outputs)]
    return [*layers, nn.ConvTranspose2d(channels[-1], 2 * shape[0], 4, 2, 1)]


LAYERS = {"plain": plain_layers, "strided": strided_layers}


class ConvolutionalDecoder(Decoder):
    """p(x|z) = N(mean, precision^-2) with mean and log precision from a convolutional network.

    Both outputs are standardised per dimension, and the total log precision l passes through the smooth cap
    ``hi - softplus(hi - l)``: a hard clamp would kill the gradient of exactly the over-confident pixels.

    Args:
        architecture: ``plain`` (Table 6) or ``strided`` (Table 8).
        latent_dim: k.
        shape: (C, H, W).
        channels: See ``plain_layers`` and ``strided_layers``.
        standardization: Location, scale and largest precision.
        small_last_layer: Start the last layer with small weights and zero bias; otherwise PyTorch's default.

    Raises:
        ShapeError: The standardization is of images of another size.
        ValueError: Unknown architecture, or the number of channels or the image size does not fit it.
    """

    mean: Tensor
    log_scale: Tensor

    def __init__(
        self,
        architecture: str,
        latent_dim: int,
        shape: tuple[int, int, int],
        channels: Sequence[int],
        standardization: Standardization,
        *,
        small_last_layer: bool = True,
    ) -> None:
        super().__init__(latent_dim, len(standardization.mean))
        if architecture not in LAYERS:
            raise ValueError(f"architecture: expected one of {sorted(LAYERS)}, got {architecture!r}")
        if self.dimensions != math.prod(shape):
            raise ShapeError(f"standardization: expected D = {math.prod(shape)}, got {self.dimensions}")
        layers = LAYERS[architecture](latent_dim, shape, channels)
        last = layers[-1]
        if small_last_layer and isinstance(last, nn.Conv2d | nn.ConvTranspose2d) and last.bias is not None:
            with torch.no_grad():
                last.weight.mul_(LAST_LAYER_SCALE)
                last.bias.zero_()
        self.network = Network(*layers)
        self.cap = math.log(standardization.largest_precision)
        self.register_buffer("mean", standardization.mean.clone())
        self.register_buffer("log_scale", standardization.scale.log())

    def likelihood(self, z: Tensor) -> GaussianLikelihood:
        samples, batch, _ = z.shape
        output = self.network(z.flatten(0, 1))
        mean, log_precision = output.flatten(1).view(samples, batch, 2, -1).unbind(2)
        log_precision = self.cap - F.softplus(self.cap - (log_precision - self.log_scale))
        mean = self.mean + self.log_scale.exp() * mean
        return GaussianLikelihood(mean, log_precision, (2 * log_precision).exp())
