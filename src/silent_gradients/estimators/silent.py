"""The silent gradient: the exact expectation, differentiated."""

from __future__ import annotations

from dataclasses import dataclass

from silent_gradients.decoders.likelihood import ExactObjective, Objective
from silent_gradients.estimators.contract import Estimate, Estimator, EstimatorError, Given, register
from silent_gradients.posteriors.contract import Posterior


@register
@dataclass(frozen=True)
class Silent(Estimator):
    """Gradient of the closed-form expectation. Unbiased wherever that form is exact."""

    name = "silent"
    unbiased = True
    exact = True

    def evaluations(self, latent_dim: int) -> int:
        return 0

    def estimate(self, q: Posterior, objective: Objective, given: Given) -> Estimate:
        if not isinstance(objective, ExactObjective):
            raise EstimatorError(
                f"objective: estimator 'silent' needs one with an exact expectation, as linear decoders have; "
                f"got {type(objective).__name__}"
            )
        expectation = objective.expectation(q)
        return Estimate(expectation, expectation, given.state)
