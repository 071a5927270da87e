"""The bounds and gradients that NumPyro estimates from samples are those computed here, within their Monte Carlo error.

NumPyro is the extra ``agreement``; without it these tests are skipped.
"""

import math

import numpy as np
import pytest
import torch
from tests.method.families import FAMILIES, with_weights
from tests.method.reference import CLASSES, TRIALS, gradients, normal

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
PRECISIONS = ("fixed", "linear", "log-linear")
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


def law(decoder, z):
    """N(m, s^-2) at z, of a decoder of ours."""
    heads = [jnp.asarray(weight.detach().numpy()) for weight in decoder.parameters()]
    mean = z @ heads[0].T + heads[1]
    if isinstance(decoder, FixedVarianceDecoder):
        return dist.Normal(mean, math.sqrt(VARIANCE)).to_event(1)
    value = z @ heads[2].T + heads[3]
    scale = 1 / jnp.abs(value) if isinstance(decoder, LinearPrecisionDecoder) else jnp.exp(-value)
    return dist.Normal(mean, scale).to_event(1)


def make(name, precision):
    identity = Standardization.identity(D, 1e3)
    if precision == "fixed":
        return with_weights(FixedVarianceDecoder(LATENTS[name], D, VARIANCE), 262, 0.4, 0.4)
    kind = LinearPrecisionDecoder if precision == "linear" else LogLinearPrecisionDecoder
    # Samples far out have large gradients, those of log|s| have no variance where s comes close to 0.
    decoder = with_weights(kind(LATENTS[name], identity), 262, 0.4, 0.4, 0.12, 0.4)
    if precision == "linear":
        torch.nn.init.constant_(decoder.precision_head.bias, 2.0)
    return decoder


def estimates(elbo, name, decoder):
    """``REPEATS`` estimates of the bound summed over images, and of its gradient by the posterior's parameters."""

    def generate():
        with numpyro.plate("images", B):
            z = numpyro.sample("z", prior_law(name))
            numpyro.sample("x", law(decoder, code(name, z)), obs=jnp.asarray(X.numpy()))

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


def assert_within_error(drawn, truth, largest):
    """Every mean within the bound, and a bound that says something: of at most ``largest`` times the largest truth."""
    error = drawn.std(0) / REPEATS**0.5
    assert Z_BOUND * error.max() < largest * truth.abs().max()
    assert ((drawn.mean(0) - truth).abs() < Z_BOUND * error + 1e-9).all()


TILTED = [name for name, family in FAMILIES.items() if family.has_tilted_moments()]
CASES = [
    *[("Trace_ELBO", name, "fixed", None) for name in FAMILIES if name not in ("laplace", "uniform")],
    *[("Trace_ELBO", name, "fixed", 0.2) for name in ("laplace", "uniform")],
    *[("Trace_ELBO", name, "log-linear", None) for name in TILTED],
    # The second takes the divergence in closed form, as it is taken here.
    *[(kind, "gaussian", each, 0.1) for kind in ("Trace_ELBO", "TraceMeanField_ELBO") for each in PRECISIONS],
    *[("TraceGraph_ELBO", name, "fixed", 0.3) for name in ("bernoulli", "binomial", "poisson", "categorical")],
]
"""NumPyro's estimator, family, precision and how much of the largest gradient its error may be; None: bounds alone."""


@pytest.mark.parametrize(("elbo", "name", "precision", "largest"), CASES)
def test_bounds_and_gradients(elbo, name, precision, largest):
    decoder, parameters = make(name, precision), PARAMETERS[name].clone().requires_grad_()
    q, objective = FAMILIES[name](parameters), decoder.objective(X)
    assert objective.is_exact(q)
    bound = (objective.expectation(q) - q.kl_divergence()).sum()
    values, slopes = estimates(getattr(infer, elbo)(num_particles=PARTICLES), name, decoder)
    assert_within_error(values, bound.detach(), 0.05 if elbo != "TraceGraph_ELBO" else 0.3)
    if largest is not None:
        assert_within_error(slopes, gradients(bound, parameters)[0], largest)
