"""Convolutions of many runs as one convolution in groups, for networks under ``torch.vmap``.

PyTorch's own rule adds the bias in a pass of its own, whose gradient is a sum in an order that depends on the number of
runs. Here the bias is part of the convolution: faster, and for every run the same bits whatever lies beside it.

A rule of one's own is what ``torch.autograd.Function.vmap`` is for, but its wrapping takes as long as a small
convolution. So this module does what that wrapping does, with the functions that torch.func itself is made of.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch._C import _functorch


class _GroupedConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        joint, weight, bias, groups = _joined(x, self.weight, self.bias)
        y = F.conv2d(joint, weight, bias, self.stride, self.padding, self.dilation, groups)
        return _parted(y, groups, x)


class _GroupedConvTranspose2d(nn.ConvTranspose2d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        joint, weight, bias, groups = _joined(x, self.weight, self.bias)
        assert not isinstance(self.padding, str)
        y = F.conv_transpose2d(
            joint, weight, bias, self.stride, self.padding, self.output_padding, groups, self.dilation
        )
        return _parted(y, groups, x)


def _joined(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None, int]:
    """Images [B, N C, H, W] of N runs, weights and biases one below the other, and N.

    Without a copy, where that is how the images lie in memory.
    """
    images = _of_all_runs(x, 1)
    joint_bias = None if bias is None else _of_all_runs(bias, 0).flatten()
    return images.flatten(1, 2), _of_all_runs(weight, 0).flatten(0, 1), joint_bias, images.shape[1]


def _parted(y: Tensor, groups: int, x: Tensor) -> Tensor:
    """Each run's [B, C, H, W] of a joint [B, N C, H, W], as vmap has it."""
    level = _functorch.maybe_get_level(x)
    return _functorch._add_batch_dim(y.unflatten(1, (groups, -1)), 1, level)


def _of_all_runs(tensor: Tensor, to: int) -> Tensor:
    """The tensor over which vmap maps ``tensor``, with the runs in dimension ``to``."""
    return _functorch.get_unwrapped(tensor).movedim(_functorch.maybe_get_bdim(tensor), to)


def group_convolutions(network: nn.Module) -> None:
    """Make the convolutions of a network joint ones; from now on it works under vmap alone, with weights for each run.

    Raises:
        ValueError: A convolution is in groups already.
    """
    grouped: dict[type[nn.Module], type[nn.Module]] = {
        nn.Conv2d: _GroupedConv2d,
        nn.ConvTranspose2d: _GroupedConvTranspose2d,
    }
    for name, layer in network.named_modules():
        if type(layer) in grouped:
            if layer.groups != 1:
                raise ValueError(f"{name}: expected a convolution in one group, got {layer}")
            layer.__class__ = grouped[type(layer)]
