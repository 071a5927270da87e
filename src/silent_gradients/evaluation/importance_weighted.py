"""The importance-weighted bound (Burda et al. 2016)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from silent_gradients import checks
from silent_gradients.decoders.likelihood import check_images
from silent_gradients.evaluation.metrics import DECODED_PER_CHUNK, bits_per_dimension, evaluation_mode, finite_or_null
from silent_gradients.vae import VAE


@dataclass(frozen=True)
class ImportanceWeighted:
    """The bound of K samples per image, averaged over images.

    Attributes:
        samples: K.
        bpd: Bits per dimension, in expectation an upper bound on the true ones that falls with K.
        bpd_mc_error: Standard error of ``bpd`` due to the samples, to first order in the spread of the weights: too
            small if ``effective_samples`` is close to 1. None with a single sample.
        effective_samples: Mean over images of ``(sum w)^2 / sum w^2``, between 1 and K (Kish 1965).
    """

    samples: int
    bpd: float
    bpd_mc_error: float | None
    effective_samples: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready data, named as next to other metrics; numbers that are not finite become null."""
        return finite_or_null(
            {
                "importance_samples": self.samples,
                "importance_weighted_bpd": self.bpd,
                "importance_weighted_mc_error": self.bpd_mc_error,
                "effective_samples": self.effective_samples,
            }
        )


def importance_weighted(
    vae: VAE, x: Tensor, levels: int, samples: int, generator: torch.Generator | None = None
) -> ImportanceWeighted:
    """Evaluate ``log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)`` with genuine samples z_k of the posterior.

    With K = 1 its expectation is the evidence lower bound; it rises with K, and towards log p(x) if the weights are
    bounded (Burda et al. 2016, Theorem 1). At most ``DECODED_PER_CHUNK`` samples are decoded at once.

    Args:
        vae: The model, on the images' device.
        x: Images [N, C, H, W] in [0, 1), dequantized.
        levels: Number of grey levels.
        samples: K, samples per image.
        generator: Source of the samples.

    Raises:
        ShapeError: There is no image.
        TypeError: The images are no floating-point numbers.
        ValueError: The images are not in [0, 1], or ``levels`` or ``samples`` is not a whole number of 1 or more.
    """
    check_images("x", x)
    checks.whole("levels", levels)
    checks.whole("samples", samples)
    bounds, effective = [], []
    with evaluation_mode(vae):
        for chunk in x.split(max(1, DECODED_PER_CHUNK // samples)):
            pixels = chunk.flatten(1)
            # In float64, at the sample before it is rounded for the decoder: the density of a narrow posterior at the
            # rounded sample is far off, or 0 beyond an end of the support.
            q = vae.family(vae.parameters_of(chunk).double())
            total = torch.full((len(chunk),), -math.inf, dtype=torch.float64, device=x.device)
            squares = total
            for start in range(0, samples, DECODED_PER_CHUNK):
                z = q.sample(min(DECODED_PER_CHUNK, samples - start), generator)
                log_weight = vae.decoder.likelihood(z.to(x.dtype)).log_prob(pixels).double()
                log_weight = log_weight + q.prior_log_prob(z) - q.log_prob(z)
                total = torch.logaddexp(total, log_weight.logsumexp(0))
                squares = torch.logaddexp(squares, (2 * log_weight).logsumexp(0))
            bounds.append(total - math.log(samples))
            effective.append((2 * total - squares).exp())
    bpd = bits_per_dimension(torch.cat(bounds), x[0].numel(), levels)
    kept = torch.cat(effective)
    error = None
    if samples > 1:
        relative_variance = (samples / kept - 1) / (samples - 1)
        error = float(relative_variance.clamp(min=0).sum().sqrt()) / (len(x) * x[0].numel() * math.log(2))
    return ImportanceWeighted(samples, float(bpd.mean()), error, float(kept.mean()))
