"""REINFORCE with a linear decoder as baseline and as control variate."""

from __future__ import annotations

from dataclasses import dataclass

from silent_gradients.estimators.contract import register
from silent_gradients.estimators.reinforce_silent_baseline import ReinforceSilentBaseline
from silent_gradients.estimators.silent_control import ScoreFunctionSilentControl


@register
@dataclass(frozen=True)
class ReinforceSilentControl(ReinforceSilentBaseline, ScoreFunctionSilentControl):
    """Score-function gradient with the silent baseline, less what the control's sampled gradient is off by.

    The baseline takes out how images differ, the control variate how the samples of an image do.
    """

    name = "reinforce-silent-control"
