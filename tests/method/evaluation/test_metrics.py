"""Evaluation against closed forms in numpy, larger samples and repeated evaluations."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from tests.method.evaluation.models import perturbed
from tests.method.reference import codes, seeded
from torch import nn

from silent_gradients import Bernoulli, FixedVarianceDecoder, Gaussian
from silent_gradients.estimators import create
from silent_gradients.evaluation import metrics as module
from silent_gradients.evaluation.metrics import Metrics, bits_per_dimension, evaluate, evaluation_mode
from silent_gradients.vae import VAE

LEVELS = 17
CPU = torch.device("cpu")


def model(place, cell, scale=0.3):
    vae, data = perturbed(place, cell, scale)
    return vae, data.selection


def flat(x):
    return x.double().numpy().reshape(len(x), -1)


def closed_form(vae, x, variance):
    """Bits/dim and KL per image of a linear decoder with fixed variance, in float64."""
    with torch.no_grad():
        output = vae.encoder(x).double().numpy()
    W = vae.decoder.linear.weight.detach().double().numpy()
    b = vae.decoder.linear.bias.detach().double().numpy()
    if vae.family is Gaussian:
        k = output.shape[1] // 2
        mean, spread = output[:, :k], np.exp(output[:, k:])
        kl = 0.5 * (mean**2 + spread - 1 - np.log(spread)).sum(1)
    else:
        p = 1 / (1 + np.exp(-output))
        mean, spread = p, p * (1 - p)
        kl = (p * np.log(2 * p) + (1 - p) * np.log(2 * (1 - p))).sum(1)
    pixels = flat(x)
    error = ((pixels - mean @ W.T - b) ** 2).sum(1)
    extra = (spread[:, None, :] * W[None] ** 2).sum((1, 2))
    D = pixels.shape[1]
    log_likelihood = -0.5 * D * np.log(2 * np.pi * variance) - (error + extra) / (2 * variance)
    return np.log2(LEVELS) - (log_likelihood - kl) / (D * np.log(2)), kl, error, extra


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("dimensions", [1, 784])
def test_the_uniform_density_takes_the_bits_of_the_levels(levels, dimensions):
    # Density 1 on the unit cube: log-likelihood 0, and every level is equally probable.
    assert bits_per_dimension(0.0, dimensions, levels) == math.log2(levels)


def test_bits_of_a_discrete_law():
    """With a density that is constant over each level's interval the bound is the entropy of the levels."""
    p = np.random.default_rng(0).dirichlet(np.ones(5))
    log_density = np.log(p * 5)  # p of mass on an interval of length 1/5
    assert bits_per_dimension((p * log_density).sum(), 1, 5) == pytest.approx(stats.entropy(p, base=2), rel=1e-12)
    elbos = torch.tensor([-3.0, -5.0])
    assert torch.allclose(bits_per_dimension(elbos, 4, 256), 8 - elbos / (4 * math.log(2)))


