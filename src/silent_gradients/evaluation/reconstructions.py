"""Reconstructions of images (Figures 2 to 5)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from silent_gradients.decoders.likelihood import GaussianLikelihood
from silent_gradients.evaluation.metrics import evaluation_mode
from silent_gradients.vae import VAE


def reconstruct(
    vae: VAE, x: Tensor, *, with_deviation: bool, generator: torch.Generator | None = None
) -> dict[str, NDArray[np.float32]]:
    """Decode one genuine latent sample per image with the reported decoder.

    Args:
        vae: The model.
        x: Dequantized images [n, C, H, W].
        with_deviation: Also return the standard deviations, which are constant with a fixed variance.
        generator: Source of the latent samples.

    Returns:
        ``originals`` and ``means`` (clamped to [0, 1]), and ``standard_deviations``, each float32 [n, C, H, W].
    """
    with evaluation_mode(vae):
        likelihood = vae.decoder.likelihood(vae.posterior(x).sample(1, generator))
    pictures = {"originals": x, "means": likelihood.mean[0].clamp(0, 1).view_as(x)}
    if with_deviation:
        assert isinstance(likelihood, GaussianLikelihood), "bits have no standard deviation"
        pictures["standard_deviations"] = (-likelihood.log_precision.expand_as(likelihood.mean)[0]).exp().view_as(x)
    return {name: picture.cpu().numpy().astype(np.float32) for name, picture in pictures.items()}
