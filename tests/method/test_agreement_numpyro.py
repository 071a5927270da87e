"""The bounds and gradients that NumPyro estimates from samples are those computed here, within their Monte Carlo error.

NumPyro is the extra ``agreement``; without it these tests are skipped.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tests.method.families import FAMILIES
from tests.method.reference import CLASSES, TRIALS, gradients, normal, seeded

from silent_gradients import FixedVarianceDecoder, LinearPrecisionDecoder, LogLinearPrecisionDecoder, Standardization

numpyro = pytest.importorskip("numpyro", reason="NumPyro is not installed: pip install 'silent-gradients[agreement]'")
jax = pytest.importorskip("jax")
numpyro.enable_x64()
pytestmark = pytest.mark.slow  # most of it is compilation
dist, infer, jnp = numpyro.distributions, numpyro.infer, jax.numpy

B, D, GROUPS = 2, 3, 2
VARIANCE = 0.3
REPEATS, PARTICLES = 50, 400
Z_BOUND = 4.5
"""Deviations of the mean of ``REPEATS`` estimates from the exact number, in its standard errors."""
X = normal(B, D, seed=260)
LATENTS = {name: GROUPS * (CLASSES if name == "categorical" else 1) for name in FAMILIES}
PARAMETERS = {
    name: normal(B, LATENTS[name] * family.parameters_per_latent, seed=261, scale=0.7)
    for name, family in FAMILIES.items()
}


def guide_law(name, parameters):
    """The posterior as NumPyro has it, over [B] images; signs as bits, classes as numbers."""
    first, second = jnp.split(parameters, 2, axis=1) if FAMILIES[name].parameters_per_latent == 2 else (parameters,) * 2
    match name:
        case "gaussian":
            law = dist.Normal(first, jnp.exp(second / 2))
        case "bernoulli" | "sign":
            law = dist.BernoulliLogits(parameters)
        case "categorical":
            law = dist.CategoricalLogits(parameters.reshape(B, GROUPS, CLASSES))
        case "binomial":
            law = dist.BinomialLogits(parameters, TRIALS)
        case "poisson":
            law = dist.Poisson(jnp.exp(parameters))
        case "laplace":
            law = dist.Laplace(first, jnp.exp(second))
        case "uniform":
            width = jax.nn.sigmoid(second)
            low = jax.nn.sigmoid(first) * (1 - width)
            law = dist.Uniform(low, low + width)
    return law.to_event(1)


def prior_law(name):
    if name == "uniform":
        return dist.Uniform(jnp.zeros((B, GROUPS)), 1.0).to_event(1)
    return guide_law(name, jnp.zeros(PARAMETERS[name].shape))


def code(name, z):
    """The latent variables as a decoder takes them."""
    if name == "categorical":
        return jax.nn.one_hot(z, CLASSES).reshape(B, -1)
    return 2 * z - 1 if name == "sign" else z


def coded(name, z):
    """The opposite."""
    if name == "categorical":
        return z.unflatten(2, (GROUPS, CLASSES)).argmax(3)
    return (z + 1) / 2 if name == "sign" else z


@dataclass(frozen=True)
class Linear:
    """A decoder of ours, and the mean and the precision that it stands for."""

    decoder: torch.nn.Module
    precision: str

    def law(self, z):
        weights = {name: jnp.asarray(weight.detach().numpy()) for name, weight in self.decoder.named_parameters()}
        head = "linear" if self.precision == "fixed" else "mean_head"
        mean = z @ weights[f"{head}.weight"].T + weights[f"{head}.bias"]
        if self.precision == "fixed":
            return dist.Normal(mean, math.sqrt(VARIANCE)).to_event(1)
        value = z @ weights["precision_head.weight"].T + weights["precision_head.bias"]
        scale = 1 / jnp.abs(value) if self.precision == "linear" else jnp.exp(-value)
        return dist.Normal(mean, scale).to_event(1)


def linear(name, precision):
    latents = LATENTS[name]
    decoder = {
        "fixed": lambda: FixedVarianceDecoder(latents, D, VARIANCE),
        "linear": lambda: LinearPrecisionDecoder(latents, Standardization.identity(D, 1e3)),
        "log-linear": lambda: LogLinearPrecisionDecoder(latents, Standardization.identity(D, 1e3)),
    }[precision]().double()
    with torch.no_grad():
        for seed, weight in enumerate(decoder.parameters(), 262):
            weight.copy_(normal(*weight.shape, seed=seed, scale=0.4))
        if precision != "fixed":
            # Samples far out have large gradients, those of log|s| have no variance where s comes close to 0.
            decoder.precision_head.weight.mul_(0.3)
        if precision == "linear":
            decoder.precision_head.bias.fill_(2.0)
    return Linear(decoder, precision)


def estimates(elbo, name, model):
    """``REPEATS`` estimates of the bound summed over images, and of its gradient by the posterior's parameters."""

    def generate():
        with numpyro.plate("images", B):
            z = numpyro.sample("z", prior_law(name))
            numpyro.sample("x", model.law(code(name, z)), obs=jnp.asarray(X.numpy()))

    def guide():
        parameters = numpyro.param("parameters", jnp.zeros(PARAMETERS[name].shape))
        with numpyro.plate("images", B):
            numpyro.sample("z", guide_law(name, parameters))

    def bound(parameters, key):
        return -elbo.loss(key, {"parameters": parameters}, generate, guide)

    keys = jax.random.split(jax.random.PRNGKey(0), REPEATS)
    run = jax.jit(jax.vmap(jax.value_and_grad(bound), (None, 0)))
    values, slopes = run(jnp.asarray(PARAMETERS[name].numpy()), keys)
    return torch.from_numpy(np.array(values)), torch.from_numpy(np.array(slopes))


