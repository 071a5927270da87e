"""A variational autoencoder: decoder, gradient estimator and optional silent guide.

The guide is a linear decoder on the same posterior whose exact gradient steers the encoder early in training (paper,
Figure 1 and Algorithm 1). Both decoders' gradients reach the encoder in one backward pass (Eq. 8).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from silent_gradients import checks
from silent_gradients.checks import ShapeError
from silent_gradients.decoders.likelihood import Decoder, ExactObjective, batch_of, counted_passes, readable
from silent_gradients.estimators.contract import Estimator, EstimatorError, State
from silent_gradients.estimators.silent import Silent
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors.contract import Posterior, check_family
from silent_gradients.schedules import check_weight
from silent_gradients.schedules import scale_gradient as scale_gradient


@contextmanager
def evaluation_mode(model: VAE) -> Iterator[None]:
    """Context manager: evaluation mode without gradients; every module's own mode is restored afterwards.

    Raises:
        TypeError: It is no VAE.
    """
    checks.instance("vae", model, VAE)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


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


class _StateBuffers(nn.Module):
    """Estimators' state as buffers, so that it moves and is saved with a model; without any before its first step."""

    def get(self) -> State:
        """Return the state."""
        return {name.replace("|", "."): value for name, value in self._buffers.items() if value is not None}

    def set(self, state: State) -> None:
        """Keep a state."""
        for name, value in state.items():  # no dot may be in a buffer's name
            self.register_buffer(name.replace(".", "|"), value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        saved = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
        self.set({name: torch.empty_like(value) for name, value in saved.items() if name not in self._buffers})
        super()._load_from_state_dict(state_dict, prefix, *rest)


class VAE(nn.Module):
    """Encoder, reported decoder, estimator and guide.

    ``training_step`` is given the estimators' state and returns it; calling the module keeps it, in ``state_dict`` too.

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
        images: Number of images in the training set, for an estimator with a state per image.

    Raises:
        EstimatorError: An estimator is no instance, does not support the family or lacks its control, or nothing trains
            the encoder.
        ShapeError: Decoder and guide are of other numbers of latent variables or dimensions.
        TypeError: ``family`` is no posterior family, the encoder no module, or decoder or guide no decoder.
        ValueError: ``images`` is not a whole number of 0 or more.
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
        *,
        images: int = 0,
    ) -> None:
        super().__init__()
        check_family(family)
        checks.instance("encoder", encoder, nn.Module)
        for name, own in {"decoder": decoder, "guide": decoder if guide is None else guide}.items():
            checks.instance(name, own, Decoder, "FixedVarianceDecoder is one")
            if (own.latent_dim, own.dimensions) != (decoder.latent_dim, decoder.dimensions):
                raise ShapeError(
                    f"{name}: expected k = {decoder.latent_dim} and D = {decoder.dimensions} as the decoder has, "
                    f"got k = {own.latent_dim} and D = {own.dimensions}"
                )
        both: dict[str, object] = {"estimator": estimator, "guide_estimator": guide_estimator}
        for name, given in both.items():
            if given is not None and not isinstance(given, Estimator):
                kind = getattr(given, "name", given)
                raise EstimatorError(
                    f"{name}: expected an instance, got {given!r}; estimators.create({kind!r}) makes one"
                )
        self.encoder, self.family, self.decoder, self.guide = encoder, family, decoder, guide
        self.estimator, self.estimator_state = estimator, _StateBuffers()
        self.images = checks.whole("images", images, 0)
        # A buffer, so that it can be mapped over runs and read by captured steps; a schedule sets it, not a checkpoint.
        self.register_buffer("kl_weight", None, persistent=False)
        self.guide_estimator: Estimator | None = (guide_estimator or Silent()) if guide is not None else None
        for used in (self.estimator, self.guide_estimator):
            if used is not None:
                used.check_supports(family, "family")
        if estimator is None and guide is None:
            raise EstimatorError("a VAE needs an estimator or a guide to train its encoder")
        if estimator is not None and estimator.needs_control and guide is None:
            pixels = decoder.no_images()
            if self.control(pixels, family.prior(0, decoder.latent_dim, pixels)) is None:
                raise EstimatorError(f"guide: estimator {estimator.name!r} needs one for its control, got None")
        if guide_estimator is not None and guide_estimator.needs_control:
            raise EstimatorError(f"guide_estimator: {guide_estimator.name!r} needs a control, and a guide has none")

    def initial_state(self, device: torch.device, images: int = 0) -> State:
        """Return the state of both estimators before the first step; see ``Estimator.initial_state``."""
        checks.whole("images", images, 0)
        both = (self.estimator, self.guide_estimator)
        return _joined(*({} if used is None else used.initial_state(device, images) for used in both))

    def posterior(self, x: Tensor) -> Posterior:
        """Return q(z|x) of the images x [B, C, H, W]; for errors see ``parameters_of``."""
        return self.family(self.parameters_of(x))

    def parameters_of(self, x: Tensor) -> Tensor:
        """Return the posterior's parameters, [B, p k], from the encoder's output: float32 at least, under autocast too.

        Raises:
            ShapeError: There is no image, the images do not fit the decoder, or the encoder's output the family.
            TypeError: The images or the encoder's output are no tensor of floating-point numbers.
        """
        batch_of(x)
        self.decoder.in_own_type("x", x)
        if x.shape[1:].numel() != self.decoder.dimensions:
            raise ShapeError(f"x: expected {self.decoder.dimensions} numbers for each image, got {list(x.shape)}")
        output = checks.floats("encoder", self.encoder(x), "its output is the parameters of the posterior")
        return self.family.parameters_from(output.float() if output.dtype.itemsize < 4 else output)

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
            alpha: Weight of the guide's gradient in the encoder's, in [0, 1]; 0 without a guide. At 0 (a number, not a
                tensor) the guide is skipped, unless it is the estimator's control: then it trains on its own exact
                gradient.
            frozen: Freeze the encoder: no gradient reaches it, and the guide is skipped. The caller keeps the encoder
                in evaluation mode, or its BatchNorm statistics would keep changing.
            index: [B], number of each image in the training set, each at most once.
            generator: Source of the latent samples.

        Raises:
            EstimatorError: The estimator does not fit, or the index names an image twice for one with a state.
            ShapeError: There is no image.
            TypeError: x is no tensor of floating-point numbers.
            ValueError: alpha is not in [0, 1], or there is no guide to give a weight in a step that is not frozen.
        """
        check_weight(alpha)
        checks.instance("state", state, dict, "initial_state() makes one")
        weighted = not frozen and (isinstance(alpha, Tensor) or alpha > 0)
        if self.guide is None and weighted:
            raise ValueError(f"alpha: expected 0 without a guide, got {alpha}; give the VAE a guide")
        if index is not None:
            checks.instance("index", index, Tensor)
            if state and readable(index) and len(index.unique()) < len(index):
                raise EstimatorError(f"index: expected different numbers, got {index.mode().values} more than once")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            parameters = self.parameters_of(x)
        pixels = x.flatten(1)
        q = self.family(parameters)
        kl = q.kl_divergence()
        objective = self.decoder.objective(pixels)
        needed = self.estimator is not None and self.estimator.needs_control
        guided = self.guide is not None and (weighted or (needed and not frozen))
        own_state = {name: value for name, value in state.items() if not name.startswith(_GUIDE)}
        guide_state = {name.removeprefix(_GUIDE): state[name] for name in state if name.startswith(_GUIDE)}
        if self.estimator is None or frozen:
            # No gradient through z is needed: genuine samples train the decoder without bias.
            surrogate = objective.sampled(q.sample(1, generator))[0]
            value = surrogate.detach()
        else:
            own = self.family(scale_gradient(parameters, 1.0 - alpha if guided else 1.0))
            with counted_passes(self.decoder, 1):
                control = self.control(pixels, q) if needed else None
                value, surrogate, own_state = self.estimator(
                    own, objective, control=control, index=index, generator=generator, state=own_state
                )
        loss = (kl if self.kl_weight is None else self.kl_weight * kl) - surrogate
        guide_value = None
        if guided and self.guide is not None and self.guide_estimator is not None:
            own, objective = self.family(scale_gradient(parameters, alpha)), self.guide.objective(pixels)
            guide_value, guide_surrogate, guide_state = self.guide_estimator(
                own, objective, index=index, generator=generator, state=guide_state
            )
            loss = loss - guide_surrogate
        return Step(loss.mean(), value, kl.detach(), guide_value, _joined(own_state, guide_state))

    def forward(
        self,
        x: Tensor,
        alpha: float | Tensor = 0.0,
        *,
        frozen: bool = False,
        index: Tensor | None = None,
        generator: NoiseSource | None = None,
    ) -> Step:
        """Make a ``training_step`` on the images x [B, C, H, W] with the module's own state, which is kept.

        ``DistributedDataParallel`` calls this; with a guide it needs ``find_unused_parameters=True``, since a step with
        alpha = 0 leaves the guide out.

        Raises:
            ShapeError: There is no image.
            TypeError: x is no tensor of floating-point numbers.
            ValueError: alpha is not in [0, 1], or there is no guide to give a weight.
        """
        batch_of(x)
        state = self.estimator_state.get() or self.initial_state(x.device, self.images)
        step = self.training_step(x, state=state, alpha=alpha, frozen=frozen, index=index, generator=generator)
        self.estimator_state.set(step.state)
        return step

    def elbo(self, x: Tensor, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Return the evidence lower bound of images x [B, C, H, W] in nats, [B], without a gradient.

        E_q log p(x|z) is the exact one where the reported decoder has it, and else the mean over one or more genuine
        latent samples per image.
        """
        checks.whole("samples", samples)
        with evaluation_mode(self):
            q, objective = self.posterior(x), self.decoder.objective(x.flatten(1))
            if isinstance(objective, ExactObjective) and objective.is_exact(q):
                return objective.expectation(q) - q.kl_divergence()
            return objective.sampled(q.sample(samples, generator)).mean(0) - q.kl_divergence()

    def reconstruct(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean of p(x|z) at one genuine sample z of each image x [B, C, H, W], in the shape of x."""
        with evaluation_mode(self):
            return self.decoder.likelihood(self.posterior(x).sample(1, generator)).mean[0].view_as(x)

    def generate(self, images: int, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean of p(x|z) at samples z of the prior, [images, D]."""
        checks.whole("images", images, 0)
        with evaluation_mode(self):
            prior = self.family.prior(images, self.decoder.latent_dim, self.decoder.no_images())
            return self.decoder.likelihood(prior.sample(1, generator)).mean[0]


_GUIDE = "guide."
"""Prefix of the names in the guide's state."""


def _joined(own: State, guides: State) -> State:
    return own | {_GUIDE + name: value for name, value in guides.items()}