@pytest.mark.parametrize("cell", ["fixed/silent-gaussian", "fixed/silent-bernoulli", "fixed/reinforce"])
def test_a_fixed_variance_is_evaluated_in_closed_form(tiny, cell):
    vae, x = model(tiny, cell)
    bpd, kl, error, _ = closed_form(vae, x, 0.02)
    found = evaluate(vae, x, LEVELS, "holdout", 1, seeded(0))
    assert found.bpd == pytest.approx(bpd.mean(), rel=1e-5)
    assert found.kl == pytest.approx(kl.mean(), rel=1e-4)
    assert found.mse_mean_decoded == pytest.approx(error.mean(), rel=1e-5)
    assert found.bpd_median_image == pytest.approx(np.sort(bpd)[(len(bpd) - 1) // 2], rel=1e-5)
    assert found.bpd_mc_error == 0
    assert (found.split, found.images, found.samples, found.latent_dim) == ("holdout", 24, 1, 3)
    assert (found.saturated_fraction is None) == (vae.family is Gaussian)


@pytest.mark.parametrize("cell", ["fixed/silent-gaussian", "fixed/silent-bernoulli"])
def test_sampling_adds_the_latent_variance_to_the_error(tiny, cell):
    vae, x = model(tiny, cell)
    _, _, _, extra = closed_form(vae, x, 0.02)
    found = evaluate(vae, x, LEVELS, "holdout", 20_000, seeded(1))
    assert found.mse_sampled - found.mse_mean_decoded == pytest.approx(extra.mean(), rel=0.02)
    # Pixels lie in [0, 1): clamping the reconstruction brings it closer.
    assert found.mse_sampled_clamped < found.mse_sampled


@pytest.mark.parametrize("cell", ["learnable/reparameterization", "learnable/reinforce", "learnable/silent-gaussian"])
def test_few_samples_agree_with_many_within_the_stated_error(tiny, cell):
    vae, x = model(tiny, cell)
    few, many = evaluate(vae, x, LEVELS, "test", 16, seeded(2)), evaluate(vae, x, LEVELS, "test", 5000, seeded(3))
    assert few.bpd_mc_error is not None
    assert many.bpd_mc_error is not None
    assert 0 < many.bpd_mc_error < few.bpd_mc_error < 0.05
    assert abs(few.bpd - many.bpd) < 4 * math.hypot(few.bpd_mc_error, many.bpd_mc_error)
    assert few.kl == pytest.approx(many.kl, rel=1e-5)
    single = evaluate(vae, x, LEVELS, "test", 1, seeded(0))
    assert single.bpd_mc_error is None
    assert math.isfinite(single.bpd)


@pytest.mark.parametrize("cell", ["learnable/reparameterization", "learnable/reinforce"])
def test_the_stated_error_is_that_of_repeated_evaluations(tiny, cell):
    vae, x = model(tiny, cell)
    found = [evaluate(vae, x[:8], LEVELS, "test", 6, seeded(seed)) for seed in range(200)]
    spread = np.std([each.bpd for each in found], ddof=1)
    stated = np.sqrt(np.mean([each.bpd_mc_error**2 for each in found if each.bpd_mc_error is not None]))
    # The standard deviation of 200 numbers is known to 5%; the values' tails are somewhat heavier than normal.
    assert spread == pytest.approx(stated, rel=0.25)


def test_discrete_models_are_evaluated_with_hard_bits(tiny, monkeypatch):
    """Also those that trained on relaxed ones: the decoder is shown posterior means and vectors of bits alone."""
    vae, x = model(tiny, "learnable/gumbel-softmax")
    seen = []
    original = vae.decoder.likelihood

    def likelihood(z):
        seen.append(z)
        return original(z)

    monkeypatch.setattr(vae.decoder, "likelihood", likelihood)
    found = evaluate(vae, x, LEVELS, "test", 4, seeded(0))
    sampled = [z for z in seen if len(z) == 4]
    assert sampled
    assert all(bool(((z == 0) | (z == 1)).all()) for z in sampled)
    # The bound from all 2^3 codes, weighted with their probabilities.
    every = codes(3).float()[:, None].expand(-1, len(x), -1)
    with torch.no_grad():
        q = vae.posterior(x)
        log_q, log_p = q.log_prob(every), original(every).log_prob(x.flatten(1))
    bpd = bits_per_dimension((log_q.exp() * log_p).sum(0) - q.kl_divergence(), 16, LEVELS).mean()
    many = evaluate(vae, x, LEVELS, "test", 4000, seeded(1))
    assert abs(many.bpd - float(bpd)) < 4 * many.bpd_mc_error
    assert abs(found.bpd - float(bpd)) < 4 * found.bpd_mc_error


def test_images_are_evaluated_in_chunks_as_in_one(tiny, monkeypatch):
    vae, x = model(tiny, "fixed/silent-bernoulli")
    whole = evaluate(vae, x, LEVELS, "test", 2, seeded(0))
    monkeypatch.setattr(module, "DECODED_PER_CHUNK", 14)  # 7 images with 2 samples each
    pieces = evaluate(vae, x, LEVELS, "test", 2, seeded(0))
    for name in ("bpd", "bpd_median_image", "kl", "active_units", "saturated_fraction", "mse_mean_decoded"):
        assert getattr(pieces, name) == pytest.approx(getattr(whole, name), rel=1e-6)


class Prescribed(nn.Module):
    """An encoder that reads the posterior's parameters, -50 to 50, off the first pixels."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, x):
        return 100 * x.flatten(1)[:, : self.outputs] - 50


def prescribed(family, parameters):
    """A model and images whose posterior has the given parameters."""
    images = torch.zeros(len(parameters), 1, 4, 4)
    images.flatten(1)[:, : parameters.shape[1]] = (parameters + 50) / 100
    k = parameters.shape[1] // family.parameters_per_latent
    vae = VAE(Prescribed(parameters.shape[1]), family, FixedVarianceDecoder(k, 16, 0.1), create("silent"))
    return vae, images


def test_active_units_are_those_whose_mean_moves(tiny):
    # Means of alternating sign: their variance is the square of their size; the threshold is 0.01.
    signs = torch.tensor([1.0, -1.0]).repeat(4)[:, None]
    means = torch.cat([signs * size for size in (0.0, 0.05, 0.099, 0.101, 1.0)], dim=1)
    means[:, 0] = 7.0  # far from the prior, and the same for every image: not active
    vae, images = prescribed(Gaussian, torch.cat([means, torch.zeros(8, 5)], dim=1))
    found = evaluate(vae, images, LEVELS, "test", 1, seeded(0))
    assert (found.active_units, found.latent_dim) == (2, 5)


def test_saturated_bits_are_counted():
    threshold = math.log(0.01 / 0.99)
    logits = torch.tensor([[0.0, threshold - 0.01, threshold + 0.01, 50.0], [-threshold + 0.01, 1.0, -50.0, -1.0]])
    vae, images = prescribed(Bernoulli, logits)
    assert evaluate(vae, images, LEVELS, "test", 1, seeded(0)).saturated_fraction == pytest.approx(4 / 8)


def test_what_is_not_finite_is_null_in_json():
    values = dict.fromkeys(Metrics.__dataclass_fields__, 1.0)
    found = Metrics(**values | {"bpd": math.nan, "kl": math.inf, "split": "test"}).to_json()  # type: ignore[arg-type]
    assert (found["bpd"], found["kl"], found["mse_sampled"], found["split"]) == (None, None, 1.0, "test")


def modes(vae):
    return [module.training for module in vae.modules()]


def test_evaluation_changes_nothing_of_the_model(strided):
    vae, x = model(strided, "learnable/reparameterization+silent", scale=0.02)
    vae.train()
    vae.encoder.eval()  # as after the cut-off
    before, before_modes = {name: value.clone() for name, value in vae.state_dict().items()}, modes(vae)
    assert True in before_modes
    assert False in before_modes
    first = evaluate(vae, x, LEVELS, "test", 2, seeded(0))
    assert modes(vae) == before_modes
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    # In evaluation mode an image's numbers depend on no other image.
    alone = [evaluate(vae, image[None], LEVELS, "test", 2, seeded(0)) for image in x]
    assert first.kl == pytest.approx(np.mean([each.kl for each in alone]), rel=1e-4)
    vae.eval()
    assert evaluate(vae, x, LEVELS, "test", 2, seeded(0)) == first


def test_evaluation_mode_is_undone_after_an_error_too(strided):
    vae, _ = model(strided, "learnable/reparameterization")
    vae.train()

    def fail():
        with evaluation_mode(vae):
            assert not any(modes(vae))
            assert not torch.is_grad_enabled()
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    assert all(modes(vae))
    assert torch.is_grad_enabled()
