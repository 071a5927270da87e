"""The importance-weighted bound against enumeration, closed forms and quadrature of the true log-likelihood."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from tests.method.evaluation.models import linear_vae
from tests.method.reference import codes, seeded
from torch import nn

from silent_gradients import Bernoulli, ConvolutionalDecoder, FixedVarianceDecoder, Gaussian, Standardization, Uniform
from silent_gradients.estimators import create
from silent_gradients.evaluation import importance_weighted as module
from silent_gradients.evaluation.importance_weighted import importance_weighted
from silent_gradients.evaluation.metrics import bits_per_dimension
from silent_gradients.vae import VAE

LEVELS, D = 17, 16
COUNTS = [1, 3, 10, 100, 1000]


def model(family, decoder, latent_dim, dtype=torch.float64):
    """A model whose encoder knows something of the images, and these."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(D, family.parameters_per_latent * latent_dim))
    vae = VAE(encoder, family, decoder, create("reinforce" if family.has_fixed_support else "silent"))
    with torch.no_grad():
        for weight in vae.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=seeded(weight.numel())))
    return vae.to(dtype), torch.rand(8, 1, 4, 4, dtype=torch.float64, generator=seeded(1)).to(dtype)


def convolutional(latent_dim):
    scale = Standardization(torch.full((D,), 0.5), torch.full((D,), 0.3), 100.0)
    return ConvolutionalDecoder("plain", latent_dim, (1, 4, 4), (2, 3, 2, 2, 3), scale)


def log_likelihood(vae, x, z, log_prior):
    """log p(x) [B] from nodes z [S, k] with log weights [S] that make the prior's integral a sum."""
    with torch.no_grad():
        log_p = vae.decoder.likelihood(z[:, None].expand(-1, len(x), -1)).log_prob(x.flatten(1))
    return (log_p + log_prior[:, None]).logsumexp(0)


def bits(log_p):
    return float(bits_per_dimension(log_p, D, LEVELS).mean())


def enumerated(vae, x, latent_dim):
    prior = torch.full((2**latent_dim,), -latent_dim * math.log(2))
    return bits(log_likelihood(vae, x, codes(latent_dim), prior))


def integrated(vae, x, latent_dim):
    """By the trapezoidal rule, which converges geometrically for functions like these."""
    nodes = torch.linspace(-9, 9, 20_001 if latent_dim == 1 else 361, dtype=torch.float64)
    grid = torch.cartesian_prod(*[nodes] * latent_dim).reshape(-1, latent_dim)
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(grid).sum(-1) + latent_dim * (nodes[1] - nodes[0]).log()
    return bits(log_likelihood(vae, x, grid, log_prior))


CASES = {
    "bits, linear": (Bernoulli, lambda: FixedVarianceDecoder(5, D, 0.05), 5, enumerated),
    "bits, convolutional": (Bernoulli, lambda: convolutional(8), 8, enumerated),
    "normal, linear": (Gaussian, lambda: FixedVarianceDecoder(2, D, 0.05), 2, integrated),
    "normal, convolutional": (Gaussian, lambda: convolutional(1), 1, integrated),
}


