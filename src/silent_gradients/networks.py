"""The networks of the paper (Tables 5 to 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from silent_gradients import checks

Precision = Literal["float32", "tf32", "bfloat16"]
"""Type that a network computes in while it trains."""
Shape = tuple[int, int, int]
"""Channels, height and width of an image."""

ENCODER_LAST_LAYER_SCALE = 0.3
"""Factor on the initial weights of the encoder's last layer (its biases are zero): posteriors start close to the
prior."""
DECODER_LAST_LAYER_SCALE = 0.1
"""Factor on the initial weights of the decoder's last layer: the decoder starts near a constant Gaussian per pixel,
where over-confident pixels are rare."""

_MATMUL = torch.backends.cuda.matmul


def _plain_encoder(shape: Shape, channels: Sequence[int]) -> list[nn.Module]:
    """Return the convolutions of Table 5: 3x3 at full size with ReLU in between."""
    first, second, third = (nn.Conv2d(*pair, 3, padding=1) for pair in pairwise([shape[0], *channels]))
    return [first, nn.ReLU(), second, nn.ReLU(), third]


def _plain_decoder(latent_dim: int, shape: Shape, channels: Sequence[int]) -> list[nn.Module]:
    """Return the layers of Table 6: linear, reshape to full size, four 3x3 convolutions with ReLU, a 1x1 one."""
    size = (channels[0], *shape[1:])
    layers: list[nn.Module] = [nn.Linear(latent_dim, size[0] * size[1] * size[2]), nn.Unflatten(1, size)]
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    return [*layers, nn.Conv2d(channels[-1], 2 * shape[0], 1)]


def _strided_encoder(shape: Shape, channels: Sequence[int]) -> list[nn.Module]:
    """Return the convolutions of Table 7: 4x4 with ReLU and BatchNorm, 32 -> 16 -> 8 -> 4 -> 1."""
    layers: list[nn.Module] = []
    for position, (inputs, outputs) in enumerate(pairwise([shape[0], *channels])):
        stride, padding = (2, 1) if position < 3 else (1, 0)
        layers += [nn.Conv2d(inputs, outputs, 4, stride, padding), nn.ReLU(), nn.BatchNorm2d(outputs)]
    return layers


def _strided_decoder(latent_dim: int, shape: Shape, channels: Sequence[int]) -> list[nn.Module]:
    """Return the layers of Table 8: linear, 4x4 transposed convolutions 1 -> 4 -> 8 -> 16 -> 32 with BatchNorm."""
    layers: list[nn.Module] = [nn.Linear(latent_dim, channels[0]), nn.Unflatten(1, (channels[0], 1, 1))]
    for position, (inputs, outputs) in enumerate(pairwise(channels)):
        stride, padding = (1, 0) if position == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride, padding), nn.ReLU(), nn.BatchNorm2d(outputs)]
    return [*layers, nn.ConvTranspose2d(channels[-1], 2 * shape[0], 4, 2, 1)]


@dataclass(frozen=True)
class Architecture:
    """An encoder and a decoder that belong together, with a number of channels for each of their convolutions.

    The decoder's first channels are those of the reshaped linear layer; its last convolution always has 2 C.
    """

    encoder_channels: int  # how many numbers of channels
    decoder_channels: int
    size: tuple[int, int] | None  # (H, W), which the encoder's convolutions bring to one pixel; None for any, kept
    encoder: Callable[[Shape, Sequence[int]], list[nn.Module]]  # from (shape, channels)
    decoder: Callable[[int, Shape, Sequence[int]], list[nn.Module]]  # from (k, shape, channels): z to 2 C per pixel


ARCHITECTURES = {
    "plain": Architecture(3, 5, None, _plain_encoder, _plain_decoder),
    "strided": Architecture(4, 4, (32, 32), _strided_encoder, _strided_decoder),
}
"""The architectures of Tables 5 and 6 and of Tables 7 and 8 by name."""


def _checked(architecture: str, part: str, shape: Shape, channels: Sequence[int]) -> Architecture:
    """Return the architecture of that name if the channels of its encoder or decoder and the image size fit it."""
    checks.sizes("shape", shape, 3)
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture: expected one of {sorted(ARCHITECTURES)}, got {architecture!r}")
    known = ARCHITECTURES[architecture]
    checks.sizes(f"{part}_channels", channels, getattr(known, f"{part}_channels"))
    if known.size is not None and shape[1:] != known.size:
        needed, found = ("x".join(map(str, size)) for size in (known.size, shape[1:]))
        raise ValueError(f"shape: a {architecture} {part} needs {needed} images, got {found}; use the plain one")
    return known


def encoder(
    architecture: str, outputs: int, shape: Shape, channels: Sequence[int], *, small_last_layer: bool = True
) -> Network:
    """Make an encoder of a name in ``ARCHITECTURES`` from images [B, C, H, W] to posterior parameters [B, outputs].

    With ``small_last_layer`` the last layer starts with small weights and zero bias; otherwise with PyTorch's default.

    Raises:
        ValueError: Unknown architecture, or the number of channels or the image size does not fit it.
    """
    checks.whole("outputs", outputs)
    known = _checked(architecture, "encoder", shape, channels)
    layers = known.encoder(shape, channels)
    last = nn.Linear(channels[-1] * (1 if known.size else shape[1] * shape[2]), outputs)
    if small_last_layer:
        _start_small(last, ENCODER_LAST_LAYER_SCALE)
    return Network(*layers, nn.Flatten(), last)


def decoder(
    architecture: str,
    latent_dim: int,
    shape: Shape,
    channels: Sequence[int],
    *,
    small_last_layer: bool = True,
    last_layer_scale: float = DECODER_LAST_LAYER_SCALE,
) -> Network:
    """Make a decoder from z [N, k] to two numbers per pixel and channel, [N, 2 C, H, W]; see ``encoder``.

    ``last_layer_scale`` is the factor on the last layer's initial weights if ``small_last_layer``.
    """
    checks.whole("latent_dim", latent_dim)
    layers = _checked(architecture, "decoder", shape, channels).decoder(latent_dim, shape, channels)
    if small_last_layer:
        _start_small(layers[-1], last_layer_scale)
    return Network(*layers)


def _start_small(layer: nn.Module, scale: float) -> None:
    checks.number("last_layer_scale", scale, "a number of 0 or more")
    with torch.no_grad():
        layer.get_parameter("weight").mul_(scale)
        layer.get_parameter("bias").zero_()


class Network(nn.Sequential):
    """A sequence of layers that may compute in a shorter type while they train, for instance bfloat16.

    Weights, gradients and outputs are float32 all the same, and evaluation is always in float32.

    Attributes:
        precision: The type. TF32 on a GPU applies to the linear layers here; for convolutions it is a setting of the
            whole process (see ``tf32``).
    """

    precision: Precision = "float32"

    def forward(self, x: Tensor) -> Tensor:
        if self.precision == "tf32" and self.training and x.is_cuda:
            for layer in self:
                x = _TF32Product.apply(x, layer.weight) + layer.bias if isinstance(layer, nn.Linear) else layer(x)
            return x
        shorter = self.precision == "bfloat16" and self.training
        with torch.autocast(x.device.type, torch.bfloat16) if shorter else nullcontext():
            y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return y.float() if shorter else y


def set_precision(model: nn.Module, precision: Precision) -> None:
    """Set the type that every ``Network`` of a model computes in while it trains."""
    for module in model.modules():
        if isinstance(module, Network):
            module.precision = precision


@contextmanager
def tf32(backend: Any) -> Iterator[None]:
    """Context manager: float32 runs as TF32 on this backend of torch (process-wide)."""
    before = backend.fp32_precision
    backend.fp32_precision = "tf32"
    try:
        yield
    finally:
        backend.fp32_precision = before


class _TF32Product(torch.autograd.Function):
    """``x @ weight.T``, forward and backward in TF32, independent of the setting for other products."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return _in_tf32(x, weight.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight = ctx.needs_input_grad
        return _in_tf32(gradient, weight) if for_x else None, _in_tf32(gradient.mT, x) if for_weight else None


def _in_tf32(one: Tensor, other: Tensor) -> Tensor:
    with tf32(_MATMUL):
        return one @ other