def exact(name, model):
    parameters = PARAMETERS[name].clone().requires_grad_()
    q, objective = FAMILIES[name](parameters), model.decoder.objective(X)
    assert objective.is_exact(q)
    bound = (objective.expectation(q) - q.kl_divergence()).sum()
    return bound.detach(), gradients(bound, parameters)[0]


def assert_within_error(drawn, truth, largest):
    """Every mean within the bound, and a bound that says something: of at most ``largest`` times the largest truth."""
    error = drawn.std(0) / REPEATS**0.5
    assert Z_BOUND * error.max() < largest * truth.abs().max()
    assert ((drawn.mean(0) - truth).abs() < Z_BOUND * error + 1e-9).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_densities(name):
    q = FAMILIES[name](PARAMETERS[name])
    z = q.sample(5, seeded(263))
    for own, law in (
        (q.log_prob(z), guide_law(name, jnp.asarray(PARAMETERS[name].numpy()))),
        (q.prior_log_prob(z), prior_law(name)),
    ):
        found = torch.from_numpy(np.array(law.log_prob(jnp.asarray(coded(name, z).numpy()))))
        torch.testing.assert_close(own, found, rtol=1e-9, atol=1e-9)


def test_divergence_of_normal_laws():
    law = guide_law("gaussian", jnp.asarray(PARAMETERS["gaussian"].numpy()))
    found = torch.from_numpy(np.array(dist.kl_divergence(law, prior_law("gaussian"))))
    own = FAMILIES["gaussian"](PARAMETERS["gaussian"]).kl_divergence()
    torch.testing.assert_close(own, found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_bounds_with_a_fixed_variance(name):
    model = linear(name, "fixed")
    values, _ = estimates(infer.Trace_ELBO(num_particles=PARTICLES), name, model)
    assert_within_error(values, exact(name, model)[0], 0.05)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.has_tilted_moments()])
def test_bounds_with_a_log_linear_precision(name):
    model = linear(name, "log-linear")
    values, _ = estimates(infer.Trace_ELBO(num_particles=PARTICLES), name, model)
    assert_within_error(values, exact(name, model)[0], 0.05)


@pytest.mark.parametrize("precision", ["fixed", "linear", "log-linear"])
@pytest.mark.parametrize("elbo", ["Trace_ELBO", "TraceMeanField_ELBO"])
def test_pathwise_gradients(elbo, precision):
    """The second takes the divergence in closed form, as it is taken here."""
    model = linear("gaussian", precision)
    values, slopes = estimates(getattr(infer, elbo)(num_particles=PARTICLES), "gaussian", model)
    truth, slope = exact("gaussian", model)
    assert_within_error(values, truth, 0.05)
    assert_within_error(slopes, slope, 0.1)


@pytest.mark.parametrize("name", ["laplace", "uniform"])
def test_pathwise_gradients_of_other_laws(name):
    model = linear(name, "fixed")
    _, slopes = estimates(infer.Trace_ELBO(num_particles=PARTICLES), name, model)
    assert_within_error(slopes, exact(name, model)[1], 0.2)


@pytest.mark.parametrize("name", ["bernoulli", "binomial", "poisson", "categorical"])
def test_score_function_gradients(name):
    model = linear(name, "fixed")
    _, slopes = estimates(infer.TraceGraph_ELBO(num_particles=PARTICLES), name, model)
    assert_within_error(slopes, exact(name, model)[1], 0.3)
