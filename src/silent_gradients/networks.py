"""Networks that may compute in a shorter type while they train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "tf32", "bfloat16"]
"""Type that a network computes in while it trains."""

_MATMUL = torch.backends.cuda.matmul


class _TF32Product(torch.autograd.Function):
    """``x @ weight.T``, forward and backward in TF32, whatever other products around it are computed in."""

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
        return (
            _in_tf32(gradient, weight) if for_x else None,
            _in_tf32(gradient.mT, x) if for_weight else None,
        )


def _in_tf32(one: Tensor, other: Tensor) -> Tensor:
    with tf32(_MATMUL):
        return one @ other


@contextmanager
def tf32(backend: Any) -> Iterator[None]:
    """Inside, one of torch's backends computes float32 in TF32, for the whole process."""
    before = backend.fp32_precision
    backend.fp32_precision = "tf32"
    try:
        yield
    finally:
        backend.fp32_precision = before


class Network(nn.Sequential):
    """Layers one after another; in training they may compute in a shorter type, for instance bfloat16.

    Weights, gradients and what comes out are float32 all the same, and evaluation always is.

    Attributes:
        precision: The type. TF32 on a GPU is that of the linear layers here; for convolutions it is a setting of the
            whole process (``training.arithmetic``).
    """

    precision: Precision = "float32"

    def forward(self, x: Tensor) -> Tensor:
        if self.precision == "bfloat16" and self.training:
            with torch.autocast(x.device.type, torch.bfloat16):
                y = self._layers(x)
            return y.float()
        return self._layers(x)

    def _layers(self, x: Tensor) -> Tensor:
        shorter = self.precision == "tf32" and self.training and x.is_cuda
        for layer in self:
            if shorter and isinstance(layer, nn.Linear):
                x = _TF32Product.apply(x, layer.weight) + layer.bias
            else:
                x = layer(x)
        return x


def set_precision(model: nn.Module, precision: Precision) -> None:
    """Set what every ``Network`` of a model computes in while it trains."""
    for module in model.modules():
        if isinstance(module, Network):
            module.precision = precision
