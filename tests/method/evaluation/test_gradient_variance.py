"""Gradient variance against plain automatic differentiation, and biases against derived ones."""

import numpy as np
import pytest
import torch
from tests.method.evaluation.models import perturbed
from tests.method.reference import seeded

from silent_gradients.estimators import EstimatorError, create
from silent_gradients.evaluation import gradient_variance as module
from silent_gradients.evaluation.gradient_variance import (
    assess,
    gradient_variance,
    reference_gradient,
    settled_state,
)


def model(place, cell, **changes):
    vae, data = perturbed(place, cell, 0.2, **changes)
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


SAMPLED = {
    "fixed/reparameterization": {},
    "fixed/reinforce": {},
    "learnable/gumbel-softmax": {},
    "learnable/reinforce": {},
    "learnable/reparameterization+silent": {},
    "learnable/reinforce+silent": {"estimator": "reinforce-silent-baseline"},
}


@pytest.mark.parametrize("cell", SAMPLED)
def test_the_variance_is_that_of_plain_differentiation(tiny, cell):
    """The same draws, each differentiated through the whole network; the guide is the control."""
    vae, x, state = model(tiny, cell, **SAMPLED[cell])
    weights, many = list(vae.encoder.parameters()), x.repeat(12, 1, 1, 1)
    q, pixels = vae.posterior(many), many.flatten(1)
    given = {"control": vae.control(pixels, q), "generator": seeded(4), "state": state}
    surrogate = vae.estimator(q, vae.decoder.objective(pixels), **given).surrogate
    gradients = []
    for draw in surrogate.view(12, len(x)):
        parts = torch.autograd.grad(-draw.mean(), weights, retain_graph=True)
        gradients.append(np.concatenate([part.double().numpy().ravel() for part in parts]))
    expected = np.var(gradients, axis=0, ddof=1).sum()
    found = gradient_variance(vae, vae.estimator, x, state, 12, seeded(4))
    assert expected > 0
    assert found.batch_mean == pytest.approx(expected, rel=1e-4)
    assert found.per_image_mean == found.batch_mean * 24


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


def test_frozen_and_unused_parameters_have_no_variance(tiny):
    vae, x, state = model(tiny, "fixed/reinforce")
    whole = gradient_variance(vae, vae.estimator, x, state, 5, seeded(0)).batch_mean
    vae.encoder.register_parameter("unused", torch.nn.Parameter(torch.zeros(3)))
    assert gradient_variance(vae, vae.estimator, x, state, 5, seeded(0)).batch_mean == whole
    unused, first, *others = vae.encoder.parameters()
    assert unused.shape == (3,)
    first.requires_grad_(False)
    part = gradient_variance(vae, vae.estimator, x, state, 5, seeded(0)).batch_mean
    assert 0 < part < whole
    for weight in (unused, *others):
        weight.requires_grad_(False)
    with pytest.raises(ValueError, match="vae: expected an encoder with parameters in training, got none"):
        gradient_variance(vae, vae.estimator, x, state, 5, seeded(0))


def test_images_have_independent_draws(tiny):
    """The identity behind ``per_image_mean``: the batch mean has an image's mean variance over the number of images."""
    vae, x, state = model(tiny, "fixed/reinforce")
    alone = [gradient_variance(vae, vae.estimator, image[None], state, 500, seeded(3)).batch_mean for image in x]
    found = gradient_variance(vae, vae.estimator, x, state, 2000, seeded(2))
    assert found.per_image_mean == pytest.approx(np.mean(alone), rel=0.2)


def assessed(vae, name, x, draws=200, options=None, reference=None):
    estimator = create(name, options)
    state = settled_state(vae, estimator, x, seeded(1))
    reference = reference or reference_gradient(vae, x, 1000, seeded(2))
    index = torch.arange(len(x))
    return assess(vae, estimator, x, state, draws, reference, seeded(3), index=index)


UNBIASED = {
    "fixed/silent-gaussian": ["silent", "reparameterization", "reinforce", "rloo"],
    "fixed/silent-bernoulli": ["silent", "reinforce", "reinforce-per-datum", "arm", "disarm", "local-expectation"],
    "learnable/reparameterization+silent": ["reparameterization", "reinforce-silent-baseline"],
    "learnable/reinforce+silent": ["reinforce", "disarm", "local-expectation", "reinforce-silent-baseline"],
}


@pytest.mark.parametrize(("cell", "name"), [(cell, name) for cell, names in UNBIASED.items() for name in names])
def test_no_bias_is_found_where_there_is_none(tiny, cell, name):
    vae, x, _ = model(tiny, cell)
    found = assessed(vae, name, x)
    assert abs(found.bias_z) < 4
    assert (found.variance.batch_mean == 0) == (name == "silent")


