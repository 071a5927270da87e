"""Reparameterization, straight-through and Gumbel-Softmax."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from silent_gradients import checks, latent_noise
from silent_gradients.decoders.likelihood import Objective
from silent_gradients.estimators.contract import Estimate, EstimatorError, Given, SampledEstimator, register
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors.contract import Posterior, sigmoid


@dataclass(frozen=True)
class Pathwise(SampledEstimator):
    """The objective at differentiable samples is its own surrogate."""

    def estimate(self, q: Posterior, objective: Objective, given: Given) -> Estimate:
        value = objective.sampled(self.differentiable_samples(q, given.generator)).mean(0)
        return Estimate(value, value, given.state)

    def differentiable_samples(self, q: Posterior, generator: NoiseSource | None) -> Tensor:
        """Return samples with a gradient to the posterior's parameters, [S, B, k]."""
        return q.rsample(self.samples, generator)


@register
@dataclass(frozen=True)
class Reparameterization(Pathwise):
    """Gradient through samples z = mean + standard deviation * noise (Kingma and Welling 2014; Rezende et al. 2014)."""

    name = "reparameterization"
    unbiased = True
    requirement = "with reparameterized samples"

    @classmethod
    def supports(cls, family: type[Posterior]) -> bool:
        return super().supports(family) and family.has_rsample()


@register
@dataclass(frozen=True)
class StraightThrough(Pathwise):
    """The gradient with respect to a drawn bit, used as the gradient with respect to its probability; biased.

    Bengio et al. (2013). It is unbiased if the objective is linear in each bit. The objective of a fixed-variance
    decoder has the term -z_i^2 |a_i|^2 / (2 variance): the bias is (1 - 2 p_i) p_i (1 - p_i) |a_i|^2 / (2 variance).
    """

    name = "straight-through"
    unbiased = False
    posteriors = frozenset({"bernoulli"})

    def differentiable_samples(self, q: Posterior, generator: NoiseSource | None) -> Tensor:
        return q.sample(self.samples, generator) + (q.mean - q.mean.detach())


def relaxed_sample(logits: Tensor, samples: int, temperature: float, generator: NoiseSource | None) -> Tensor:
    """Return sigmoid((logits + logistic noise) / temperature), shape [S, B, k], with a gradient to the logits."""
    uniform = latent_noise.uniform((samples, *logits.shape), logits, generator)
    # rand may return 0, whose logit is infinite.
    uniform = uniform.clamp(min=torch.finfo(logits.dtype).tiny)
    return sigmoid((logits + uniform.log() - torch.log1p(-uniform)) / temperature)


@register
@dataclass(frozen=True)
class GumbelSoftmax(Pathwise):
    """Gradient through relaxed bits, the binary Concrete relaxation (Jang et al. 2017; Maddison et al. 2017); biased.

    The objective is averaged over values between 0 and 1. Hence ``value`` is the relaxed objective, which is not a
    bound on the likelihood.

    Attributes:
        temperature: Positive; towards 0 the bias falls and the variance grows.
    """

    temperature: float = 1.0

    name = "gumbel-softmax"
    unbiased = False
    posteriors = frozenset({"bernoulli"})

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("temperature", self.temperature, "a positive number", EstimatorError)

    def differentiable_samples(self, q: Posterior, generator: NoiseSource | None) -> Tensor:
        return relaxed_sample(q.parameters, self.samples, self.temperature, generator)


@register
@dataclass(frozen=True)
class StraightThroughGumbelSoftmax(GumbelSoftmax):
    """Relaxed bits, rounded in the forward pass alone (Jang et al. 2017); biased.

    The rounded bits are genuine samples, so ``value`` is unbiased, and so is the objective's own gradient.
    """

    name = "straight-through-gumbel-softmax"

    def differentiable_samples(self, q: Posterior, generator: NoiseSource | None) -> Tensor:
        relaxed = super().differentiable_samples(q, generator)
        constant = relaxed.detach()
        return constant.round() + (relaxed - constant)
