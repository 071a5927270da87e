"""A variational autoencoder with one reported decoder, a gradient estimator and, optionally, a silent guide.

The guide is a linear decoder on the same posterior whose exact gradient steers the encoder early in training (paper,
Figure 1 and Algorithm 1). Both decoders' gradients reach the encoder in one backward pass (Eq. 8).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from silent_gradients.decoders.likelihood import Decoder, ExactObjective
from silent_gradients.estimators.contract import Estimator, EstimatorError, State
from silent_gradients.estimators.silent import Silent
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors.contract import Posterior


def scale_gradient(tensor: Tensor, factor: float | Tensor) -> Tensor:
    """Return ``tensor`` with the same value (bit for bit) and ``factor`` times its gradient."""
    constant = tensor.detach()
    if not isinstance(factor, Tensor):  # at 0 no backward pass is needed, at 1 no operation
        if factor == 1.0:
            return tensor
        if factor == 0.0:
            return constant
    return constant + factor * (tensor - constant)


@contextmanager
def first_pass_counts(network: nn.Module) -> Iterator[None]:
    """Context manager: BatchNorm's running statistics take in a network's first pass and no further one.

    Estimators evaluate a decoder a different number of times, also at points that are not samples. For every
    estimator, evaluation uses the statistics of one pass per step.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]

    def close(norm: _BatchNorm, *_: object) -> None:
        norm.track_running_stats = False

    hooks = [norm.register_forward_hook(close) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm in norms:
            norm.track_running_stats = True


class Step(NamedTuple):
    """The results of one training step.

    Attributes:
        loss: Scalar, mean over the batch, in nats; every optimizer follows its gradient. Its value is not an objective
            with a score-function estimator.
        log_likelihood: [B], the estimator's value of E_q log p(x|z) under the reported decoder, in nats.
        kl: [B], in nats.
        guide_log_likelihood: [B], E_q log p(x|z) under the guide, or None if the step does not use it.
        state: The estimators' state after the step.
    """

    loss: Tensor
    log_likelihood: Tensor
    kl: Tensor
    guide_log_likelihood: Tensor | None
    state: State


class VAE(nn.Module):
    """Encoder, reported decoder, estimator and guide.

    Args:
        encoder: Images [B, C, H, W] to posterior parameters [B, p k].
        family: Posterior family.
        decoder: The reported decoder.
        estimator: Estimator of its gradient; None if the guide alone trains the encoder, and the decoder learns from
            detached samples.
        guide: Linear decoder of the silent gradient, and the control of an estimator that needs one; without a guide
            the reported decoder is its own control.
        guide_estimator: Estimator of the guide's gradient; ``silent`` by default. A sampled one shows what zero
            variance is worth. The pathwise gradient of log|s| has no mean if s may vanish.

    Raises:
        EstimatorError: An estimator does not support the family or lacks its control, or nothing trains the encoder.
    """

    kl_weight: Tensor | None
    """Scalar weight of the KL divergence in the loss of training steps; None is 1."""

    def __init__(
        self,
        encoder: nn.Module,
        family: type[Posterior],
        decoder: Decoder,
        estimator: Estimator | None,
        guide: Decoder | None = None,
        guide_estimator: Estimator | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.family, self.decoder, self.guide = encoder, family, decoder, guide
        self.estimator = estimator
        # A buffer, so that it can be mapped over runs and read by captured steps; a schedule sets it, not a checkpoint.
        self.register_buffer("kl_weight", None, persistent=False)
        self.guide_estimator: Estimator | None = (guide_estimator or Silent()) if guide is not None else None
        for used in (self.estimator, self.guide_estimator):
            if used is not None:
                used.check_supports(family, "family")
        if estimator is None and guide is None:
            raise EstimatorError("a VAE needs an estimator or a guide to train its encoder")
        if estimator is not None and estimator.needs_control and guide is None and not _has_expectation(decoder):
            raise EstimatorError(f"guide: estimator {estimator.name!r} needs one for its control, got None")
        if guide_estimator is not None and guide_estimator.needs_control:
            raise EstimatorError(f"guide_estimator: {guide_estimator.name!r} needs a control, and a guide has none")

    def initial_state(self, device: torch.device, images: int = 0) -> State:
        """Return the state of both estimators before the first step; see ``Estimator.initial_state``."""
        both = (self.estimator, self.guide_estimator)
        return _joined(*({} if used is None else used.initial_state(device, images) for used in both))

    def posterior(self, x: Tensor) -> Posterior:
        """Return q(z|x) of the images x [B, C, H, W]."""
        return self.family(self.encoder(x))

    def control(self, pixels: Tensor, q: Posterior) -> ExactObjective | None:
        """Return the guide's control for the images ``pixels`` [B, D]; without a guide, the reported decoder's.

        None if its expectation is not known.
        """
        control = (self.decoder if self.guide is None else self.guide).control(pixels, q)
        return control if isinstance(control, ExactObjective) else None

    def training_step(
        self,
        x: Tensor,
        *,
        state: State,
        alpha: float | Tensor = 0.0,
        frozen: bool = False,
        index: Tensor | None = None,
        generator: NoiseSource | None = None,
    ) -> Step:
        """Return the loss whose single backward pass gives every parameter its gradient.

        With rho_a(v) the value v with a times its gradient and lambda the encoder's output, the loss is
        R_guide(rho_alpha(lambda)) + R_decoder(rho_(1 - alpha)(lambda)) + kl_weight KL(lambda): each decoder gets its
        full gradient, the encoder the weighted average of Eq. 8.

        Args:
            x: Images [B, C, H, W] in [0, 1).
            state: ``initial_state`` at first, then the state of the last step.
            alpha: Weight of the guide's gradient in the encoder's. At 0 (a number, not a tensor) the guide is skipped,
                unless it is the estimator's control: then it trains on its own exact gradient.
            frozen: Freeze the encoder: no gradient reaches it, and the guide is skipped. The caller keeps the encoder
                in evaluation mode, or its BatchNorm statistics would keep changing.
            index: [B], number of each image in the training set, each at most once.
            generator: Source of the latent samples.
        """
        pixels = x.flatten(1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            parameters = self.encoder(x)
        q = self.family(parameters)
        kl = q.kl_divergence()
        objective = self.decoder.objective(pixels)
        needed = self.estimator is not None and self.estimator.needs_control
        guided = self.guide is not None and not frozen and (isinstance(alpha, Tensor) or alpha > 0 or needed)

        own_state, guide_state = _parted(state)
        if self.estimator is None or frozen:
            # No gradient through z is needed: genuine samples train the decoder without bias.
            surrogate = objective.sampled(q.sample(1, generator))[0]
            value = surrogate.detach()
        else:
            share = 1.0 - alpha if guided else 1.0
            with first_pass_counts(self.decoder):
                value, surrogate, own_state = self.estimator(
                    self.family(scale_gradient(parameters, share)),
                    objective,
                    control=self.control(pixels, q) if needed else None,
                    index=index,
                    generator=generator,
                    state=own_state,
                )
        loss = (kl if self.kl_weight is None else self.kl_weight * kl) - surrogate
        guide_value = None
        if guided and self.guide is not None and self.guide_estimator is not None:
            guide_value, guide_surrogate, guide_state = self.guide_estimator(
                self.family(scale_gradient(parameters, alpha)),
                self.guide.objective(pixels),
                index=index,
                generator=generator,
                state=guide_state,
            )
            loss = loss - guide_surrogate
        return Step(loss.mean(), value, kl.detach(), guide_value, _joined(own_state, guide_state))


def _has_expectation(decoder: Decoder) -> bool:
    # An objective computes nothing when it is made: no images are needed to see what it can do.
    return isinstance(decoder.objective(torch.empty(0, decoder.dimensions)), ExactObjective)


_GUIDE = "guide."
"""Prefix of the names in the guide's state."""


def _joined(own: State, guides: State) -> State:
    return own | {_GUIDE + name: value for name, value in guides.items()}


def _parted(state: State) -> tuple[State, State]:
    guides = {name.removeprefix(_GUIDE): value for name, value in state.items() if name.startswith(_GUIDE)}
    return {name: value for name, value in state.items() if not name.startswith(_GUIDE)}, guides