def test_the_bias_of_straight_through_is_the_one_that_is_derived(tiny):
    """(1 - 2 p_i) p_i (1 - p_i) |a_i|^2 / (2 variance) for each bit of a fixed-variance decoder."""
    vae, x, _ = model(tiny, "fixed/silent-bernoulli")
    p, column = vae.posterior(x).mean.detach(), vae.decoder.linear.weight.detach().square().sum(0)
    bias = (1 - 2 * p) * p * (1 - p) * column / (2 * vae.decoder.variance) / len(x)
    reference = reference_gradient(vae, x, 4)
    found = assessed(vae, "straight-through", x, 2000, None, reference)
    assert found.bias == pytest.approx(float(bias.norm() / reference.cotangents.norm()), rel=0.2)
    assert found.bias_z > 10


def test_a_bias_is_found_against_estimates_too(tiny):
    vae, x, _ = model(tiny, "learnable/gumbel-softmax")
    reference = reference_gradient(vae, x, 2000, seeded(2))
    assert (reference.estimator, len(reference.cotangents)) == ("disarm", 2000)
    assert assessed(vae, "gumbel-softmax", x, 1000, {"temperature": 3.0}, reference).bias_z > 6
    assert abs(assessed(vae, "rloo", x, 1000, None, reference).bias_z) < 4


@pytest.mark.parametrize("cell", ["fixed/silent-bernoulli", "fixed/silent-gaussian"])
def test_the_exact_gradient_is_the_reference_where_it_is_known(tiny, cell):
    vae, x, _ = model(tiny, cell)
    reference = reference_gradient(vae, x, 100, seeded(0))
    assert (reference.estimator, len(reference.cotangents)) == ("silent", 1)
    leaf = vae.posterior(x).parameters.detach().requires_grad_()
    expectation = vae.decoder.objective(x.flatten(1)).expectation(vae.family(leaf))
    (expected,) = torch.autograd.grad(-expectation.mean(), leaf)
    torch.testing.assert_close(reference.cotangents[0], expected)


def test_an_assessment_has_the_variance_of_the_protocol(tiny):
    vae, x, state = model(tiny, "fixed/reinforce")
    reference = reference_gradient(vae, x, 4, seeded(0))
    found = assess(vae, vae.estimator, x, state, 9, reference, seeded(5))
    assert found.variance == gradient_variance(vae, vae.estimator, x, state, 9, seeded(5))


def test_draws_are_evaluated_in_chunks_that_bound_the_memory(tiny, monkeypatch):
    vae, x, state = model(tiny, "fixed/reinforce")
    monkeypatch.setattr(module, "DECODED_PER_CHUNK", 100)
    sizes = []
    original = vae.decoder.likelihood

    def likelihood(z):
        sizes.append(z.shape[:2].numel())
        return original(z)

    monkeypatch.setattr(vae.decoder, "likelihood", likelihood)
    pieces = gradient_variance(vae, vae.estimator, x, state, 10, seeded(5))
    assert sizes == [96, 96, 48]  # four draws of 24 images, and the rest
    monkeypatch.undo()
    # Uniform numbers come in the same order whatever the chunks.
    assert pieces.batch_mean == pytest.approx(gradient_variance(vae, vae.estimator, x, state, 10, seeded(5)).batch_mean)


def test_a_settled_state_is_the_average_over_the_batch(tiny):
    vae, x, _ = model(tiny, "fixed/reinforce")
    state = settled_state(vae, vae.estimator, x, seeded(0))
    with torch.no_grad():
        objective, q = vae.decoder.objective(x.flatten(1)), vae.posterior(x)
        values = objective.sampled(q.sample(4000, seeded(1)))
    assert float(state["average"] / state["weight"]) == pytest.approx(float(values.mean()), rel=0.05)
    assert settled_state(vae, create("rloo"), x) == {}
    per_image = settled_state(vae, create("reinforce-per-datum", {"image_decay": 0.98}), x, seeded(0))
    assert len(per_image["image_average"]) == 24
    averages = per_image["image_average"] / per_image["image_weight"]
    assert float(torch.corrcoef(torch.stack([averages, values.mean(0)]))[0, 1]) > 0.9


def test_what_cannot_be_measured_is_refused(tiny):
    vae, x, _ = model(tiny, "fixed/silent-bernoulli")
    reference, pathwise = reference_gradient(vae, x, 4, seeded(0)), create("reparameterization")
    for measure in (
        lambda: gradient_variance(vae, pathwise, x, {}, 7),
        lambda: assess(vae, pathwise, x, {}, 5, reference),
        lambda: settled_state(vae, pathwise, x),
    ):
        with pytest.raises(EstimatorError, match="vae: estimator 'reparameterization' does not support bernoulli"):
            measure()
    nonlinear, x, _ = model(tiny, "learnable/reinforce")
    with pytest.raises(EstimatorError, match="control"):
        settled_state(nonlinear, create("reinforce-silent-baseline"), x)
    with pytest.raises(EstimatorError, match="exact expectation"):
        assess(nonlinear, create("silent"), x, {}, 5, reference)
