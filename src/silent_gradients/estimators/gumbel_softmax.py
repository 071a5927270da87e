"""Gumbel-Softmax for bits, the binary Concrete relaxation (Jang et al. 2017; Maddison et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from silent_gradients.decoders.likelihood import ExactObjective, Objective
from silent_gradients.estimators.contract import Estimate, EstimatorError, SampledEstimator, State, register
from silent_gradients.posteriors import Bernoulli, Posterior


def relaxed_sample(q: Bernoulli, samples: int, temperature: float, generator: torch.Generator | None) -> Tensor:
    """sigmoid((logits + logistic noise) / temperature), shape [S, B, k], with a gradient to the logits."""
    logits = q.logits
    uniform = torch.rand((samples, *logits.shape), generator=generator, dtype=logits.dtype, device=logits.device)
    # rand may return 0, whose logit is infinite.
    uniform = uniform.clamp(min=torch.finfo(logits.dtype).tiny)
    return ((logits + uniform.log() - torch.log1p(-uniform)) / temperature).sigmoid()


@register
@dataclass(frozen=True)
class GumbelSoftmax(SampledEstimator):
    """Pathwise gradient through relaxed bits; biased, since the objective is averaged over other values than {0, 1}.

    Its ``value`` is that of the relaxed objective and no bound on the likelihood.

    Attributes:
        temperature: Positive; towards 0 the bias falls and the variance grows.
    """

    temperature: float = 1.0

    name = "gumbel-softmax"
    unbiased = False
    posteriors = frozenset({"bernoulli"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise EstimatorError(f"temperature: expected a positive number, got {self.temperature}")

    def __call__(
        self,
        q: Posterior,
        objective: Objective,
        *,
        control: ExactObjective | None = None,
        index: Tensor | None = None,
        generator: torch.Generator | None = None,
        state: State,
    ) -> Estimate:
        if not isinstance(q, Bernoulli):
            raise EstimatorError(f"estimator 'gumbel-softmax' serves bernoulli posteriors, got {q.name}")
        value = objective.sampled(relaxed_sample(q, self.samples, self.temperature, generator)).mean(0)
        return Estimate(value.detach(), value, state)
