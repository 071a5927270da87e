"""Silent gradients: the exact expectation, differentiated; zero variance (the paper's method)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from silent_gradients.decoders.likelihood import ExactObjective, Objective
from silent_gradients.estimators.contract import Estimate, Estimator, EstimatorError, State, register
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors import Posterior


@register
@dataclass(frozen=True)
class Silent(Estimator):
    """Gradient of the closed-form expectation. Unbiased wherever that form is exact."""

    name = "silent"
    unbiased = True
    exact = True

    def evaluations(self, latent_dim: int) -> int:
        return 0

    def __call__(
        self,
        q: Posterior,
        objective: Objective,
        *,
        control: ExactObjective | None = None,
        index: Tensor | None = None,
        generator: NoiseSource | None = None,
        state: State,
    ) -> Estimate:
        if not isinstance(objective, ExactObjective):
            raise EstimatorError(
                f"estimator 'silent' needs an objective with an exact expectation, as linear decoders give; "
                f"got {type(objective).__name__}"
            )
        expectation = objective.expectation(q)
        return Estimate(expectation.detach(), expectation, state)
