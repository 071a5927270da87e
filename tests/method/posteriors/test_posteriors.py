"""Posterior families: moments by enumeration and quadrature, laws by torch.distributions, and each family's own."""

import copy
import math
import pickle
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.method.families import EXTREMES, FAMILIES, LATENTS, extreme_parameters, family_parameters
from tests.method.reference import CLASSES, DOUBLE, TRIALS, expectation, gradients, normal, seeded
from torch import distributions
from torch.distributions import kl_divergence

from silent_gradients import (
    Bernoulli,
    Binomial,
    Categorical,
    FixedVarianceDecoder,
    Gaussian,
    Laplace,
    NonFiniteError,
    Poisson,
    Uniform,
    posteriors,
)
from silent_gradients.latent_noise import RecordedNoise
from silent_study.settings import PosteriorFamily

B, D = 3, 4
PARAMETERS = family_parameters(B, seed=201)


def test_families_are_known_by_name():
    assert set(PARAMETERS) == set(posteriors.FAMILIES)
    assert all(family.name == name for name, family in posteriors.FAMILIES.items())
    assert set(get_args(PosteriorFamily)) <= set(posteriors.FAMILIES)


def central(name, *functions):
    """E of the product of functions of z, each less its mean."""
    parameters = PARAMETERS[name]
    means = [expectation(name, parameters, function) for function in functions]
    return expectation(
        name, parameters, lambda z: math.prod(f(z) - mean for f, mean in zip(functions, means, strict=True))
    )


def fourth(name, m, s):
    """The fourth joint cumulant of (m, m, s, s)."""
    return central(name, m, m, s, s) - central(name, m, m) * central(name, s, s) - 2 * central(name, m, s) ** 2


@pytest.mark.parametrize("name", PARAMETERS)
def test_cumulants(name):
    """Of each coordinate, of a linear function, and of two of them."""
    q, a, b = FAMILIES[name](PARAMETERS[name]), normal(D, LATENTS[name], seed=11), normal(D, LATENTS[name], seed=12)
    one, m, s = (lambda z: z), (lambda z: z @ a.T), (lambda z: z @ b.T)
    variance_m = central(name, m, m)
    exact = [
        *(expectation(name, PARAMETERS[name], one), central(name, one, one), central(name, one, one, one)),
        *(fourth(name, one, one), variance_m, variance_m.sum(1), central(name, m, m, m), fourth(name, m, m)),
        *(expectation(name, PARAMETERS[name], m), expectation(name, PARAMETERS[name], s)),
        *(variance_m, central(name, s, s), central(name, m, s)),
        *(central(name, m, s, s), central(name, m, m, s), fourth(name, m, s)),
    ]
    found: list[Any] = [q.mean, q.variance, q.third_cumulant, q.fourth_cumulant]
    found += [q.linear_variance(a), q.total_variance(a), *q.higher_cumulants(a), *q.joint_cumulants(a, b)]
    assert found.count(None) == (5 if name == "gaussian" else 0)
    for own, wanted in zip(found, exact, strict=True):
        torch.testing.assert_close(torch.zeros_like(wanted) if own is None else own, wanted, rtol=1e-11, atol=1e-11)


def independent(base):
    return distributions.Independent(base, 1)


def law(name, parameters):
    """The same law as torch.distributions has it; signs as bits."""
    first, second = (parameters, parameters) if FAMILIES[name].parameters_per_latent == 1 else parameters.chunk(2, 1)
    match name:
        case "categorical":
            return independent(distributions.OneHotCategorical(logits=parameters.unflatten(1, (-1, CLASSES))))
        case "bernoulli" | "sign":
            return independent(distributions.Bernoulli(logits=parameters))
        case "gaussian":
            return independent(distributions.Normal(first, (0.5 * second).exp()))
        case "binomial":
            return independent(distributions.Binomial(TRIALS, logits=parameters))
        case "poisson":
            return independent(distributions.Poisson(parameters.exp()))
        case "laplace":
            return independent(distributions.Laplace(first, second.exp()))
        case _:
            low = first.sigmoid() * (1 - second.sigmoid())
            return independent(distributions.Uniform(low, low + second.sigmoid(), validate_args=False))


