"""What decoders have in common whose mean and precision come from one linear function of z each."""

from __future__ import annotations

from abc import ABC

from torch import Tensor, nn

from silent_gradients.decoders.fixed_variance import INITIAL_WEIGHT_SCALE
from silent_gradients.decoders.likelihood import Decoder, Standardization


class LinearHeadsDecoder(Decoder, ABC):
    """p(x|z) with mean ``mean + scale (A z + a)`` and a precision in units of ``1 / scale`` that B z + c decides.

    Args:
        latent_dim: k.
        standardization: Location and scale of the data; the identity leaves both heads raw.
        initial_precision_bias: c at the start, with small weights.
        small_weights: Start with small weights, a = 0 and c as given; otherwise PyTorch's default.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        latent_dim: int,
        standardization: Standardization,
        *,
        initial_precision_bias: float,
        small_weights: bool,
    ) -> None:
        dimensions = len(standardization.mean)
        super().__init__(latent_dim, dimensions)
        self.register_buffer("mean", standardization.mean.clone())
        self.register_buffer("scale", standardization.scale.clone())
        self.mean_head = nn.Linear(latent_dim, dimensions)
        self.precision_head = nn.Linear(latent_dim, dimensions)
        if small_weights:
            for head, bias in ((self.mean_head, 0.0), (self.precision_head, initial_precision_bias)):
                nn.init.normal_(head.weight, std=INITIAL_WEIGHT_SCALE)
                nn.init.constant_(head.bias, bias)

    def mean_at(self, z: Tensor) -> Tensor:
        """The mean of x at z [S, B, k], shape [S, B, D]."""
        return self.mean + self.scale * self.mean_head(z)

    def residual(self, x: Tensor, weighted: Tensor) -> Tensor:
        """Standardised x less (A z + a), for x and A z = ``weighted`` of shape [B, D]."""
        # In float32 with the biases added last: this is a small difference of numbers of order one.
        return (x - self.mean) / self.scale - (weighted + self.mean_head.bias)
