import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.method.families import FAMILIES
from tests.method.reference import (
    expectation,
    gradients,
    log_linear_precision_log_density,
    normal,
    relative,
)

from silent_gradients.decoders import (
    ExactObjective,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    Standardization,
)
from silent_gradients.posteriors import Bernoulli, Gaussian, Posterior

B, D = 3, 5
X = normal(B, D, seed=120)
PARAMETERS = {
    "bernoulli": normal(B, 6, seed=121, scale=2.0),
    "gaussian": normal(B, 4, seed=122),
    "categorical": normal(B, 9, seed=121, scale=2.0),
    "sign": normal(B, 5, seed=121, scale=2.0),
    "binomial": normal(B, 4, seed=121, scale=2.0),
    "poisson": normal(B, 2, seed=122, scale=0.5),
    "uniform": normal(B, 4, seed=122),
}
LATENTS = {
    "bernoulli": 6,
    "gaussian": 2,
    "categorical": 9,
    "sign": 5,
    "binomial": 4,
    "poisson": 2,
    "uniform": 2,
}


def decoder_with(latent_dim, standardization=None):
    decoder = LogLinearPrecisionDecoder(latent_dim, standardization or Standardization.identity(D, 1000.0)).double()
    with torch.no_grad():
        decoder.mean_head.weight.copy_(normal(D, latent_dim, seed=123))
        decoder.mean_head.bias.copy_(normal(D, seed=124))
        decoder.precision_head.weight.copy_(normal(D, latent_dim, seed=125, scale=0.4))
        decoder.precision_head.bias.copy_(normal(D, seed=126))
    return decoder


def heads(decoder):
    return tuple(decoder.parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_expectation_and_gradients_equal_the_sum_over_all_latents(name):
    decoder = decoder_with(LATENTS[name])
    own = heads(decoder)
    parameters = PARAMETERS[name].clone().requires_grad_()
    objective = decoder.objective(X)
    assert isinstance(objective, ExactObjective)
    found = objective.expectation(FAMILIES[name](parameters))
    exact = expectation(name, parameters, lambda z: log_linear_precision_log_density(z, X, own)).sum(1)
    assert found.shape == (B,)
    assert relative(found, exact) < 1e-12
    cotangent = normal(B, seed=127)
    for ours, wanted in zip(
        gradients(found @ cotangent, parameters, *own), gradients(exact @ cotangent, parameters, *own), strict=True
    ):
        assert relative(ours, wanted) < 1e-12


@pytest.mark.parametrize("name", PARAMETERS)
def test_sampled_matches_torch_distributions(name):
    decoder = decoder_with(LATENTS[name])
    z = normal(50, B, LATENTS[name], seed=128)
    exact = log_linear_precision_log_density(z, X, heads(decoder)).sum(-1)
    torch.testing.assert_close(decoder.objective(X).sampled(z), exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PARAMETERS)
def test_standardization_only_changes_the_coordinates(name):
    location, scale = normal(D, seed=129), normal(D, seed=130).exp()
    inside = decoder_with(LATENTS[name], Standardization(location, scale, 1000.0))
    outside = decoder_with(LATENTS[name])
    with torch.no_grad():
        outside.mean_head.weight.copy_(scale[:, None] * inside.mean_head.weight)
        outside.mean_head.bias.copy_(location + scale * inside.mean_head.bias)
        outside.precision_head.bias.copy_(inside.precision_head.bias - scale.log())
    q = FAMILIES[name](PARAMETERS[name])
    z = q.sample(6)
    torch.testing.assert_close(inside.objective(X).sampled(z), outside.objective(X).sampled(z), rtol=1e-11, atol=1e-10)
    found, wanted = (decoder.objective(X).expectation(q) for decoder in (inside, outside))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_constant_precision_is_that_of_the_linear_decoder(name):
    log_linear, linear = (
        decoder_with(LATENTS[name]),
        LinearPrecisionDecoder(LATENTS[name], Standardization.identity(D, 1e3)),
    )
    linear.double().load_state_dict(log_linear.state_dict())
    with torch.no_grad():
        log_linear.precision_head.weight.zero_()
        linear.precision_head.weight.zero_()
        linear.precision_head.bias.copy_(log_linear.precision_head.bias.exp())
    q = FAMILIES[name](PARAMETERS[name])
    found, wanted = (decoder.objective(X).expectation(q) for decoder in (log_linear, linear))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PARAMETERS)
def test_float32_is_close_to_float64_at_image_size(name):
    dimensions, latents = 784, 48
    family = FAMILIES[name]
    standardization = Standardization(
        normal(dimensions, seed=131).float(), normal(dimensions, seed=132).exp().float() / 887, 1e3
    )
    low = LogLinearPrecisionDecoder(latents, standardization)
    with torch.no_grad():
        low.mean_head.weight.copy_(normal(dimensions, latents, seed=133, scale=0.1))
        low.precision_head.weight.copy_(normal(dimensions, latents, seed=134, scale=0.03))
    high = LogLinearPrecisionDecoder(latents, standardization).double()
    high.load_state_dict(low.state_dict())
    parameters = normal(B, latents * family.parameters_per_latent, seed=135).float().requires_grad_()
    double = parameters.detach().double().requires_grad_()
    x = (standardization.mean + standardization.scale * normal(B, dimensions, seed=136)).float()
    found, exact = (
        low.objective(x).expectation(family(parameters)),
        high.objective(x.double()).expectation(family(double)),
    )
    assert found.dtype == torch.float32
    assert relative(found.double(), exact) < 1e-6
    for ours, wanted in zip(
        gradients(found.sum(), parameters, *low.parameters()),
        gradients(exact.sum(), double, *high.parameters()),
        strict=True,
    ):
        # The slope by a class is a difference of sums over all dimensions.
        assert relative(ours.double(), wanted) < (5e-5 if name == "categorical" else 1e-5)


