"""Reconstructions show what the decoder makes of a genuine sample."""

import numpy as np
import pytest
import torch
from tests.method.evaluation.models import perturbed
from tests.method.reference import seeded

from silent_gradients.evaluation.latents import reconstruct


def model(place, cell):
    vae, data = perturbed(place, cell, 0.3)
    return vae, data.report[:5]


@pytest.mark.parametrize("cell", ["fixed/silent-gaussian", "fixed/reinforce", "learnable/silent-bernoulli"])
def test_a_sample_is_decoded(tiny, cell):
    vae, x = model(tiny, cell)
    vae.train()
    found = reconstruct(vae, x, with_deviation=False, generator=seeded(3))
    assert set(found) == {"originals", "means"}
    assert {(str(each.dtype), each.shape) for each in found.values()} == {("float32", (5, 1, 4, 4))}
    assert vae.training
    np.testing.assert_array_equal(found["originals"], x.numpy())
    with torch.no_grad():
        likelihood = vae.eval().decoder.likelihood(vae.posterior(x).sample(1, seeded(3)))
    mean = likelihood.mean.numpy().reshape(5, 1, 4, 4)
    np.testing.assert_allclose(found["means"], np.minimum(np.maximum(mean, 0), 1), rtol=1e-6)
    assert found["means"].min() >= 0
    assert found["means"].max() <= 1
    if cell.startswith("fixed"):
        assert mean.min() < 0 or mean.max() > 1  # there was something to clamp
    other = reconstruct(vae, x, with_deviation=False, generator=seeded(4))
    assert not np.array_equal(other["means"], found["means"])


def test_deviations_are_the_reciprocals_of_the_precisions(tiny):
    vae, x = model(tiny, "learnable/reparameterization")
    found = reconstruct(vae, x, with_deviation=True, generator=seeded(3))
    with torch.no_grad():
        likelihood = vae.eval().decoder.likelihood(vae.posterior(x).sample(1, seeded(3)))
    expected = 1 / np.sqrt(likelihood.precision_squared.numpy().reshape(5, 1, 4, 4))
    np.testing.assert_allclose(found["standard_deviations"], expected, rtol=1e-5)
    assert found["standard_deviations"].dtype == np.float32
