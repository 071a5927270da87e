"""Every linear decoder under every posterior: its expectation is the average of its own density, by another way."""

import inspect

import pytest
import torch
from tests.method.families import FAMILIES
from tests.method.reference import DOUBLE, expectation, gradients, normal, relative

from silent_gradients.decoders import LINEAR_DECODERS, ExactObjective, Standardization
from silent_gradients.posteriors import ShapeError

B, D = 2, 3
PARAMETERS = {
    "bernoulli": normal(B, 4, seed=300),
    "gaussian": normal(B, 2 * 2, seed=301, scale=0.5),
    "categorical": normal(B, 2 * 3, seed=302),
    "sign": normal(B, 4, seed=303),
    "binomial": normal(B, 2, seed=304),
    "poisson": normal(B, 2, seed=305, scale=0.3),
    "laplace": normal(B, 2 * 2, seed=306, scale=0.3),
    "uniform": normal(B, 2 * 2, seed=307),
}
X = normal(B, D, seed=308)
SCALE = Standardization(normal(D, seed=309).float(), torch.tensor([0.5, 1.0, 2.0]), 1000.0)
NOISE = 0.01


def latent_dim(family):
    return FAMILIES[family](PARAMETERS[family]).latent_dim


def decoder(name, family):
    """With weights that keep a linear precision many deviations from zero, where log|s| can be averaged at nodes."""
    kind = LINEAR_DECODERS[name]
    k = latent_dim(family)
    fixed = "variance" in inspect.signature(kind).parameters
    made = (kind(k, D, 0.5, SCALE.mean) if fixed else kind(k, SCALE)).double()  # type: ignore[call-arg, arg-type]
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            parameter.add_(0.05 * normal(*parameter.shape, seed=310 + number))
    return made


def exact_cases():
    found = []
    for name in LINEAR_DECODERS:
        for family, parameters in PARAMETERS.items():
            objective = decoder(name, family).objective(X)
            assert isinstance(objective, ExactObjective)
            if objective.is_exact(FAMILIES[family](parameters)):
                found.append((name, family))
    return found


def test_every_family_has_parameters_here():
    assert set(PARAMETERS) == set(FAMILIES)


def test_a_decoder_is_exact_somewhere_or_a_bound():
    exact = {name for name, _ in exact_cases()}
    assert exact == set(LINEAR_DECODERS) - {"positive-precision"}
    assert {family for name, family in exact_cases() if name == "fixed-variance"} == set(FAMILIES)


@pytest.mark.parametrize("noise", [0.0, NOISE])
@pytest.mark.parametrize(("name", "family"), exact_cases())
def test_expectations_are_averages_of_the_density(name, family, noise):
    made = decoder(name, family)
    parameters = PARAMETERS[family].clone().requires_grad_()
    objective = made.objective(X, noise)
    assert isinstance(objective, ExactObjective)
    found = objective.expectation(FAMILIES[family](parameters))

    # The noise's part by hand: its variance times that of a unit of squared error.
    def averaged(z):
        likelihood = made.likelihood(z)
        error = (0.5 * noise * likelihood.precision_squared).expand(*z.shape[:2], D).sum(-1)
        return likelihood.log_prob(X) - error

    truth = expectation(family, parameters, averaged)
    assert found.dtype == DOUBLE
    assert relative(found, truth) < 2e-6
    wanted = [parameters, *made.parameters()]
    for mine, theirs in zip(gradients(found.sum(), *wanted), gradients(truth.sum(), *wanted), strict=True):
        assert relative(mine, theirs) < 2e-5


@pytest.mark.parametrize("family", PARAMETERS)
@pytest.mark.parametrize("name", LINEAR_DECODERS)
def test_wrong_shapes_are_named(name, family):
    objective = decoder(name, family).objective(X)
    k = latent_dim(family)
    with pytest.raises(ShapeError, match=rf"z: .*{k}"):
        objective.sampled(torch.zeros(1, B, k + 1, dtype=DOUBLE))
    assert isinstance(objective, ExactObjective)
    with pytest.raises(ShapeError, match=rf"{B + 1}"):
        objective.expectation(FAMILIES[family](PARAMETERS[family][[0, 0, 1]]))
