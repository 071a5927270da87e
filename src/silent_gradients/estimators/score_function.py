"""The score-function gradient, of which every variant is a baseline (Williams 1992)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from silent_gradients.decoders.likelihood import ExactObjective, Objective
from silent_gradients.estimators.contract import Estimate, SampledEstimator, State
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors import Posterior


@dataclass(frozen=True)
class ScoreFunction(SampledEstimator):
    """(objective - baseline) * grad log q(z|x), plus the objective's own gradient.

    Unbiased for every posterior whose support does not move and every objective, as long as the baseline of a sample
    does not depend on it.
    """

    unbiased = True
    asks = "whose support is the same for all parameters"

    @classmethod
    def serves(cls, family: type[Posterior]) -> bool:
        return super().serves(family) and family.has_fixed_support

    @abstractmethod
    def baseline(self, observed: Tensor, expected: Tensor, index: Tensor | None, state: State) -> tuple[Tensor, State]:
        """What is subtracted from the objective at each sample, and the state after this step.

        Args:
            observed: [S, B], the objective at the samples, without a gradient.
            expected: [B], the control's expectation, without a gradient; 0 unless the class ``needs_control``.
            index: [B], number of each image in the training set, or None.
            state: The state before this step.

        Returns:
            The baseline, broadcastable to [S, B] and independent of the sample it is subtracted from, and the state.

        Raises:
            EstimatorError: The index has another shape, or the state no entries for it.
        """

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
        self.check_serves(type(q))
        z = q.sample(self.samples, generator)
        value = objective.sampled(z)
        observed = value.detach()
        expected = observed.new_zeros(())
        if self.needs_control:
            with torch.no_grad():
                expected = self.checked(control).expectation(q)
        baseline, state = self.baseline(observed, expected, index, state)
        surrogate = value + (observed - baseline) * q.log_prob(z)
        return Estimate(observed.mean(0), surrogate.mean(0), state)
