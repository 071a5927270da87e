"""The silent control variate: a linear decoder's sampled gradient, of which the exact mean is known.

With g_f the sampled gradient of the objective, g_h that of the control at the same sample and G = grad E[h] its exact
one, g_f - c (g_h - G) has the mean of g_f for every c that is independent of the sample. It has the least variance,
summed over parameters, for c = Cov(g_f, g_h) / Var(g_h), which running averages of earlier steps tell. Gradients are
those by the posterior's parameters, [B, p k]: the control's own parameters get none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from silent_gradients.decoders.likelihood import ExactObjective, Objective
from silent_gradients.estimators.contract import Estimate, EstimatorError, SampledEstimator, State
from silent_gradients.estimators.score_function import ScoreFunction
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors import Posterior


def repeated(q: Posterior, samples: int) -> tuple[Posterior, Tensor]:
    """The posterior once per sample, and its parameters [S B, p k] as a leaf to differentiate by."""
    leaf = q.parameters.detach().repeat(samples, 1).requires_grad_()
    return type(q)(leaf), leaf


@dataclass(frozen=True)
class SilentControl(SampledEstimator):
    """An estimator with a silent control variate.

    Attributes:
        control_decay: Decay of the running averages that the coefficient comes from, in [0, 1).
    """

    control_decay: float = 0.99

    unbiased = True
    needs_control = True
    mappable = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.control_decay < 1:
            raise EstimatorError(f"control_decay: expected a number in [0, 1), got {self.control_decay}")

    def initial_state(self, device: torch.device, images: int = 0) -> State:
        zero = torch.zeros((), device=device)
        return super().initial_state(device, images) | {"control_covariance": zero, "control_variance": zero.clone()}

    def exact_gradient(self, q: Posterior, control: ExactObjective | None) -> tuple[ExactObjective, Tensor, Tensor]:
        """The control, its expectation [B] and the exact gradient of that [B, p k].

        Raises:
            EstimatorError: There is no control, or its expectation under ``q`` is an approximation.
        """
        control = self.checked(control)
        if not control.is_exact(q):
            raise EstimatorError(
                f"control: estimator {self.name!r} needs one whose expectation under a {q.name} posterior is exact; "
                f"that of {type(control).__name__} is an approximation"
            )
        own, leaf = repeated(q, 1)
        expected = control.expectation(own)
        (gradient,) = torch.autograd.grad(expected.sum(), leaf)
        return control, expected.detach(), gradient

    def combined(self, gradient: Tensor, excess: Tensor, state: State) -> tuple[Tensor, State]:
        """The gradient with the control variate, [B, p k], and the state after this step.

        Args:
            gradient: g_f, [S, B, p k].
            excess: g_h - G, [S, B, p k].
            state: The state before this step.
        """
        covariance, variance = self.entry(state, "control_covariance"), self.entry(state, "control_variance")
        # No coefficient before the first step, nor while the control's gradient has never varied.
        varied = variance > 0
        coefficient = torch.where(varied, covariance / torch.where(varied, variance, 1), 0).to(gradient.dtype)
        decay, dtype = self.control_decay, covariance.dtype
        return (gradient - coefficient * excess).mean(0), state | {
            "control_covariance": decay * covariance + (1 - decay) * (gradient * excess).mean().to(dtype),
            "control_variance": decay * variance + (1 - decay) * excess.square().mean().to(dtype),
        }


@dataclass(frozen=True)
class ScoreFunctionSilentControl(SilentControl, ScoreFunction):
    """A score-function gradient with a silent control variate."""

    def control_baseline(self, observed: Tensor, expected: Tensor) -> Tensor:
        """What is subtracted from the control at each sample, [S, B] or [B], independent of that sample.

        Args:
            observed: [S, B], the control at the samples.
            expected: [B], its exact expectation.
        """
        return expected

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
        control, expected, exact = self.exact_gradient(q, control)
        z = q.sample(self.samples, generator)
        value = objective.sampled(z)
        observed = value.detach()
        own, leaf = repeated(q, self.samples)
        (score,) = torch.autograd.grad(own.log_prob(z.flatten(0, 1)[None]).sum(), leaf)
        score = score.view(*observed.shape, -1)
        with torch.no_grad():
            known = control.sampled(z)
            excess = (known - self.control_baseline(known, expected))[..., None] * score - exact
        baseline, state = self.baseline(observed, expected, index, state)
        gradient, state = self.combined((observed - baseline)[..., None] * score, excess, state)
        return Estimate(observed.mean(0), value.mean(0) + (gradient * q.parameters).sum(1), state)