def test_initial_precision_is_that_of_the_data():
    torch.manual_seed(0)
    scale = torch.tensor([0.1, 0.2, 0.5, 1.0, 2.0])
    decoder = LogLinearPrecisionDecoder(20, Standardization(torch.zeros(D), scale, 1000.0))
    likelihood = decoder.likelihood(torch.zeros(1, 1, 20))
    torch.testing.assert_close(likelihood.precision_squared[0, 0], scale**-2)
    torch.testing.assert_close(likelihood.log_precision[0, 0], -scale.log())
    torch.testing.assert_close(likelihood.mean[0, 0], torch.zeros(D))
    assert decoder.precision_head.weight.std() < 0.02
    torch.manual_seed(0)
    default = LogLinearPrecisionDecoder(20, Standardization(torch.zeros(D), scale, 1000.0), small_weights=False)
    torch.manual_seed(0)
    assert torch.equal(default.mean_head.weight, torch.nn.Linear(20, D).weight)


def test_declared_exact_where_the_family_has_tilted_moments():
    class Heavy(Bernoulli):
        name = "heavy"
        tilted_moments = Posterior.tilted_moments

    for name, parameters in PARAMETERS.items():
        assert decoder_with(LATENTS[name]).objective(X).is_exact(FAMILIES[name](parameters))
    objective, q = decoder_with(6).objective(X), Heavy(PARAMETERS["bernoulli"])
    assert not objective.is_exact(q)
    with pytest.raises(NotImplementedError, match="heavy"):
        objective.expectation(q)


def test_the_expectation_is_finite_where_the_expected_squared_precision_is_not():
    """E s^2 = e^100 is no float32, e^100 times an error of e^-40 is one."""
    error = math.exp(-20)
    decoder = LogLinearPrecisionDecoder(1, Standardization.identity(1, 1e3))
    with torch.no_grad():
        decoder.mean_head.weight.zero_()
        decoder.precision_head.weight.zero_()
        decoder.precision_head.bias.fill_(50.0)
    value = decoder.objective(torch.tensor([[error]])).expectation(Bernoulli(torch.zeros(1, 1))).detach()
    assert float(value) == pytest.approx(50 - 0.5 * math.exp(60) - 0.5 * math.log(2 * math.pi), rel=1e-5)


NUMBERS = {
    "logit": st.one_of(st.sampled_from([-1e4, 1e4, 0.0]), st.floats(-200, 200, width=32)),
    "mean": st.floats(-100, 100, width=32),
    "log_variance": st.floats(-300, 5, width=32),
    "weight": st.floats(-10, 10, width=32),
}


def tensors(strategy, *shape):
    return st.lists(strategy, min_size=math.prod(shape), max_size=math.prod(shape)).map(
        lambda numbers: torch.tensor(numbers, dtype=torch.float32).reshape(shape)
    )


@st.composite
def parameters_of(draw, family):
    if family is Bernoulli:
        return draw(tensors(NUMBERS["logit"], 2, 3))
    return torch.cat([draw(tensors(NUMBERS["mean"], 2, 3)), draw(tensors(NUMBERS["log_variance"], 2, 3))], dim=1)


@pytest.mark.parametrize("family", [Bernoulli, Gaussian])
@hypothesis_settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_extreme_posteriors_give_finite_values_and_gradients(family, data):
    """Wherever those of float64 are within float32's range."""
    parameters = data.draw(parameters_of(family))
    rows = data.draw(st.lists(tensors(NUMBERS["weight"], 2, 4), min_size=2, max_size=2))

    def value_and_gradients(dtype):
        decoder = LogLinearPrecisionDecoder(
            3, Standardization(torch.tensor([0.1, 0.5]), torch.tensor([0.01, 0.3]), 1e3)
        ).to(dtype)
        with torch.no_grad():
            for head, row in zip((decoder.mean_head, decoder.precision_head), rows, strict=True):
                head.weight.copy_(row[:, :3])
                head.bias.copy_(row[:, 3])
        leaf = parameters.to(dtype).requires_grad_()
        q = family(leaf)
        value = decoder.objective(torch.tensor([[0.0, 0.25], [1.0, 0.999]], dtype=dtype)).expectation(q)
        return [value, *torch.autograd.grad(value.sum(), (leaf, *decoder.parameters()))]

    exact = value_and_gradients(torch.float64)
    assume(all(torch.isfinite(entry).all() and entry.abs().max() < 1e37 for entry in exact))
    for entry in value_and_gradients(torch.float32):
        assert torch.isfinite(entry).all()


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("seed", range(5))
def test_saturated_posteriors_equal_the_sum_over_all_latents(scale, seed):
    logits = scale * torch.where(normal(B, 6, seed=140 + seed) > 0, 30.0, -30.0).double()
    logits.requires_grad_()
    decoder = decoder_with(6)
    found = decoder.objective(X).expectation(Bernoulli(logits))
    exact = expectation("bernoulli", logits, lambda z: log_linear_precision_log_density(z, X, heads(decoder))).sum(1)
    assert relative(found, exact) < 1e-12
    ours, wanted = (torch.autograd.grad(value.sum(), logits, retain_graph=True)[0] for value in (found, exact))
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-13)
