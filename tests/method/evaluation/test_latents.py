"""Traversals move one unit through its prior, the unit that carries most of the KL first."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from tests.method.evaluation.models import linear_vae
from tests.method.families import FAMILIES, LATENTS
from tests.method.reference import CLASSES, normal, seeded
from torch import nn

from silent_gradients import VAE, FixedVarianceDecoder, estimators
from silent_gradients.evaluation.latents import traversals


def test_units_of_a_linear_model_have_their_closed_form():
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(4, 3)), rng.normal(size=4)
    gain = np.diag([0.4, 0.0, 0.9]) @ rng.normal(size=(3, 4))  # the second unit is the same for every image
    variances = np.array([0.5, 0.25, 0.1])
    x = torch.from_numpy(rng.normal(size=(200, 4)))
    found = traversals(linear_vae(gain, variances, W, b, 0.1), x.view(-1, 4), 5, 7, seeded(0))
    means = (x.numpy() - b) @ gain.T
    kl = 0.5 * (np.square(means).mean(0) + variances - 1 - np.log(variances))
    order = [unit for unit in np.argsort(-kl) if unit != 1]
    assert found.units.tolist() == order
    np.testing.assert_allclose(found.kl, kl[order])
    assert found.images.shape == (2, 7, 4)
    for unit, images in zip(order, found.images.numpy(), strict=True):
        coefficients = np.linalg.lstsq(W, (images - images[0]).T, rcond=None)[0]
        assert np.abs(np.delete(coefficients, unit, axis=0)).max() < 1e-9
        quantiles = norm.ppf(np.linspace(0.02, 0.98, 7))
        np.testing.assert_allclose(coefficients[unit], quantiles - quantiles[0], atol=0.25)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_units_kl_is_that_of_a_posterior_which_elsewhere_is_the_prior(name):
    family, width = FAMILIES[name], CLASSES if name == "categorical" else 1
    k, parts = LATENTS[name], FAMILIES[name].parameters_per_latent
    encoder = nn.Linear(4, k * parts).double()
    encoder.weight.data, encoder.bias.data = (normal(*each.shape, seed=2) for each in encoder.parameters())
    vae = VAE(encoder, family, FixedVarianceDecoder(k, 4, 0.1).double(), estimators.create("silent"))
    x = normal(50, 4, seed=3)
    found = traversals(vae, x, k, 5, seeded(0))
    assert len(found.units) > 0
    own, prior = vae.posterior(x).parameters, family.prior(50, k, x).parameters
    for unit, kl, images in zip(found.units.tolist(), found.kl, found.images, strict=True):
        columns = [part * k + unit * width + place for part in range(parts) for place in range(width)]
        alone = prior.clone()
        alone[:, columns] = own[:, columns]
        torch.testing.assert_close(kl, family(alone).kl_divergence().mean())
        most, least = {"categorical": (CLASSES, CLASSES), "bernoulli": (2, 2), "sign": (2, 2)}.get(name, (5, 2))
        assert least <= len(images) <= most
        assert len(images) == 5 or name not in ("gaussian", "laplace", "uniform")
    assert found.kl.tolist() == sorted(found.kl.tolist(), reverse=True)
