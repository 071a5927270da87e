"""REINFORCE as it stands, without a baseline (Williams 1992)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from silent_gradients.estimators.contract import State, register
from silent_gradients.estimators.score_function import ScoreFunction


@register
@dataclass(frozen=True)
class ReinforceNoBaseline(ScoreFunction):
    """Score-function gradient with nothing subtracted: what a baseline is worth shows beside it."""

    name = "reinforce-no-baseline"

    def baseline(self, observed: Tensor, expected: Tensor, index: Tensor | None, state: State) -> tuple[Tensor, State]:
        return observed.new_zeros(()), state
