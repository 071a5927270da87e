"""What the estimators for bits share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from silent_gradients.decoders.likelihood import ExactObjective, Objective
from silent_gradients.estimators.contract import Estimate, EstimatorError, SampledEstimator, State
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors import Bernoulli, Posterior


@dataclass(frozen=True)
class BitEstimator(SampledEstimator):
    """An estimator for Bernoulli posteriors that carries nothing from step to step."""

    posteriors = frozenset({"bernoulli"})

    @abstractmethod
    def estimate(self, q: Bernoulli, objective: Objective, generator: NoiseSource | None) -> tuple[Tensor, Tensor]:
        """The value and the surrogate of an ``Estimate``, each [B]; the value may have a gradient."""

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
        if not isinstance(q, Bernoulli):
            raise EstimatorError(f"q: estimator {self.name!r} serves bernoulli posteriors, got {q.name}")
        value, surrogate = self.estimate(q, objective, generator)
        return Estimate(value.detach(), surrogate, state)
