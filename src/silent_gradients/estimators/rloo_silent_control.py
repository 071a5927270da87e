"""RLOO with a linear decoder as control variate."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from silent_gradients.estimators.contract import register
from silent_gradients.estimators.rloo import Rloo
from silent_gradients.estimators.silent_control import ScoreFunctionSilentControl


@register
@dataclass(frozen=True)
class RlooSilentControl(Rloo, ScoreFunctionSilentControl):
    """Leave-one-out gradient, less what the control's sampled gradient is off by."""

    name = "rloo-silent-control"

    def control_baseline(self, observed: Tensor, expected: Tensor) -> Tensor:
        # The other samples' mean here as well: its noise is then in both gradients, and goes with the difference.
        baseline, _ = self.baseline(observed, expected, None, {})
        return baseline
