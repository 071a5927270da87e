"""The reparameterization estimator (Kingma and Welling 2014; Rezende et al. 2014)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from silent_gradients.decoders.likelihood import ExactObjective, Objective
from silent_gradients.estimators.contract import Estimate, SampledEstimator, State, register
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors import Posterior


@register
@dataclass(frozen=True)
class Reparameterization(SampledEstimator):
    """Pathwise gradient through samples that are functions of noise, as z = mean + standard deviation * noise."""

    name = "reparameterization"
    unbiased = True
    asks = "with reparameterized samples"

    @classmethod
    def serves(cls, family: type[Posterior]) -> bool:
        return super().serves(family) and family.has_rsample()

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
        value = objective.sampled(q.rsample(self.samples, generator)).mean(0)
        return Estimate(value.detach(), value, state)
