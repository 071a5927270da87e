"""Models that the measurements are tested with: random weights, and linear ones whose numbers are known."""

import numpy as np
import torch
from tests.method.reference import seeded
from torch import nn

from silent_gradients import VAE, FixedVarianceDecoder, Gaussian, estimators
from silent_study.training.build import build_vae


def perturbed(place, cell, scale, **changes):
    """A run's model with weights of a size that makes its latent variables matter, and its data."""
    settings = place.settings(cell, **changes)
    data = place.load(settings)
    vae = build_vae(settings, data.mean, data.deviation)
    with torch.no_grad():
        for weight in vae.parameters():
            weight.add_(scale * torch.randn(weight.shape, generator=seeded(weight.numel())))
    return vae, data


def linear_vae(gain, posterior_variance, W, b, variance):
    """q(z|x) = N(gain (x - b), posterior_variance) and p(x|z) = N(W z + b, variance I) from arrays, in float64."""
    k, dimensions = gain.shape
    encoder, decoder = nn.Linear(dimensions, 2 * k), FixedVarianceDecoder(k, dimensions, variance)
    for target, value in (
        (encoder.weight, np.concatenate([gain, np.zeros_like(gain)])),
        (encoder.bias, np.concatenate([-gain @ b, np.log(posterior_variance)])),
        (decoder.linear.weight, W),
        (decoder.linear.bias, b),
    ):
        target.data = torch.from_numpy(value)
    return VAE(nn.Sequential(nn.Flatten(), encoder), Gaussian, decoder, estimators.create("silent"))