def prior(name, like):
    if name == "uniform":
        half = torch.zeros_like(like[:, like.shape[1] // 2 :])
        return independent(distributions.Uniform(half, half + 1, validate_args=False))
    return law(name, torch.zeros_like(like))


def as_torch(name, z):
    return z.unflatten(-1, (-1, CLASSES)) if name == "categorical" else (z + 1) / 2 if name == "sign" else z


@pytest.mark.parametrize("name", PARAMETERS)
def test_densities_match_torch_distributions(name):
    q = FAMILIES[name](PARAMETERS[name])
    z = q.sample(7, seeded(207))
    own, first = law(name, PARAMETERS[name]), prior(name, PARAMETERS[name])
    torch.testing.assert_close(q.log_prob(z), own.log_prob(as_torch(name, z)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(q.prior_log_prob(z), first.log_prob(as_torch(name, z)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PARAMETERS)
def test_divergence_matches_torch_distributions_and_enumeration(name):
    parameters = PARAMETERS[name].clone().requires_grad_()
    q, own = FAMILIES[name](parameters), law(name, parameters)
    exact = kl_divergence(own, prior(name, parameters))
    torch.testing.assert_close(q.kl_divergence(), exact, rtol=1e-11, atol=1e-12)
    found = gradients(q.kl_divergence().sum(), parameters)[0]
    torch.testing.assert_close(found, gradients(exact.sum(), parameters)[0], rtol=1e-10, atol=1e-11)
    if name != "laplace":  # its density has a kink, which a quadrature does not see
        ratio = expectation(name, parameters, lambda z: q.log_prob(z) - q.prior_log_prob(z))
        torch.testing.assert_close(q.kl_divergence(), ratio, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", PARAMETERS)
def test_sample_means_and_products(name):
    samples = 40_000
    q = FAMILIES[name](PARAMETERS[name])
    z = q.sample(samples, seeded(208))
    for function in (torch.clone, torch.square):
        drawn = function(z)
        exact = expectation(name, PARAMETERS[name], function)
        assert ((drawn.mean(0) - exact).abs() < 4.5 * drawn.std(0) / samples**0.5 + 1e-12).all()
    product = z[..., :1] * z
    exact = expectation(name, PARAMETERS[name], lambda z: z[..., :1] * z)
    assert ((product.mean(0) - exact).abs() < 4.5 * product.std(0) / samples**0.5 + 1e-12).all()
    low, high = q.support
    assert z.min() >= low
    assert z.max() <= high
    assert FAMILIES[name].has_rsample() or torch.equal(z, z.round())
    assert z.dtype == DOUBLE


@pytest.mark.parametrize("name", ["gaussian", "laplace", "uniform"])
def test_reparameterized_samples_move_with_their_distribution_function(name):
    """dz / dtheta = - (dF / dtheta) / density, for F the distribution function."""
    parameters = PARAMETERS[name].clone().requires_grad_()
    z = FAMILIES[name](parameters).rsample(4, seeded(209))
    leaf = PARAMETERS[name].clone().requires_grad_()
    own = law(name, leaf).base_dist
    fixed = z.detach()
    cotangent = normal(*z.shape, seed=210)
    density = own.log_prob(fixed).exp().detach()
    wanted = gradients((-own.cdf(fixed) / density * cotangent).sum(), leaf)[0]
    torch.testing.assert_close(gradients((z * cotangent).sum(), parameters)[0], wanted, rtol=1e-10, atol=1e-10)


def test_which_families_can_do_what():
    can = {name: (f.has_rsample(), f.has_tilted_moments(), f.has_fixed_support) for name, f in FAMILIES.items()}
    assert can == {
        "gaussian": (True, True, True),
        "bernoulli": (False, True, True),
        "categorical": (False, True, True),
        "sign": (False, True, True),
        "binomial": (False, True, True),
        "poisson": (False, True, True),
        "laplace": (True, False, True),
        "uniform": (True, True, False),
    }
    for name, (rsample, tilted, _) in can.items():
        q = FAMILIES[name](torch.zeros(1, 6 * FAMILIES[name].parameters_per_latent))
        for able, function in ((rsample, lambda q: q.rsample(1)), (tilted, lambda q: q.tilted_moments(q.mean, q.mean))):
            if not able:
                with pytest.raises(NotImplementedError, match=name):
                    function(q)


@pytest.mark.parametrize("name", PARAMETERS)
def test_divergence_is_positive_and_zero_at_the_prior(name):
    family = FAMILIES[name]
    assert (family(PARAMETERS[name]).kl_divergence() > 0).all()
    at_zero = torch.zeros(2, 6 * family.parameters_per_latent)
    prior = family(at_zero + (20 if name == "uniform" else 0)).kl_divergence()
    torch.testing.assert_close(prior, torch.zeros(2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PARAMETERS)
def test_samples_have_no_gradient_and_follow_the_generator(name):
    q = FAMILIES[name](PARAMETERS[name].clone().requires_grad_())
    state = torch.get_rng_state()
    first, again, other = (q.sample(3, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert not first.requires_grad
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_that_are_no_numbers(name):
    parameters = PARAMETERS[name].clone()
    FAMILIES[name](parameters).check_finite()
    parameters[0, 0], parameters[1, 1] = math.nan, -math.inf
    with pytest.raises(NonFiniteError, match=rf"parameters.*2 of {parameters.numel()}"):
        FAMILIES[name](parameters).check_finite()


RANGE = [-40.0, -30.0, -22.0, -17.5, -16.5, -14.0, -6.0, -0.5, 0.5, 6.0, 12.0, 14.0, 16.0, 16.5, 17.0, 22.0, 30.0, 40.0]
"""Values of a parameter; a probability of float32 rounds to 1 from 16.6 on."""


def quantities(q, z):
    """Values of a posterior, and its density at z [1, B, k]."""
    weight = normal(D, q.latent_dim, seed=216).to(q.mean.dtype)
    return {
        "mean": q.mean,
        "variance": q.variance,
        "third": q.third_cumulant,
        "fourth": q.fourth_cumulant,
        "divergence": q.kl_divergence(),
        "total variance": q.total_variance(weight),
        "density": q.log_prob(z.to(q.mean.dtype)),
    }


@pytest.mark.parametrize("name", PARAMETERS)
def test_values_and_gradients_of_float32_are_those_of_float64(name):
    """Each gradient in its own scale, also that of a bit whose probability rounds to 1."""
    family, k = FAMILIES[name], LATENTS[name]
    z = family(PARAMETERS[name]).sample(1, seeded(217))
    for number, extreme in enumerate(RANGE):
        parameters = 0.5 * PARAMETERS[name]
        parameters[:, number % parameters.shape[1]] = extreme
        parameters[0, (number + k - 1) % k] = -extreme
        low, high = (parameters.float().to(dtype).requires_grad_() for dtype in (torch.float32, DOUBLE))
        found, exact = quantities(family(low), z), quantities(family(high), z)
        for what, double in exact.items():
            largest = float(double.detach().abs().max())
            if not largest < 1e30:  # squares and fourth powers of wide posteriors leave float32's range
                continue
            torch.testing.assert_close(found[what].double(), double, rtol=1e-5, atol=2e-6 * largest)
            if double.requires_grad:
                # A small difference of larger numbers: the slope of the divergence of a wide Laplace by its location.
                absolute = 1e-6 if (name, what) == ("laplace", "divergence") else 1e-9
                cotangent = normal(*double.shape, seed=218)
                single = gradients((found[what] * cotangent.float()).sum(), low)[0]
                (slope,) = gradients((double * cotangent.float()).sum(), high)
                bound = absolute * float(slope.abs().max()) + 1e-37
                torch.testing.assert_close(single.double(), slope, rtol=1e-2, atol=bound)


def test_saturated_bits_recover_on_either_side():
    """A bit at logit 18 gets the gradient that its mirror image at -18 gets."""
    objective, p = FixedVarianceDecoder(1, 1, 0.5).objective(torch.zeros(1, 1)), 1 / (1 + math.exp(18))
    with torch.no_grad():
        objective.decoder.linear.weight.fill_(1.0)
        objective.decoder.linear.bias.zero_()
    for logit in (-18.0, 18.0):
        leaf = torch.tensor([[logit]], requires_grad=True)
        q, z = Bernoulli(leaf), torch.full((1, 1, 1), float(logit > 0))
        values = objective.expectation(q), q.mean, q.log_prob(z)
        slopes = [float(gradients(value.sum(), leaf)[0]) for value in values]
        assert slopes == pytest.approx([-p, p, math.copysign(p, logit)], rel=1e-5)


def test_poisson_samples_are_not_drawn_beforehand():
    with pytest.raises(ValueError, match=r"noise: .*Poisson.*RecordedNoise"):
        Poisson(torch.zeros(1, 2)).sample(1, RecordedNoise())


def test_the_classes_of_a_group_depend_on_each_other():
    """Taken for independent bits they would have another variance by far."""
    q, weight = FAMILIES["categorical"](PARAMETERS["categorical"]), normal(D, 6, seed=214)
    own, bits = q.linear_variance(weight), torch.nn.functional.linear(q.variance, weight.square())
    assert ((own - bits).abs() / own).max() > 0.3


NARROWER = EXTREMES | {
    "laplace": [
        st.sampled_from([-100.0, -1.0, -1e-30, 0.0, 1e-30, 2.0, 100.0]),
        st.sampled_from([-1e4, -104.0, -50.0, -1.0, 0.0, 1.0, 5.0]),
    ],
    "poisson": [st.sampled_from([-1e4, -104.0, -17.0, 0.0, 1.0, 5.0])],
}


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"gaussian", "bernoulli"}))
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_extremes_are_finite_and_those_of_float64(name, data):
    latents = 6
    drawn = extreme_parameters(data, name, 1, latents, NARROWER)
    weight = normal(2, latents, seed=219)
    found = []
    for dtype in (torch.float32, DOUBLE):
        parameters = torch.tensor(drawn, dtype=dtype).requires_grad_()
        q, w = FAMILIES[name](parameters), weight.to(dtype)
        values: list[Any] = [q.kl_divergence(), q.total_variance(w), q.linear_variance(w)]
        values += [*q.higher_cumulants(w), *q.joint_cumulants(w, w.flip(0))]
        if q.has_tilted_moments():
            values += q.tilted_moments(w, 0.3 * w.flip(0))
        slopes = [gradients(value.sum(), parameters)[0] for value in values if value.requires_grad]
        found.append([value.detach() for value in (*values, *slopes)])
    for single, double in zip(*found, strict=True):
        assert torch.isfinite(double).all()
        if double.abs().max() < 1e37:
            assert torch.isfinite(single).all()
            torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4 * float(double.abs().max()) + 1e-5)


@pytest.mark.parametrize("name", ["bernoulli", "categorical", "sign", "binomial"])
def test_certain_variables_are_constant(name):
    q = FAMILIES[name](torch.tensor([[-200.0, 200.0, -200.0]]))
    z = q.sample(1000, seeded(220))
    assert torch.equal(z, z[:1].expand_as(z))
    assert torch.equal(z[0], q.mean)
    torch.testing.assert_close(q.log_prob(z), torch.zeros(1000, 1))


def test_samples_at_the_ends_of_the_noise(monkeypatch):
    """torch.rand may return 0: no sample is infinite, and one class is set all the same."""
    monkeypatch.setattr(torch, "rand", lambda shape, *, dtype, **_: torch.zeros(shape, dtype=dtype))
    z = Laplace(torch.zeros(1, 2)).rsample(3)
    assert torch.isfinite(z).all()
    assert (z.abs() > 10).all()
    assert torch.equal(FAMILIES["categorical"](torch.zeros(1, 6)).sample(1).sum(-1), torch.full((1, 1), 2.0))
    assert (Uniform(torch.zeros(1, 2)).log_prob(Uniform(torch.zeros(1, 2)).sample(1)) < math.inf).all()


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(place=st.floats(-200, 200, width=32), size=st.floats(-200, 200, width=32), seed=st.integers(0, 100))
def test_uniform_samples_lie_in_their_interval_after_rounding(place, size, seed):
    q = Uniform(torch.tensor([[place, size]]))
    z = q.sample(50, seeded(seed))
    assert torch.isfinite(q.log_prob(z)).all()
    assert torch.equal(q.prior_log_prob(z), torch.zeros(50, 1))


def test_points_outside_an_interval_have_no_density():
    q = Uniform(torch.zeros(1, 4))
    z = torch.tensor([[[0.5, 0.2]], [[0.5, 1.2]]])
    assert torch.equal(q.log_prob(z), torch.full((2, 1), -math.inf))
    assert q.prior_log_prob(z).flatten().tolist() == [0, -math.inf]


def test_options_are_class_attributes():
    class Tens(Binomial):
        trials = 10

    for family, trials in ((Tens, 10), (Binomial.of(10), 10), (Binomial, 2)):
        assert family.trials == trials
        assert family.support == (0, trials)
    assert Binomial.of(10)(torch.zeros(1, 2)).mean.tolist() == [[5, 5]]
    assert Categorical.of(5).__name__ == "Categorical5"


@pytest.mark.parametrize("family", [Categorical.of(3), Binomial.of(10), Categorical, Gaussian])
def test_families_of_an_option_are_the_same_class_and_pickled_by_name(family):
    assert Categorical.of(3) is Categorical.of(3) is not Categorical.of(4)
    assert pickle.loads(pickle.dumps(family)) is family
    assert copy.deepcopy(family) is family
    with pytest.raises(AttributeError, match="Categorical3x"):
        pickle.loads(b"csilent_gradients.posteriors.categorical\nCategorical3x\n.")
