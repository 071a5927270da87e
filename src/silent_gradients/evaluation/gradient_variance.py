"""Variance of an estimator's gradient with respect to the encoder (paper, Table 1 and Appendix B.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from silent_gradients.estimators.contract import Estimator, State
from silent_gradients.evaluation.metrics import evaluation_mode
from silent_gradients.vae import VAE


@dataclass(frozen=True)
class GradientVariance:
    """Trace of the covariance of the encoder's gradient over latent samples, on one fixed batch.

    Attributes:
        batch_mean: Of the gradient of the loss averaged over the batch.
        per_image_mean: Of the gradient of a single image's loss, averaged over the batch.
        images: Images in the batch.
        draws: Independent draws the variance is estimated from (unbiased).
    """

    batch_mean: float
    per_image_mean: float
    images: int
    draws: int


def gradient_variance(
    vae: VAE, estimator: Estimator, x: Tensor, state: State, draws: int, generator: torch.Generator | None = None
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
    """
    weights = list(vae.encoder.parameters())
    with evaluation_mode(vae), torch.enable_grad():
        parameters = vae.encoder(x)
        objective = vae.decoder.objective(x.flatten(1))
        control = vae.control(x.flatten(1), vae.family(parameters)) if estimator.needs_control else None
        gradients = []
        for _ in range(draws):
            # A leaf at the posterior: the decoder's backward pass stops there, and one product with the encoder's
            # Jacobian follows.
            leaf = parameters.detach().requires_grad_()
            q = vae.family(leaf)
            surrogate = estimator(q, objective, control=control, generator=generator, state=state).surrogate
            (cotangent,) = torch.autograd.grad(-surrogate.mean(), leaf)
            # As a scalar: handed over as a cotangent, it would make torch load sympy, which takes seconds.
            parts = torch.autograd.grad((parameters * cotangent).sum(), weights, retain_graph=True)
            gradients.append(torch.cat([part.flatten() for part in parts]))
    variance = float(torch.stack(gradients).double().var(0).sum())
    return GradientVariance(variance, variance * len(x), len(x), draws)
