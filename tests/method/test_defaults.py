"""Every decoder trains from its default start, under every family: on real digits it uses its latent variables."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from tests.method.families import FAMILIES
from tests.method.reference import seeded
from torch import nn

from silent_gradients import (
    VAE,
    BernoulliDecoder,
    ConvolutionalDecoder,
    FactorAnalysisDecoder,
    FixedVarianceDecoder,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    PositivePrecisionDecoder,
    Standardization,
    TwoLayerDecoder,
    estimators,
    evaluate,
)

K, LEVELS, STEPS, VARIANCE = 12, 17, 250, 0.01
GREY = torch.from_numpy(load_digits().images[:1000]).float()[:, None]
X = (GREY + torch.rand(GREY.shape, generator=seeded(500))) / LEVELS
SCALE = Standardization.of(X, LEVELS)
KINDS = {
    "fixed-variance": lambda: FixedVarianceDecoder(K, 64, VARIANCE),
    "factor-analysis": lambda: FactorAnalysisDecoder(K, 64, SCALE.scale.square(), SCALE.mean),
    "fixed-variance-mean": lambda: FixedVarianceDecoder(K, 64, VARIANCE, SCALE.mean),
    "linear-precision": lambda: LinearPrecisionDecoder(K, SCALE),
    "log-linear-precision": lambda: LogLinearPrecisionDecoder(K, SCALE),
    "positive-precision": lambda: PositivePrecisionDecoder(K, SCALE),
    "square": lambda: TwoLayerDecoder(K, 64, 8, "square", VARIANCE, SCALE.mean),
    "cosine": lambda: TwoLayerDecoder(K, 64, 8, "cosine", VARIANCE, SCALE.mean),
    "convolutional": lambda: ConvolutionalDecoder("plain", K, (1, 8, 8), (8, 8, 8, 8, 8), SCALE),
}


def without_latent_variables(name):
    """Bits/dim of the best decoder of this kind that ignores z."""
    fixed = name.startswith("fixed") or name in ("square", "cosine")
    variance = torch.full((64,), VARIANCE) if fixed else SCALE.scale.square()
    error = X.flatten(1).var(0, correction=0) / variance
    return math.log2(LEVELS) + 0.5 * float(((2 * math.pi * variance).log() + error).mean()) / math.log(2)


def test_bits_of_pixels_train_from_the_mean_of_the_data():
    bits = (GREY > 8).float()
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2 * K))
    vae = VAE(
        encoder, FAMILIES["gaussian"], BernoulliDecoder(K, 64, bits.flatten(1).mean(0)), estimators.create("silent")
    )
    optimizer, generator = torch.optim.Adam(vae.parameters(), 3e-3), seeded(503)
    for _ in range(STEPS):
        optimizer.zero_grad()
        vae(bits[torch.randint(0, len(X), (64,), generator=generator)]).loss.backward()
        optimizer.step()
    p = bits.flatten(1).mean(0).clamp(1e-3, 1 - 1e-3)
    entropy = -float((p * p.log2() + (1 - p) * (1 - p).log2()).mean())
    found = evaluate(vae, bits[:200], levels=1)
    assert found.bpd < entropy - 0.05
    assert found.active_units >= K // 4


def cases():
    for name in KINDS:
        for family, kind in FAMILIES.items():
            inside = kind.support[0] >= 0 and kind.support[1] <= 1
            if (name, family) == ("log-linear-precision", "laplace") or (name == "positive-precision" and not inside):
                continue
            if (name, family) == ("square", "categorical"):
                continue  # it has no expectation
            if (name, family) == ("convolutional", "bernoulli"):
                continue  # collapses to the prior from an encoder's default start
            marks = [] if family in ("gaussian", "bernoulli") else [pytest.mark.slow]
            yield pytest.param(name, family, marks=marks)


@pytest.mark.parametrize(("name", "family"), list(cases()))
def test_the_default_start_trains(name, family):
    kind = FAMILIES[family]
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, K * kind.parameters_per_latent))
    sampled = "reparameterization" if kind.has_rsample() else "rloo"
    vae = VAE(encoder, kind, KINDS[name](), estimators.create(sampled if name == "convolutional" else "silent"))
    optimizer, generator = torch.optim.Adam(vae.parameters(), 3e-3), seeded(501)
    for _ in range(4 * STEPS if (name, family) == ("convolutional", "uniform") else STEPS):
        optimizer.zero_grad()
        vae(X[torch.randint(0, len(X), (64,), generator=generator)], generator=generator).loss.backward()
        optimizer.step()
    found = evaluate(vae, X[:200], LEVELS, samples=8, generator=seeded(502))
    least = 0.03 if name in ("convolutional", "factor-analysis") else 0.1
    assert found.bpd < without_latent_variables(name) - least, found
    assert found.active_units >= (2 if name == "convolutional" else K // 4), found
