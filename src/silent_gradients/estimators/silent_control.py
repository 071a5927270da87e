"""Linear decoders as baseline or control variate.

With g_f the sampled gradient of the objective, g_h the control's at the same sample and G = grad E[h] the exact one,
g_f - c (g_h - G) has the mean of g_f for every c that is independent of the sample. Its variance, summed over
parameters, is least for c = Cov(g_f, g_h) / Var(g_h), which is estimated by running averages over earlier steps.
Gradients are with respect to the posterior's parameters, [B, p k]: the control's own parameters get none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from silent_gradients import checks
from silent_gradients.decoders.likelihood import ExactObjective, Objective
from silent_gradients.decoders.tangent import DecoderObjective, TangentObjective
from silent_gradients.estimators.contract import (
    Estimate,
    Estimator,
    EstimatorError,
    Given,
    SampledEstimator,
    State,
    register,
)
from silent_gradients.estimators.pathwise import Reparameterization
from silent_gradients.estimators.score_function import Reinforce, Rloo, ScoreFunction
from silent_gradients.posteriors.contract import Posterior


@register
@dataclass(frozen=True)
class ReinforceSilentBaseline(Reinforce):
    """Score-function gradient whose baseline is the control's expectation plus a running offset.

    The expectation differs from image to image and involves no sample, so the gradient stays unbiased for every
    control, even if its closed form is an approximation. The offset is the running average of the objective's excess
    over the expectation in earlier steps.
    """

    name = "reinforce-silent-baseline"
    needs_control = True

    def baseline(self, observed: Tensor, expected: Tensor, index: Tensor | None, state: State) -> tuple[Tensor, State]:
        offset, state = super().baseline(observed - expected, expected, index, state)
        return expected + offset, state


def repeated(q: Posterior, samples: int) -> tuple[Posterior, Tensor]:
    """Return the posterior once per sample, and its parameters [S B, p k] as a leaf to differentiate by."""
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
        checks.number("control_decay", self.control_decay, "a number in [0, 1)", EstimatorError)

    def initial_state(self, device: torch.device, images: int = 0) -> State:
        zero = torch.zeros((), device=device)
        return super().initial_state(device, images) | {"control_covariance": zero, "control_variance": zero.clone()}

    def exact_gradient(self, q: Posterior, given: Given) -> tuple[ExactObjective, Tensor, Tensor]:
        """Return the control, its expectation [B] and the exact gradient of the expectation [B, p k].

        Raises:
            EstimatorError: The control's expectation under ``q`` is an approximation.
        """
        control = given.control
        assert control is not None
        if not control.is_exact(q):
            raise EstimatorError(
                f"control: estimator {self.name!r} needs one with an exact expectation under a {q.name} posterior; "
                f"{type(control).__name__} has an approximation"
            )
        own, leaf = repeated(q, 1)
        expected = control.expectation(own)
        (gradient,) = torch.autograd.grad(expected.sum(), leaf)
        return control, expected.detach(), gradient

    def combined(self, gradient: Tensor, excess: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the gradient with the control variate from g_f and g_h - G, [S, B, p k], and the state afterwards."""
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
        """Return the baseline at each sample, independent of it, of a control ``observed`` [S, B] and its mean [B]."""
        return expected

    def estimate(self, q: Posterior, objective: Objective, given: Given) -> Estimate:
        control, expected, exact = self.exact_gradient(q, given)
        z = q.sample(self.samples, given.generator)
        value = objective.sampled(z)
        observed = value.detach()
        own, leaf = repeated(q, self.samples)
        (score,) = torch.autograd.grad(own.log_prob(z.flatten(0, 1)[None]).sum(), leaf)
        score = score.view(*observed.shape, -1)
        with torch.no_grad():
            known = control.sampled(z)
            excess = (known - self.control_baseline(known, expected))[..., None] * score - exact
        baseline, state = self.baseline(observed, expected, given.index, given.state)
        gradient, state = self.combined((observed - baseline)[..., None] * score, excess, state)
        return Estimate(observed.mean(0), value.mean(0) + (gradient * q.parameters).sum(1), state)


@register
@dataclass(frozen=True)
class ReinforceSilentControl(ReinforceSilentBaseline, ScoreFunctionSilentControl):
    """Score-function gradient with the silent baseline and the silent control variate.

    The baseline takes out the variance between images, the control variate the variance between an image's samples.
    """

    name = "reinforce-silent-control"


@register
@dataclass(frozen=True)
class RlooSilentControl(Rloo, ScoreFunctionSilentControl):
    """Leave-one-out gradient with the silent control variate."""

    name = "rloo-silent-control"

    def control_baseline(self, observed: Tensor, expected: Tensor) -> Tensor:
        # The other samples' mean here as well: its noise is then in both gradients, and cancels in the difference.
        baseline, _ = self.baseline(observed, expected, None, {})
        return baseline


@register
@dataclass(frozen=True)
class ReparameterizationSilentControl(SilentControl, Reparameterization):
    """Pathwise gradient with the control's pathwise gradient at the same sample as control variate.

    The coefficient is fitted to gradients, which costs a second backward pass through the objective, down to z.
    """

    name = "reparameterization-silent-control"

    def estimate(self, q: Posterior, objective: Objective, given: Given) -> Estimate:
        control, _, exact = self.exact_gradient(q, given)
        own, leaf = repeated(q, self.samples)
        path = own.rsample(1, given.generator)[0]
        z = path.detach().view(self.samples, -1, q.latent_dim).requires_grad_()
        value = objective.sampled(z)

        def pathwise(function: Tensor) -> Tensor:
            """Return the gradient of a function of z by the posterior's parameters, [S, B, p k]."""
            (slope,) = torch.autograd.grad(function.sum(), z, retain_graph=True)
            (gradient,) = torch.autograd.grad((slope.flatten(0, 1) * path).sum(), leaf, retain_graph=True)
            return gradient.view(self.samples, -1, leaf.shape[1])

        gradient, state = self.combined(pathwise(value), pathwise(control.sampled(z)) - exact, given.state)
        return Estimate(value.mean(0), value.mean(0) + (gradient * q.parameters).sum(1), state)


class TangentControl(Estimator):
    """A silent control variate without a guide: the tangent of the decoder at E z, linear in z.

    The tangent costs k derivatives of the decoder along a direction.
    """

    needs_control = False

    @classmethod
    def supports(cls, family: type[Posterior]) -> bool:
        return family.has_independent_coordinates and super().supports(family)

    def estimate(self, q: Posterior, objective: Objective, given: Given) -> Estimate:
        if not isinstance(objective, DecoderObjective):
            raise EstimatorError(
                f"objective: estimator {self.name!r} needs that of a decoder, got {type(objective).__name__}"
            )
        try:
            tangent = TangentObjective.at(objective, q.mean)
        except TypeError as error:
            raise EstimatorError(f"estimator {self.name!r}: {error}") from error
        return super().estimate(q, objective, replace(given, control=tangent))  # type: ignore[safe-super]


@register
@dataclass(frozen=True)
class ReparameterizationTangentControl(TangentControl, ReparameterizationSilentControl):
    """Pathwise gradient with the tangent of the decoder as control variate."""

    name = "reparameterization-tangent-control"


@register
@dataclass(frozen=True)
class RlooTangentControl(TangentControl, RlooSilentControl):
    """Leave-one-out gradient with the tangent of the decoder as control variate."""

    name = "rloo-tangent-control"
    requirement = "of independent latent variables whose support is the same for all parameters"
