"""Straight-through Gumbel-Softmax for bits (Jang et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from silent_gradients.decoders.likelihood import Objective
from silent_gradients.estimators.contract import register
from silent_gradients.estimators.gumbel_softmax import GumbelSoftmax, relaxed_sample
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors import Bernoulli


@register
@dataclass(frozen=True)
class StraightThroughGumbelSoftmax(GumbelSoftmax):
    """Relaxed bits, rounded on the way forward alone; biased.

    The rounded bits are genuine samples, so that ``value`` is unbiased, as is the objective's own gradient.
    """

    name = "straight-through-gumbel-softmax"

    def estimate(self, q: Bernoulli, objective: Objective, generator: NoiseSource | None) -> tuple[Tensor, Tensor]:
        relaxed = relaxed_sample(q, self.samples, self.temperature, generator)
        constant = relaxed.detach()
        value = objective.sampled(constant.round() + (relaxed - constant)).mean(0)
        return value, value
