"""Bits per dimension and other metrics, as valid bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from silent_gradients import checks
from silent_gradients.decoders.likelihood import ExactObjective, check_images
from silent_gradients.posteriors.bits import Bernoulli
from silent_gradients.vae import VAE
from silent_gradients.vae import evaluation_mode as evaluation_mode

ACTIVE_UNIT_VARIANCE = 0.01
"""A latent variable is active if the variance of its posterior mean over images is larger (Burda et al. 2016)."""
SATURATION = 0.01
"""A probability closer than this to 0 or 1 counts as saturated."""
DECODED_PER_CHUNK = 2048
"""Samples that are decoded at once, which bounds the memory."""


def bits_per_dimension(elbo: Any, dimensions: int, levels: int) -> Any:
    """Return bits per dimension of discrete data from an evidence lower bound in nats on x = (y + u) / levels.

    ``log2(levels) - elbo / (dimensions ln 2)``; with 256 levels the constant is 8 bits. Works on numbers and tensors.

    Raises:
        TypeError: ``elbo`` is neither a number nor an array of them.
        ValueError: ``dimensions`` or ``levels`` is not a whole number of 1 or more.
    """
    if isinstance(elbo, str) or not hasattr(elbo, "__truediv__"):
        raise TypeError(f"elbo: expected numbers, got {elbo!r}")
    return math.log2(checks.whole("levels", levels)) - elbo / (checks.whole("dimensions", dimensions) * math.log(2))


@dataclass(frozen=True)
class Metrics:
    """The metrics of a model on one split.

    Attributes:
        split: ``train``, ``holdout`` or ``test``.
        images: Number of images.
        samples: Latent samples per image.
        bpd: Bits per dimension, an upper bound on the true ones up to the Monte Carlo error.
        bpd_mc_error: Standard error of ``bpd`` due to the latent samples; 0 if the expectation is exact, None with a
            single sample.
        bpd_median_image: Median over images of the bits per dimension.
        kl: Kullback-Leibler divergence, nats per image.
        active_units: Latent variables whose posterior mean varies over the images.
        latent_dim: Number of latent variables.
        saturated_fraction: Share of saturated posterior probabilities (Bernoulli only).
        mse_mean_decoded: Squared error of the mean decoded from the posterior mean, summed over dimensions.
        mse_sampled: The same, decoded from samples, averaged over them.
        mse_sampled_clamped: The same with the reconstruction clamped to [0, 1].
    """

    split: str
    images: int
    samples: int
    bpd: float
    bpd_mc_error: float | None
    bpd_median_image: float
    kl: float
    active_units: int
    latent_dim: int
    saturated_fraction: float | None
    mse_mean_decoded: float
    mse_sampled: float
    mse_sampled_clamped: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready data; numbers that are not finite become null."""
        return finite_or_null(asdict(self))


def finite_or_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with None in the place of numbers that are not finite, which JSON lacks."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def evaluate(
    vae: VAE, x: Tensor, levels: int, split: str = "test", samples: int = 1, generator: torch.Generator | None = None
) -> Metrics:
    """Evaluate the reported decoder on dequantized images.

    Samples are genuine (hard bits for a Bernoulli), never relaxed. If the decoder's expectation is exact, the bound
    uses it, and ``samples`` matters for the sampled errors alone.

    Args:
        vae: The model, on the images' device.
        x: Images [N, C, H, W] in [0, 1), dequantized.
        levels: Number of grey levels.
        split: Name of the split.
        samples: Latent samples per image, at least 1.
        generator: Source of the latent samples.

    Raises:
        ShapeError: There is no image.
        TypeError: The images are no floating-point numbers.
        ValueError: The images are not in [0, 1], or ``levels`` or ``samples`` is not a whole number of 1 or more.
    """
    check_images("x", x)
    checks.whole("levels", levels)
    checks.whole("samples", samples)
    dimensions = x[0].numel()
    collected: list[dict[str, Tensor]] = []
    with evaluation_mode(vae):
        for chunk in x.split(max(1, DECODED_PER_CHUNK // samples)):
            pixels = chunk.flatten(1)
            q = vae.posterior(chunk)
            z = q.sample(samples, generator)
            likelihood = vae.decoder.likelihood(z)
            objective = vae.decoder.objective(pixels)
            if isinstance(objective, ExactObjective) and objective.is_exact(q):
                log_likelihood = objective.expectation(q)
                spread = torch.zeros_like(log_likelihood)
            else:
                sampled = likelihood.log_prob(pixels)
                log_likelihood = sampled.mean(0)
                spread = sampled.var(0) / samples if samples > 1 else torch.full_like(log_likelihood, math.nan)
            decoded_mean = vae.decoder.likelihood(q.mean.unsqueeze(0)).mean
            values = {
                "log_likelihood": log_likelihood,
                "spread": spread,
                "kl": q.kl_divergence(),
                "posterior_mean": q.mean,
                "mean_decoded": (pixels - decoded_mean).square().sum(-1).mean(0),
                "sampled": (pixels - likelihood.mean).square().sum(-1).mean(0),
                "clamped": (pixels - likelihood.mean.clamp(0, 1)).square().sum(-1).mean(0),
            }
            if isinstance(q, Bernoulli):
                values["saturated"] = ((q.mean < SATURATION) | (q.mean > 1 - SATURATION)).float().mean(1)
            collected.append(values)
    images = {name: torch.cat([values[name] for values in collected]).double() for name in collected[0]}
    bpd = bits_per_dimension(images["log_likelihood"] - images["kl"], dimensions, levels)
    active = images["posterior_mean"].var(0, correction=0) > ACTIVE_UNIT_VARIANCE
    error = float(images["spread"].sum().sqrt()) / (len(x) * dimensions * math.log(2))
    return Metrics(
        split=split,
        images=len(x),
        samples=samples,
        bpd=float(bpd.mean()),
        bpd_mc_error=error if math.isfinite(error) else None,
        bpd_median_image=float(bpd.median()),
        kl=float(images["kl"].mean()),
        active_units=int(active.sum()),
        latent_dim=len(active),
        saturated_fraction=float(images["saturated"].mean()) if "saturated" in images else None,
        mse_mean_decoded=float(images["mean_decoded"].mean()),
        mse_sampled=float(images["sampled"].mean()),
        mse_sampled_clamped=float(images["clamped"].mean()),
    )