@pytest.mark.parametrize("case", CASES)
def test_the_bound_falls_with_the_samples_towards_the_likelihood(case):
    family, decoder, latent_dim, likelihood = CASES[case]
    vae, x = model(family, decoder(), latent_dim)
    exact = likelihood(vae, x, latent_dim)
    found, errors = [], []
    for samples in COUNTS:
        repeats = [
            importance_weighted(vae, x, LEVELS, samples, seeded(seed)).bpd for seed in range(1000 // samples + 3)
        ]
        found.append(np.mean(repeats))
        errors.append(np.std(repeats, ddof=1) / math.sqrt(len(repeats)))
    for more in range(1, len(COUNTS)):
        assert found[more] < found[more - 1] + 3 * math.hypot(errors[more], errors[more - 1])
    assert all(each > exact - 4 * error for each, error in zip(found, errors, strict=True))
    assert found[-1] - exact < 0.02 * (found[0] - exact) + 4 * errors[-1]


@pytest.mark.parametrize("family", [Bernoulli, Gaussian])
def test_one_sample_is_the_sampled_elbo(family):
    vae, x = model(family, convolutional(3), 3)
    found = importance_weighted(vae, x, LEVELS, 1, seeded(4))
    with torch.no_grad():
        q = vae.posterior(x)
        z = q.sample(1, seeded(4))
        prior = {
            Bernoulli: torch.distributions.Bernoulli(0.5 * torch.ones(3, dtype=torch.float64)),
            Gaussian: torch.distributions.Normal(0.0, 1.0),
        }[family]
        elbo = vae.decoder.objective(x.flatten(1)).sampled(z) + prior.log_prob(z).sum(-1) - q.log_prob(z)
    assert found.bpd == pytest.approx(bits(elbo[0]), rel=1e-12)
    assert found.bpd_mc_error is None
    assert found.effective_samples == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_the_exact_posterior_every_number_of_samples_gives_the_likelihood(dtype):
    """A linear model whose encoder is its posterior: all weights are equal."""
    W = np.linalg.qr(np.random.default_rng(0).normal(size=(D, 3)))[0] * [3.0, 1.0, 0.3]
    b, variance = np.random.default_rng(1).random(D), 0.01
    precision = 1 + (W**2).sum(0) / variance
    gain = W.T / variance / precision[:, None]
    vae = linear_vae(gain, 1 / precision, W, b, variance).to(dtype)
    x = torch.rand(30, 1, 4, 4, dtype=torch.float64, generator=seeded(3))
    exact = bits(torch.from_numpy(stats.multivariate_normal(b, W @ W.T + variance * np.eye(D)).logpdf(x.view(30, D))))
    tolerance = 1e-10 if dtype is torch.float64 else 1e-6
    for samples in (1, 7, 100):
        found = importance_weighted(vae, x.to(dtype), LEVELS, samples, seeded(samples))
        assert found.bpd == pytest.approx(exact, rel=tolerance)
        assert found.effective_samples == pytest.approx(samples, rel=1e-6)


def test_the_stated_error_is_that_of_repeated_evaluations():
    vae, x = model(Gaussian, FixedVarianceDecoder(2, D, 0.05), 2)
    found = [importance_weighted(vae, x, LEVELS, 300, seeded(seed)) for seed in range(200)]
    stated = math.sqrt(np.mean([each.bpd_mc_error**2 for each in found]))
    assert np.std([each.bpd for each in found], ddof=1) == pytest.approx(stated, rel=0.25)
    assert 1 < found[0].effective_samples < 300


def test_samples_in_chunks_give_what_they_give_at_once(monkeypatch):
    vae, x = model(Bernoulli, convolutional(3), 3)
    whole = importance_weighted(vae, x, LEVELS, 5000, seeded(0))
    decoded = []
    original = vae.decoder.likelihood

    def likelihood(z):
        decoded.append(len(z) * z.shape[1])
        return original(z)

    monkeypatch.setattr(vae.decoder, "likelihood", likelihood)
    monkeypatch.setattr(module, "DECODED_PER_CHUNK", 300)
    pieces = importance_weighted(vae, x, LEVELS, 5000, seeded(0))
    assert max(decoded) == 300
    assert sum(decoded) == 8 * 5000
    assert pieces.bpd == pytest.approx(whole.bpd, abs=5 * math.sqrt(2) * (whole.bpd_mc_error or 0.0))
    assert pieces.effective_samples == pytest.approx(whole.effective_samples, rel=0.1)


@pytest.mark.parametrize("family", [Bernoulli, Gaussian])
def test_float32_loses_nothing_that_matters(family):
    """Log-likelihoods of thousands of nats, whose exponentials do not exist."""
    vae, x = model(family, FixedVarianceDecoder(3, D, 1e-4), 3)
    double = importance_weighted(vae, x, LEVELS, 50, seeded(0))
    single = importance_weighted(vae.float(), x.float(), LEVELS, 50, seeded(0))
    assert abs(double.bpd) > 100
    assert single.bpd == pytest.approx(double.bpd, rel=1e-5)
    assert single.effective_samples == pytest.approx(double.effective_samples, rel=1e-2)


@pytest.mark.parametrize("family", [Bernoulli, Gaussian])
@pytest.mark.parametrize("extreme", [-1e4, -60.0, 60.0, 1e4])
def test_saturated_posteriors_have_a_finite_bound(family, extreme):
    vae, x = model(family, FixedVarianceDecoder(2, D, 0.05), 2, torch.float32)
    bias = vae.encoder[1].bias
    with torch.no_grad():
        if family is Bernoulli:
            bias.fill_(extreme)
        else:
            bias[:2], bias[2:] = 0.0, -min(abs(extreme), 60.0)  # a posterior without width
    found = importance_weighted(vae, x, LEVELS, 5, seeded(0))
    assert math.isfinite(found.bpd)
    assert found.bpd_mc_error is not None
    assert 1 <= found.effective_samples <= 5 + 1e-6


def test_narrow_intervals_have_a_finite_bound():
    """A sample that float32 rounds beyond the interval's end is one of the interval's all the same."""
    vae, x = model(Uniform, FixedVarianceDecoder(2, D, 0.05), 2, torch.float32)
    with torch.no_grad():
        vae.encoder[1].bias[2:] = -16.0
    found = importance_weighted(vae, x, LEVELS, 200, seeded(0))
    assert math.isfinite(found.bpd)
    double = importance_weighted(vae.double(), x.double(), LEVELS, 200, seeded(0))
    assert found.bpd == pytest.approx(double.bpd, rel=1e-4)


def test_what_is_not_finite_is_null_in_json():
    document = module.ImportanceWeighted(3, math.inf, math.nan, 1.0).to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == {
        "importance_samples": 3,
        "importance_weighted_bpd": None,
        "importance_weighted_mc_error": None,
        "effective_samples": 1.0,
    }
