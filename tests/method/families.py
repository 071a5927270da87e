"""The posterior families as the tests use them: with options other than the defaults, and parameters for each."""

import torch
from hypothesis import strategies as st
from tests.method.reference import CLASSES, TRIALS, normal
from torch import Tensor

from silent_gradients import Bernoulli, Binomial, Categorical, Posterior, posteriors

FAMILIES: dict[str, type[Posterior]] = posteriors.FAMILIES | {
    "categorical": Categorical.of(CLASSES),
    "binomial": Binomial.of(TRIALS),
}
LATENTS = {
    "gaussian": 2,
    "bernoulli": 6,
    "categorical": 2 * CLASSES,
    "sign": 5,
    "binomial": 4,
    "poisson": 2,
    "laplace": 2,
    "uniform": 2,
}
"""Latent variables, few enough for enumeration and tensor products of quadratures."""
SCALES = {"gaussian": 1.0, "poisson": 0.5, "laplace": 0.5, "uniform": 1.0}
"""Spread of the parameters; 2 for the families of a bounded range."""


def family_parameters(batch: int, seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    """Parameters [batch, p k] of every family, normal of ``scale`` times the family's own spread."""
    return {
        name: normal(
            batch, LATENTS[name] * family.parameters_per_latent, seed=seed, scale=scale * SCALES.get(name, 2.0)
        )
        for name, family in FAMILIES.items()
    }


LOGITS = st.sampled_from([-1e4, -104.0, -88.0, -17.0, -1.0, 0.0, 1e-30, 1.0, 17.0, 88.0, 104.0, 1e4])
EXTREMES = {name: [LOGITS] * family.parameters_per_latent for name, family in FAMILIES.items()} | {
    "gaussian": [LOGITS, st.sampled_from([-20.0, -5.0, 0.0, 5.0, 20.0])],
    "laplace": [LOGITS, st.sampled_from([-10.0, -2.5, 0.0, 2.5, 10.0])],
    "poisson": [st.sampled_from([-1e4, -104.0, -17.0, -1.0, 0.0, 1.0, 10.0])],
}
"""What a posterior's parameters may be, for each part of them: samples have densities in float32."""


def extreme_parameters(data, name, images, latents, extremes=EXTREMES):
    """Drawn parameters [images, p latents], a list of numbers for ``torch.tensor``."""
    return [[data.draw(part) for part in extremes[name] for _ in range(latents)] for _ in range(images)]


def with_weights(decoder, seed, *scales):
    """The decoder in float64 with normal parameters; ``scales`` are theirs in order, 1 for all if none is given.

    The parameters of two heads are weight and bias of the mean, then of the precision.
    """
    parameters = list(decoder.double().parameters())
    with torch.no_grad():
        for number, (parameter, scale) in enumerate(zip(parameters, scales or [1.0] * len(parameters), strict=True)):
            parameter.copy_(normal(*parameter.shape, seed=seed + number, scale=scale))
    return decoder


def forced(z):
    """Bits with samples z [S, B, k] in the place of drawn ones."""

    class Forced(Bernoulli):
        def sample(self, samples, generator=None):
            return z

    return Forced
