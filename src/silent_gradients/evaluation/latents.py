"""Reconstructions and latent traversals (Figures 2 to 5)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from silent_gradients import checks
from silent_gradients.decoders.likelihood import GaussianLikelihood
from silent_gradients.evaluation.metrics import ACTIVE_UNIT_VARIANCE
from silent_gradients.posteriors.categorical import Categorical
from silent_gradients.vae import VAE, evaluation_mode

_DRAWS = 4096
"""Samples of a unit's prior whose quantiles a traversal takes."""
_TAIL = 0.02
"""Probability of the prior below the lowest value of a traversal, and above the highest."""


def reconstruct(
    vae: VAE, x: Tensor, *, with_deviation: bool, generator: torch.Generator | None = None
) -> dict[str, NDArray[np.float32]]:
    """Decode one genuine latent sample per image [n, C, H, W] with the reported decoder.

    Returns:
        ``originals``, ``means`` (clamped to [0, 1]), and with ``with_deviation`` the ``standard_deviations``, which are
        constant with a fixed variance; each float32 [n, C, H, W].
    """
    with evaluation_mode(vae):
        likelihood = vae.decoder.likelihood(vae.posterior(x).sample(1, generator))
    pictures = {"originals": x, "means": likelihood.mean[0].clamp(0, 1).view_as(x)}
    if with_deviation:
        assert isinstance(likelihood, GaussianLikelihood), "bits have no standard deviation"
        pictures["standard_deviations"] = (-likelihood.log_precision.expand_as(likelihood.mean)[0]).exp().view_as(x)
    return {name: picture.cpu().numpy().astype(np.float32) for name, picture in pictures.items()}


class Traversals(NamedTuple):
    """Images along the active units, the unit with the largest KL first; a group of classes is one unit.

    Attributes:
        units: Number of each unit, [U].
        kl: KL divergence of each unit in nats, mean over images, [U], descending.
        images: Means of p(x|z), [U, V, D]: V values of the unit, from the lowest to the highest of its prior.
    """

    units: Tensor
    kl: Tensor
    images: Tensor


def traversals(vae: VAE, x: Tensor, units: int, steps: int, generator: torch.Generator | None = None) -> Traversals:
    """Decode a genuine sample of the first image with one unit moved through its prior and the others left as they are.

    At most ``steps`` values are quantiles of the prior from 2 % to 98 %, each once (0 and 1 for bits); of a group of
    classes, the first classes. The images x [N, C, H, W] decide the KL of the units, and which are active: at most
    ``units`` of these are moved, and without one there is no image, U = 0.

    Raises:
        ShapeError: There is no image, or the encoder's output does not fit the family.
        ValueError: ``units`` or ``steps`` is not a whole number of 1 or more.
    """
    checks.whole("units", units)
    checks.whole("steps", steps)
    with evaluation_mode(vae):
        q, family = vae.posterior(x), vae.family
        width = family.classes if issubclass(family, Categorical) else 1
        count = q.latent_dim // width
        # KL divergences are sums over units: each unit of each image as an image of its own gives the terms.
        single = q.parameters.unflatten(1, (-1, count, width)).transpose(1, 2).flatten(0, 1).flatten(1)
        kl = family(single).kl_divergence().view(-1, count).mean(0)
        active = (q.mean.var(0, correction=0) > ACTIVE_UNIT_VARIANCE).view(count, width).any(1)
        order = kl.argsort(descending=True)
        chosen = order[active[order]][:units]
        z = q.sample(1, generator)[0, 0]
        if width > 1:
            values = torch.eye(width, device=z.device, dtype=z.dtype)[:steps]
        else:
            drawn = family.prior(_DRAWS, 1, q.parameters).sample(1, generator).flatten().sort().values
            values = drawn[torch.linspace(_TAIL, 1 - _TAIL, steps).mul(_DRAWS - 1).long()].unique()[:, None]
        moved = z.view(1, 1, count, width).repeat(len(chosen), len(values), 1, 1)
        moved[torch.arange(len(chosen)), :, chosen] = values
        # Beside z itself, for a model without an active unit: no decoder has to take no z.
        images = vae.decoder.likelihood(torch.cat([z[None], moved.flatten(2).flatten(0, 1)])[None]).mean[0, 1:]
    return Traversals(chosen, kl[chosen], images.view(*moved.shape[:2], vae.decoder.dimensions))
