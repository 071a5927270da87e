"""REINFORCE with the exact expectation of a linear decoder as baseline."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from silent_gradients.estimators.contract import State, register
from silent_gradients.estimators.reinforce import Reinforce


@register
@dataclass(frozen=True)
class ReinforceSilentBaseline(Reinforce):
    """Score-function gradient whose baseline is the control's expectation plus a running offset.

    The expectation tells easy images from difficult ones and involves no sample, so that the gradient stays unbiased
    whatever the control is, even if its closed form is an approximation. The offset is the running average of what the
    objective exceeded the expectation by in earlier steps.
    """

    name = "reinforce-silent-baseline"
    needs_control = True

    def baseline(self, observed: Tensor, expected: Tensor, index: Tensor | None, state: State) -> tuple[Tensor, State]:
        offset, state = super().baseline(observed - expected, expected, index, state)
        return expected + offset, state
