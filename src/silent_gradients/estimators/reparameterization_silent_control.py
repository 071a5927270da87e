"""Reparameterization with a linear decoder as control variate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from silent_gradients.decoders.likelihood import ExactObjective, Objective
from silent_gradients.estimators.contract import Estimate, State, register
from silent_gradients.estimators.silent_control import SilentControl, repeated
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors import Posterior


@register
@dataclass(frozen=True)
class ReparameterizationSilentControl(SilentControl):
    """Pathwise gradient, less what the control's pathwise gradient at the same sample is off by.

    The coefficient is fitted to gradients, which costs a second backward pass through the objective, down to z.
    """

    name = "reparameterization-silent-control"
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
        control, _, exact = self.exact_gradient(q, control)
        own, leaf = repeated(q, self.samples)
        path = own.rsample(1, generator)[0]
        z = path.detach().view(self.samples, -1, q.latent_dim).requires_grad_()
        value = objective.sampled(z)

        def pathwise(of: Tensor) -> Tensor:
            """The gradient of a function of z by the posterior's parameters, [S, B, p k]."""
            (slope,) = torch.autograd.grad(of.sum(), z, retain_graph=True)
            (gradient,) = torch.autograd.grad((slope.flatten(0, 1) * path).sum(), leaf, retain_graph=True)
            return gradient.view(self.samples, -1, leaf.shape[1])

        gradient, state = self.combined(pathwise(value), pathwise(control.sampled(z)) - exact, state)
        return Estimate(value.detach().mean(0), value.mean(0) + (gradient * q.parameters).sum(1), state)
