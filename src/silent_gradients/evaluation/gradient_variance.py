"""Variance and bias of gradients (Table 1, Appendix B.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from silent_gradients import checks
from silent_gradients.decoders.likelihood import ExactObjective
from silent_gradients.estimators.contract import REGISTRY, Estimator, State, create
from silent_gradients.evaluation.mean_difference import mean_difference
from silent_gradients.evaluation.metrics import DECODED_PER_CHUNK, evaluation_mode
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.vae import VAE

SETTLING_STEPS = 100
"""Steps on the fixed batch that give an estimator not used in training its running averages."""
_REFERENCES = ("reparameterization", "disarm", "rloo")


@dataclass(frozen=True)
class GradientVariance:
    """Trace of the covariance of the encoder's gradient over latent samples, on one fixed batch.

    Attributes:
        batch_mean: Variance of the gradient of the loss averaged over the batch.
        per_image_mean: Variance of the gradient of a single image's loss, averaged over the batch.
        images: Images in the batch.
        draws: Independent draws that give the estimate (unbiased).
    """

    batch_mean: float
    per_image_mean: float
    images: int
    draws: int


@dataclass(frozen=True, eq=False)
class Reference:
    """The gradient that an estimator's expected gradient is compared with, and the name of the one that computed it.

    It is M gradients with respect to the posterior's parameters, [M, B, p k], a single one where it is exact.
    """

    estimator: str
    cotangents: Tensor


@dataclass(frozen=True)
class Assessment:
    """Variance and bias of an estimator's gradient on one fixed batch.

    The bias is its norm over that of the expected gradient, with respect to the posterior's parameters, and ``bias_z``
    its certainty; see ``MeanDifference``.
    """

    variance: GradientVariance
    bias: float
    bias_z: float


def gradient_variance(
    vae: VAE, estimator: Estimator, x: Tensor, state: State, draws: int, generator: NoiseSource | None = None
) -> GradientVariance:
    """Measure the gradient variance by the paper's protocol.

    One encoder pass on a fixed batch gives the posterior; each draw then estimates the gradient of the reconstruction
    loss (no KL) with fresh latent samples. Networks are in evaluation mode, so that images are independent and the
    variance of the batch mean is the mean over images divided by their number: that identity gives ``per_image_mean``.

    Args:
        vae: The model.
        estimator: Estimator of the reported decoder's gradient.
        x: Fixed batch of dequantized images [B, C, H, W].
        state: The estimator's state; the same for every draw.
        draws: Number of draws, at least 2.
        generator: Source of the latent samples.

    Returns:
        The variance, in squared nats per squared unit of the encoder's parameters.

    Raises:
        EstimatorError: The estimator does not support the posterior, or lacks its state, control or closed form.
        ValueError: There are fewer than two draws, or no parameter of the encoder requires a gradient.
    """
    return _measured(vae, estimator, x, checks.whole("draws", draws, 2), state=state, generator=generator)[0]


def reference_gradient(vae: VAE, x: Tensor, draws: int, generator: NoiseSource | None = None) -> Reference:
    """Return the gradient that estimators are compared with: the exact one if it is known, else many estimates.

    The estimates for the fixed batch x [B, C, H, W] come from the first of reparameterization, DisARM and leave-one-out
    REINFORCE that supports the posterior: they are unbiased and have a low variance.

    Raises:
        ValueError: There are fewer than four draws.
    """
    checks.whole("draws", draws, 4)
    with evaluation_mode(vae), torch.enable_grad():
        parameters = vae.parameters_of(x)
        objective = vae.decoder.objective(x.flatten(1))
        if isinstance(objective, ExactObjective) and objective.is_exact(vae.family(parameters)):
            name, draws = "silent", 1
        else:
            name = next(name for name in _REFERENCES if REGISTRY[name].supports(vae.family))
        return Reference(name, _cotangents(vae, create(name), x, parameters, draws, state={}, generator=generator))


def settled_state(vae: VAE, estimator: Estimator, x: Tensor, generator: NoiseSource | None = None) -> State:
    """Return the state of an estimator not used in training after ``SETTLING_STEPS`` steps on a batch [B, C, H, W].

    State per image is kept for the batch: the images' ``index`` is their position in it.

    Raises:
        EstimatorError: The estimator does not support the posterior, or lacks its control.
    """
    # With gradients: the coefficients of control variates are fitted to them.
    with evaluation_mode(vae), torch.enable_grad():
        estimator.check_supports(vae.family, "vae")
        q, objective = vae.family(vae.parameters_of(x).detach()), vae.decoder.objective(x.flatten(1))
        state = estimator.initial_state(x.device, len(x))
        if not state:
            return state
        control = vae.control(x.flatten(1), q) if estimator.needs_control else None
        index = torch.arange(len(x), device=x.device)
        for _ in range(SETTLING_STEPS):
            state = estimator(q, objective, control=control, index=index, generator=generator, state=state).state
    return state


def assess(
    vae: VAE,
    estimator: Estimator,
    x: Tensor,
    state: State,
    draws: int,
    reference: Reference,
    generator: NoiseSource | None = None,
    *,
    index: Tensor | None = None,
) -> Assessment:
    """Measure the variance as ``gradient_variance`` does, with its errors, and the bias from the same draws.

    There are 4 draws or more. The ``reference`` is the gradient of the same batch, with samples of its own;
    ``index`` [B] numbers the images for state per image, None if they are from elsewhere.
    """
    checks.whole("draws", draws, 4)
    variance, cotangents = _measured(vae, estimator, x, draws, state=state, generator=generator, index=index)
    found = mean_difference(cotangents.flatten(1), reference.cotangents.flatten(1))
    return Assessment(variance, found.relative, found.z)


def _cotangents(
    vae: VAE, estimator: Estimator, x: Tensor, parameters: Tensor, draws: int, index: Tensor | None = None, **given: Any
) -> Tensor:
    """Return gradients [draws, B, p k] of the batch's mean loss with respect to the posterior's parameters [B, p k].

    The draws form one large batch: in evaluation mode its images are independent. State and generator are ``given``.
    """
    drawn = 1 if estimator.exact else draws
    images, width = parameters.shape
    evaluations = max(1, estimator.evaluations(width // vae.family.parameters_per_latent))
    at_once = max(1, DECODED_PER_CHUNK // (images * evaluations))
    pixels, found = x.flatten(1), []
    for start in range(0, drawn, at_once):
        count = min(at_once, drawn - start)
        # A leaf at the posterior: the decoder's backward pass stops there.
        leaf = parameters.detach().repeat(count, 1).requires_grad_()
        many = pixels.repeat(count, 1)
        q, objective = vae.family(leaf), vae.decoder.objective(many)
        control = vae.control(many, q) if estimator.needs_control else None
        own = None if index is None else index.repeat(count)
        _, surrogate, _ = estimator(q, objective, control=control, index=own, **given)
        (cotangent,) = torch.autograd.grad(-surrogate.sum() / images, leaf)
        found.append(cotangent.view(count, images, width))
    return torch.cat(found).expand(draws, -1, -1)


def _measured(vae: VAE, estimator: Estimator, x: Tensor, draws: int, **given: Any) -> tuple[GradientVariance, Tensor]:
    """Return the variance of the encoder's gradient, by one product with its Jacobian per draw, and ``_cotangents``.

    The product is linear: applied to the deviations from the mean it gives the gradients' deviations, and only the sum
    of their squares has to be kept.
    """
    checks.instance("estimator", estimator, Estimator, "estimators.create makes one")
    with evaluation_mode(vae), torch.enable_grad():
        estimator.check_supports(vae.family, "vae")
        parameters = vae.parameters_of(x)
        cotangents = _cotangents(vae, estimator, x, parameters, draws, **given)
        # The first draw is subtracted before the mean, so that equal draws deviate by 0, not by rounding.
        deviations = cotangents - cotangents[0]
        deviations = deviations - deviations.mean(0)
        weights, total = [weight for weight in vae.encoder.parameters() if weight.requires_grad], 0.0
        if not weights or not parameters.requires_grad:
            raise ValueError("vae: expected an encoder with parameters in training, got none that requires a gradient")
        for deviation in deviations:
            # A scalar: a cotangent as an argument would make torch load sympy, which takes seconds.
            found = (parameters * deviation).sum()
            parts = torch.autograd.grad(found, weights, retain_graph=True, allow_unused=True)
            total += float(sum(part.square().sum(dtype=torch.float64) for part in parts if part is not None))
    variance = total / (draws - 1)
    return GradientVariance(variance, variance * len(x), len(x), draws), cotangents
