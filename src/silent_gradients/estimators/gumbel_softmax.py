"""Gumbel-Softmax for bits, the binary Concrete relaxation (Jang et al. 2017; Maddison et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from silent_gradients import latent_noise
from silent_gradients.decoders.likelihood import Objective
from silent_gradients.estimators.bits import BitEstimator
from silent_gradients.estimators.contract import EstimatorError, register
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors import Bernoulli


def relaxed_sample(q: Bernoulli, samples: int, temperature: float, generator: NoiseSource | None) -> Tensor:
    """sigmoid((logits + logistic noise) / temperature), shape [S, B, k], with a gradient to the logits."""
    logits = q.logits
    uniform = latent_noise.uniform((samples, *logits.shape), logits, generator)
    # rand may return 0, whose logit is infinite.
    uniform = uniform.clamp(min=torch.finfo(logits.dtype).tiny)
    return ((logits + uniform.log() - torch.log1p(-uniform)) / temperature).sigmoid()


@register
@dataclass(frozen=True)
class GumbelSoftmax(BitEstimator):
    """Pathwise gradient through relaxed bits; biased, since the objective is averaged over other values than {0, 1}.

    Its ``value`` is that of the relaxed objective and no bound on the likelihood.

    Attributes:
        temperature: Positive; towards 0 the bias falls and the variance grows.
    """

    temperature: float = 1.0

    name = "gumbel-softmax"
    unbiased = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise EstimatorError(f"temperature: expected a positive number, got {self.temperature}")

    def estimate(self, q: Bernoulli, objective: Objective, generator: NoiseSource | None) -> tuple[Tensor, Tensor]:
        value = objective.sampled(relaxed_sample(q, self.samples, self.temperature, generator)).mean(0)
        return value, value
