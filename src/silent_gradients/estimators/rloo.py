"""REINFORCE leave-one-out, RLOO (Kool et al. 2019; Salimans and Knowles 2014)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from silent_gradients.estimators.contract import State, register
from silent_gradients.estimators.score_function import ScoreFunction


@register
@dataclass(frozen=True)
class Rloo(ScoreFunction):
    """Score-function gradient whose baseline is the mean over the image's other samples.

    Attributes:
        samples: Samples per image and step, at least 2.
    """

    samples: int = field(default=2, kw_only=True)

    name = "rloo"
    least_samples = 2

    def baseline(self, observed: Tensor, expected: Tensor, index: Tensor | None, state: State) -> tuple[Tensor, State]:
        return (observed.sum(0) - observed) / (self.samples - 1), state
