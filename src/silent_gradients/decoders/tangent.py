"""The tangent of a nonlinear decoder at one point per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from silent_gradients.decoders.likelihood import (
    Decoder,
    GaussianLikelihood,
    Objective,
    counted_passes,
    without_autocast,
)
from silent_gradients.posteriors.contract import Posterior


@runtime_checkable
class DecoderObjective(Objective, Protocol):
    """An objective that is the log-likelihood of a decoder."""

    @property
    def decoder(self) -> Decoder:
        """The decoder."""

    @property
    def x(self) -> Tensor:
        """Images, [B, D]."""


@dataclass(frozen=True)
class TangentObjective:
    """log p(x|z) of a decoder whose mean is linearised at a point per image, and whose precision is that of the point.

    Nothing in it has a gradient: it is a fixed function of z, for control variates.

    Attributes:
        x: Images [B, D].
        point: [B, k].
        likelihood: At the point, [1, B, D].
        jacobian: Derivative of the mean at the point, [k, B, D].
    """

    x: Tensor
    point: Tensor
    likelihood: GaussianLikelihood
    jacobian: Tensor

    @classmethod
    def at(cls, objective: DecoderObjective, point: Tensor) -> TangentObjective:
        """Return the tangent of a decoder's objective at ``point`` [B, k]: k derivatives along a direction.

        Raises:
            TypeError: The decoder has another likelihood than a Gaussian one.
        """
        point = point.detach()

        def mean(z: Tensor) -> Tensor:
            return objective.decoder.likelihood(z[None]).mean[0]

        with torch.no_grad(), without_autocast(point.device):
            likelihood = objective.decoder.likelihood(point[None])
            if not isinstance(likelihood, GaussianLikelihood):
                raise TypeError(f"objective: expected a Gaussian likelihood, got {type(likelihood).__name__}")
            with counted_passes(objective.decoder, 0):
                found: Any = torch.func.vjp(mean, point)
            # The pullback is linear in what it pulls back: its own is the derivative along a direction.
            push = torch.func.vjp(found[1], found[0])[1]
            directions = torch.eye(point.shape[1], dtype=point.dtype, device=point.device)
            jacobian = torch.vmap(lambda direction: push((direction.expand_as(point),))[0])(directions)
        return cls(objective.x, point, likelihood, jacobian)

    def is_exact(self, q: Posterior) -> bool:
        """Return whether ``expectation`` is exact under ``q``: if the latent variables are independent."""
        return q.has_independent_coordinates

    def sampled(self, z: Tensor) -> Tensor:
        """Return the value at z [S, B, k] in nats, [S, B]."""
        return self._at(z).log_prob(self.x)

    def expectation(self, q: Posterior) -> Tensor:
        """Return the expectation in nats, [B]; paper, Eq. 4, with weights of each image."""
        spread = torch.einsum("bk,kbd->bd", q.variance, self.jacobian.square())
        return self._at(q.mean[None]).log_prob(self.x, spread)[0]

    def _at(self, z: Tensor) -> GaussianLikelihood:
        mean = self.likelihood.mean + torch.einsum("sbk,kbd->sbd", z - self.point, self.jacobian)
        return self.likelihood._replace(mean=mean)
