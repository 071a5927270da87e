"""The posterior families as the tests use them: with options other than the defaults, and parameters for each."""

import torch
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
