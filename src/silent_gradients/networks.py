"""Networks that may compute in a shorter type while they train."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Network(nn.Sequential):
    """Layers one after another; in training they may compute in a shorter type, for instance bfloat16.

    Weights, gradients and what comes out are float32 all the same, and evaluation always is.

    Attributes:
        short: The type, or None for float32 throughout.
    """

    short: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.short is None or not self.training:
            return self._layers(x)
        with torch.autocast(x.device.type, self.short):
            y = self._layers(x)
        return y.float()

    def _layers(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x


def set_short_type(model: nn.Module, short: torch.dtype | None) -> None:
    """Set the type that every ``Network`` of a model computes in while it trains."""
    for module in model.modules():
        if isinstance(module, Network):
            module.short = short
