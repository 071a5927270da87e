"""Convolutions of many runs as one convolution in groups, for networks under ``torch.vmap``.

PyTorch's own rule adds the bias in a pass of its own, whose gradient is a sum in an order that depends on the number of
runs. Here the bias is part of the convolution: faster, and for every run the same bits whatever lies beside it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Grouped(torch.autograd.Function):
    """A convolution with its rule for vmap; it is used under vmap alone, whose rule autograd follows by itself."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, layer: nn.Module) -> Tensor:
        raise NotImplementedError("a grouped convolution is one of runs under torch.vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        raise NotImplementedError("a grouped convolution is one of runs under torch.vmap")

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, int, int, None], x: Tensor, weight: Tensor, bias: Tensor, layer: nn.Module
    ) -> tuple[Tensor, int]:
        """[B, N, C, H, W] becomes [B, N C, H, W]; without a copy, where that is how it lies in memory."""
        groups = info.batch_size
        x = x.movedim(in_dims[0], 1).flatten(1, 2)
        weight = weight.movedim(in_dims[1], 0).flatten(0, 1)
        bias = bias.movedim(in_dims[2], 0).flatten()
        if isinstance(layer, nn.Conv2d):
            y = F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, groups)
        else:
            transposed = cast("nn.ConvTranspose2d", layer)
            stride, padding = transposed.stride, cast("tuple[int, int]", transposed.padding)
            y = F.conv_transpose2d(
                x, weight, bias, stride, padding, transposed.output_padding, groups, transposed.dilation
            )
        return y.unflatten(1, (groups, -1)), 1


class _Conv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", _Grouped.apply(x, self.weight, self.bias, self))


class _ConvTranspose2d(nn.ConvTranspose2d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return cast("Tensor", _Grouped.apply(x, self.weight, self.bias, self))


def group_convolutions(network: nn.Module) -> None:
    """Let the convolutions of a network, which is run under vmap alone from now on, be grouped ones.

    Raises:
        ValueError: A convolution is in groups already, or has no bias.
    """
    grouped: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: _Conv2d, nn.ConvTranspose2d: _ConvTranspose2d}
    for name, layer in network.named_modules():
        if type(layer) in grouped:
            if layer.groups != 1 or layer.bias is None:
                raise ValueError(f"{name}: expected a convolution in one group with a bias, got {layer}")
            layer.__class__ = grouped[type(layer)]
