"""The nonlinear decoders of the paper (Tables 6 and 8)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from silent_gradients import checks, networks
from silent_gradients.checks import ShapeError
from silent_gradients.decoders.likelihood import Decoder, GaussianLikelihood, Standardization, dimensions_of


class ConvolutionalDecoder(Decoder):
    """p(x|z) = N(mean, precision^-2) with mean and log precision from a convolutional network.

    Both outputs are standardised per dimension, and the total log precision l passes through the smooth cap
    ``hi - softplus(hi - l)``: a hard clamp would kill the gradient of exactly the over-confident pixels.

    Args:
        architecture: ``plain`` (Table 6) or ``strided`` (Table 8).
        latent_dim: k.
        shape: (C, H, W).
        channels: Five (plain) or four (strided) numbers of channels; see ``networks.decoder``.
        standardization: Location, scale and largest precision.
        small_last_layer: Start the last layer with small weights and zero bias; otherwise PyTorch's default.
        last_layer_scale: Factor on the initial weights of a small last layer.

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
        last_layer_scale: float = networks.DECODER_LAST_LAYER_SCALE,
    ) -> None:
        checks.sizes("shape", shape, 3)
        super().__init__(latent_dim, dimensions_of(standardization))
        if self.dimensions != math.prod(shape):
            raise ShapeError(f"standardization: expected D = {math.prod(shape)}, got {self.dimensions}")
        self.network = networks.decoder(
            architecture,
            latent_dim,
            shape,
            channels,
            small_last_layer=small_last_layer,
            last_layer_scale=last_layer_scale,
        )
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
