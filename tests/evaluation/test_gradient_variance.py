"""Gradient variance against plain automatic differentiation and against enumeration of all codes."""

import numpy as np
import pytest
import torch
from torch import nn

from silent_gradients.decoders import FixedVarianceDecoder
from silent_gradients.estimators import create
from silent_gradients.evaluation.gradient_variance import gradient_variance
from silent_gradients.model import build_vae
from silent_gradients.posteriors import Bernoulli
from silent_gradients.vae import VAE


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def model(place, cell, **changes):
    settings = place.settings(cell, **changes)
    data = place.load(settings)
    vae = build_vae(settings, data.mean, data.deviation)
    with torch.no_grad():
        for weight in vae.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=seeded(weight.numel())))
    state = vae.estimator.initial_state(torch.device("cpu"))
    if state:
        state = {"average": torch.tensor(-4.0), "weight": torch.tensor(0.5)}
    return vae, data.selection, state


@pytest.mark.parametrize("cell", ["fixed/silent-gaussian", "fixed/silent-bernoulli"])
def test_the_silent_gradient_has_no_variance_at_all(tiny, cell):
    vae, x, state = model(tiny, cell)
    found = gradient_variance(vae, vae.estimator, x, state, 7, seeded(0))
    assert (found.batch_mean, found.per_image_mean) == (0.0, 0.0)
    assert (found.images, found.draws) == (24, 7)


SAMPLED = [
    "fixed/reparameterization",
    "fixed/reinforce",
    "learnable/gumbel-softmax",
    "learnable/reinforce",
    "learnable/reparameterization+silent",
]


@pytest.mark.parametrize("cell", SAMPLED)
def test_the_variance_is_that_of_plain_differentiation(tiny, cell):
    """The same draws, each differentiated through the whole network."""
    vae, x, state = model(tiny, cell)
    weights = list(vae.encoder.parameters())
    generator, gradients = seeded(4), []
    for _ in range(12):
        q = vae.posterior(x)
        surrogate = vae.estimator(q, vae.decoder.objective(x.flatten(1)), generator=generator, state=state).surrogate
        parts = torch.autograd.grad(-surrogate.mean(), weights)
        gradients.append(np.concatenate([part.double().numpy().ravel() for part in parts]))
    expected = np.var(gradients, axis=0, ddof=1).sum()
    found = gradient_variance(vae, vae.estimator, x, state, 12, seeded(4))
    assert expected > 0
    assert found.batch_mean == pytest.approx(expected, rel=1e-4)
    assert found.per_image_mean == found.batch_mean * 24


def test_the_guide_serves_as_control(tiny):
    vae, x, _ = model(tiny, "learnable/reinforce+silent", estimator="reinforce-silent-baseline")
    q = vae.posterior(x)
    control = vae.control(x.flatten(1), q)
    state = {"average": torch.tensor(-2.0), "weight": torch.tensor(0.5)}
    generator, gradients = seeded(4), []
    for _ in range(12):
        z = q.sample(1, generator)
        value = vae.decoder.objective(x.flatten(1)).sampled(z)
        weight = (value - control.expectation(q) + 4.0).detach()
        parts = torch.autograd.grad(-(weight * q.log_prob(z)).mean(), list(vae.encoder.parameters()), retain_graph=True)
        gradients.append(np.concatenate([part.double().numpy().ravel() for part in parts]))
    found = gradient_variance(vae, vae.estimator, x, state, 12, seeded(4))
    assert found.batch_mean == pytest.approx(np.var(gradients, axis=0, ddof=1).sum(), rel=1e-4)


def test_the_kl_divergence_has_no_part_in_it(tiny):
    """Nor has anything else that is the same in every draw: the guide, and the state, which is not moved."""
    vae, x, state = model(tiny, "learnable/reinforce+silent")
    one = gradient_variance(vae, vae.estimator, x, state, 5, seeded(0))
    assert float(state["average"]) == -4.0
    vae.guide = None
    assert gradient_variance(vae, vae.estimator, x, state, 5, seeded(0)) == one


def test_networks_are_measured_in_evaluation_mode_and_left_as_they_were(strided):
    vae, x, state = model(strided, "learnable/reparameterization")
    vae.train()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    one = gradient_variance(vae, vae.estimator, x[:4], state, 3, seeded(0))
    assert all(module.training for module in vae.modules())
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(weight.grad is None for weight in vae.parameters())
    vae.eval()
    assert gradient_variance(vae, vae.estimator, x[:4], state, 3, seeded(0)) == one


@pytest.fixture(scope="module")
def enumerable():
    """Two bits and three images: every gradient of every code of every image can be written down."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    vae = VAE(encoder, Bernoulli, FixedVarianceDecoder(2, 16, 0.3), create("reinforce")).double()
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64, generator=seeded(1))
    state = {"average": torch.tensor(-6.0), "weight": torch.tensor(0.5)}
    codes = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 2)
    probabilities, gradients = np.zeros((3, 4)), [[np.zeros(0)] * 4 for _ in range(3)]
    for image in range(3):
        for number, code in enumerate(codes):
            q = vae.posterior(x[image : image + 1])
            value = vae.decoder.objective(x[image : image + 1].flatten(1)).sampled(code[None, None])
            log_q = q.log_prob(code[None, None])[0, 0]
            # REINFORCE by hand: (log p(x|z) - baseline) grad log q(z|x), baseline -6 / 0.5.
            loss = -(value.detach()[0, 0] + 12.0) * log_q
            parts = torch.autograd.grad(loss, list(vae.encoder.parameters()))
            probabilities[image, number] = float(log_q.detach().exp())
            gradients[image][number] = np.concatenate([part.numpy().ravel() for part in parts])
    return vae, x, state, probabilities, np.array(gradients)


def trace_of_covariance(probabilities, gradients):
    mean = (probabilities[:, None] * gradients).sum(0)
    return float((probabilities * ((gradients - mean) ** 2).sum(1)).sum())


def test_the_variance_is_the_enumerated_one(enumerable):
    vae, x, state, probabilities, gradients = enumerable
    per_image = [trace_of_covariance(probabilities[image], gradients[image]) for image in range(3)]
    # All 4^3 joint codes of the batch, for the gradient of its mean loss.
    joint = np.array([np.ravel(row) for row in np.ndindex(4, 4, 4)])
    weight = np.prod([probabilities[image, joint[:, image]] for image in range(3)], axis=0)
    batch = trace_of_covariance(weight, np.mean([gradients[image, joint[:, image]] for image in range(3)], axis=0))
    assert np.mean(per_image) == pytest.approx(3 * batch, rel=1e-12)  # the identity behind per_image_mean
    found = gradient_variance(vae, vae.estimator, x, state, 1500, seeded(2))
    assert found.batch_mean == pytest.approx(batch, rel=0.15)
    assert found.per_image_mean == pytest.approx(np.mean(per_image), rel=0.15)
    measured = [gradient_variance(vae, vae.estimator, image[None], state, 500, seeded(3)) for image in x]
    for one, expected in zip(measured, per_image, strict=True):
        assert one.batch_mean == one.per_image_mean == pytest.approx(expected, rel=0.25)
