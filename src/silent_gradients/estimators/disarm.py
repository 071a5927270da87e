"""DisARM, also known as U2G (Dong et al. 2020; Yin et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from silent_gradients.estimators.arm import AntitheticBits
from silent_gradients.estimators.contract import register
from silent_gradients.posteriors import Bernoulli


@register
@dataclass(frozen=True)
class Disarm(AntitheticBits):
    """(f(b) - f(b')) (b - b') sigmoid(|logit|) / 2: ARM with its noise integrated out, given the pair b, b'."""

    name = "disarm"

    def direction(self, q: Bernoulli, uniform: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
        first, second = pair
        return 0.5 * (first - second) * q.logits.abs().sigmoid()
