"""What every estimator of the registry must do; a new one joins by being registered."""

import dataclasses
import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.method.families import FAMILIES, LATENTS, extreme_parameters, with_weights
from tests.method.reference import (
    DOUBLE,
    expectation,
    fixed_variance_log_density,
    gradients,
    linear_precision_log_density,
    log_linear_precision_log_density,
    normal,
    seeded,
)
from torch import Tensor, nn
from torch.distributions import Normal

from silent_gradients import (
    Decoder,
    ExactObjective,
    FixedVarianceDecoder,
    GaussianLikelihood,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    Objective,
    Standardization,
    TwoLayerDecoder,
)
from silent_gradients.estimators import REGISTRY, EstimatorError, create, register
from silent_gradients.estimators.contract import SampledEstimator
from silent_gradients.latent_noise import PreparedNoise, RecordedNoise
from silent_study.settings import PosteriorFamily

IMAGES, COPIES, CALLS = 2, 256, 60
DIMENSIONS = 3
SPREADS = {"gaussian": 0.5, "poisson": 0.5, "laplace": 0.3}
PARAMETERS = {
    name: normal(IMAGES, LATENTS[name] * family.parameters_per_latent, seed=71, scale=SPREADS.get(name, 1.0))
    for name, family in FAMILIES.items()
}
PARAMETERS["laplace"] -= 0.3  # narrow enough for means of samples
X = normal(IMAGES, DIMENSIONS, seed=72)
CPU = torch.device("cpu")


class Smooth(Decoder):
    """p(x|z) = N(tanh(W z + b), 1/2): nonlinear, known at samples only."""

    def __init__(self, latent_dim):
        super().__init__(latent_dim, DIMENSIONS)
        self.linear = nn.Linear(latent_dim, DIMENSIONS)

    def likelihood(self, z):
        precision_squared = torch.full((1,), 2.0, dtype=z.dtype)
        return GaussianLikelihood(torch.tanh(self.linear(z)), 0.5 * precision_squared.log(), precision_squared)


@dataclasses.dataclass
class Problem:
    """An objective for any number of copies of the images, its own parameters and an independent definition."""

    objective: Callable[[Tensor], Objective]
    parameters: list[Tensor]
    definition: Callable[[Tensor], Tensor]


def smooth_problem(family):
    decoder = with_weights(Smooth(LATENTS[family]), 73)
    weight, bias = decoder.parameters()

    def density(z):
        return Normal(torch.tanh(z @ weight.T + bias), 0.5**0.5).log_prob(X).sum(-1)

    return Problem(decoder.objective, [weight, bias], density)


def fixed_problem(family):
    decoder = with_weights(FixedVarianceDecoder(LATENTS[family], DIMENSIONS, 0.5), 75)
    weight, bias = decoder.linear.weight, decoder.linear.bias
    return Problem(
        decoder.objective, [weight, bias], lambda z: fixed_variance_log_density(z, X, weight, bias, 0.5).sum(-1)
    )


def heads_problem(kind, density, family, precision_scale, bias, seed):
    """A decoder of two linear heads, by its definition."""
    identity = Standardization.identity(DIMENSIONS, 1000.0)
    decoder = with_weights(kind(LATENTS[family], identity), seed, 0.5, 1.0, precision_scale, 1.0)
    decoder.precision_head.bias.data.copy_(bias)
    heads = list(decoder.parameters())
    return Problem(decoder.objective, heads, lambda z: density(z, X, heads).sum(-1))


def precision_problem(family):
    """Precisions of at least seven deviations: the sampled gradient of log|s| has no mean where s may vanish."""
    bias = torch.full((DIMENSIONS,), 1.5)
    problem = heads_problem(LinearPrecisionDecoder, linear_precision_log_density, family, 0.1, bias, 77)
    q, weight = FAMILIES[family](PARAMETERS[family]), problem.parameters[2].detach()
    mean, variance = q.mean @ weight.T, q.linear_variance(weight)
    assert ((mean + 1.5) / variance.sqrt()).min() > 7 or family not in get_args(PosteriorFamily)
    return problem


def log_linear_problem(family):
    bias = normal(DIMENSIONS, seed=90, scale=0.2)
    return heads_problem(LogLinearPrecisionDecoder, log_linear_precision_log_density, family, 0.2, bias, 87)


def squares_problem(family):
    decoder = TwoLayerDecoder(LATENTS[family], DIMENSIONS, 3, "square", 0.5, learned_variance=True)
    with_weights(decoder, 92, 0.3, *[0.4] * 5)
    return Problem(decoder.objective, list(decoder.parameters()), lambda z: decoder.likelihood(z).log_prob(X))


EXACT = {
    "fixed-variance": set(FAMILIES),
    "squares": set(FAMILIES) - {"categorical"},
    "linear-precision": {"gaussian"},
    "log-linear-precision": set(FAMILIES) - {"laplace"},
}
"""Families under which the closed forms are the true expectations."""
PROBLEMS = {
    "smooth": smooth_problem,
    "fixed-variance": fixed_problem,
    "squares": squares_problem,
    "linear-precision": precision_problem,
    "log-linear-precision": log_linear_problem,
}


WITHOUT = {("laplace", "log-linear-precision"), ("categorical", "squares")}
"""Families without an expectation."""


SAMPLED = [name for name, estimator in REGISTRY.items() if issubclass(estimator, SampledEstimator)]
VARIANTS: list[tuple[str, dict[str, float]]] = [(name, {}) for name in REGISTRY]
VARIANTS += [(name, {"samples": 3}) for name in SAMPLED]


def served(name):
    return [family for family in FAMILIES if REGISTRY[name].supports(FAMILIES[family])]


def cases(*, only_unbiased=False):
    found = []
    for name, options in VARIANTS:
        for family in served(name):
            exact, of_the_paper = REGISTRY[name].exact, family in get_args(PosteriorFamily)
            if exact:
                problems = [p for p in PROBLEMS if p != "smooth" and (family, p) not in WITHOUT]
                problems = [p for p in problems if family in EXACT[p]] if only_unbiased else problems
            elif only_unbiased and of_the_paper and not options:
                problems = list(PROBLEMS)
            else:  # what others tell is of the problem, not of the family or the number of samples
                problems = ["smooth"] if options else ["smooth", "fixed-variance"]
            for problem in problems if REGISTRY[name].unbiased or not only_unbiased else []:
                label = "-".join([name, *(f"{k}={v}" for k, v in options.items()), family, problem])
                found.append(pytest.param(name, options, family, problem, id=label))
    return found


CONTROLS = {family: fixed_problem(family) for family in LATENTS}


def control(family, copies):
    return CONTROLS[family].objective(X.repeat(copies, 1))


def call(estimator, family, parameters, objective, state, generator):
    copies = len(parameters) // IMAGES
    return estimator(
        FAMILIES[family](parameters),
        objective,
        control=control(family, copies),
        index=torch.arange(len(parameters)),
        generator=generator,
        state=state,
    )


@pytest.mark.parametrize(("name", "options", "family", "problem"), cases(only_unbiased=True))
def test_mean_gradient_and_value_are_the_true_ones(name, options, family, problem):
    estimator, setting = create(name, options), PROBLEMS[problem](family)
    objective = setting.objective(X.repeat(COPIES, 1))
    parameters = PARAMETERS[family].clone().requires_grad_()
    wanted = [parameters, *setting.parameters]
    truth = expectation(family, parameters, setting.definition)
    exact = torch.cat([truth.detach(), *(g.flatten() for g in gradients(truth.sum(), *wanted))])

    state, generator, estimates = estimator.initial_state(CPU, COPIES * IMAGES), seeded(80), []
    for _ in range(2 if estimator.exact else CALLS):
        value, surrogate, state = call(estimator, family, parameters.repeat(COPIES, 1), objective, state, generator)
        slopes = gradients(surrogate.sum() / COPIES, *wanted)
        estimates.append(torch.cat([value.view(COPIES, IMAGES).mean(0), *(g.flatten() for g in slopes)]))
    drawn = torch.stack(estimates)
    error = drawn.std(0) / math.sqrt(len(drawn))
    scale = exact.abs().max()
    # The rational fits of the exact log term and of its slopes are within 2e-6.
    slack = (2e-6 if problem == "linear-precision" and estimator.exact else 1e-11) * scale
    assert ((drawn.mean(0) - exact).abs() <= 5 * error + slack).all(), (drawn.mean(0) - exact) / error
    # The test would see a bias of a few percent.
    assert 5 * error.max() < 0.2 * scale


@pytest.mark.parametrize(("name", "options", "family", "problem"), cases())
def test_shapes_value_and_evaluations(name, options, family, problem):
    estimator, setting = create(name, options), PROBLEMS[problem](family)
    parameters = PARAMETERS[family].clone().requires_grad_()
    inner = setting.objective(X)
    counted = []

    class Counting:
        decoder, x = inner.decoder, inner.x

        def sampled(self, z):
            assert z.shape[1:] == (IMAGES, LATENTS[family])
            counted.append(len(z))
            value = inner.sampled(z)
            assert value.shape == z.shape[:2]
            return value

        def expectation(self, q):
            assert isinstance(inner, ExactObjective)
            return inner.expectation(q)

        def is_exact(self, q):
            assert isinstance(inner, ExactObjective)
            return inner.is_exact(q)

    initial, given = estimator.initial_state(CPU, IMAGES), estimator.initial_state(CPU, IMAGES)
    value, surrogate, state = call(estimator, family, parameters, Counting(), given, seeded(81))
    assert value.shape == surrogate.shape == (IMAGES,)
    assert not value.requires_grad
    assert surrogate.requires_grad
    assert sum(counted) == estimator.evaluations(LATENTS[family])
    assert estimator.exact == (sum(counted) == 0)
    for slope in gradients(surrogate.sum(), parameters, *setting.parameters):
        assert torch.isfinite(slope).all()
        assert slope.abs().max() > 0
    assert all(isinstance(entry, Tensor) and not entry.requires_grad for entry in state.values())
    assert {key: entry.shape for key, entry in state.items()} == {key: entry.shape for key, entry in initial.items()}
    # The state that it was given is left alone.
    assert given.keys() == initial.keys()
    assert all(torch.equal(given[key], initial[key]) for key in initial)


@pytest.mark.parametrize(("name", "options", "family", "problem"), cases())
def test_generator_decides_everything_and_the_parameters_of_the_control_get_no_gradient(name, options, family, problem):
    estimator, setting = create(name, options), PROBLEMS[problem](family)
    objective = setting.objective(X)
    parameters = PARAMETERS[family].clone().requires_grad_()

    def estimate(seed):
        state, generator, found = estimator.initial_state(CPU, IMAGES), seeded(seed), []
        for _ in range(3):
            value, surrogate, state = call(estimator, family, parameters, objective, state, generator)
            found += [value, *gradients(surrogate.sum(), parameters, *setting.parameters), *state.values()]
            for slope in gradients(surrogate.sum(), *CONTROLS[family].parameters):
                assert torch.equal(slope, torch.zeros_like(slope))
        return found

    global_state = torch.get_rng_state()
    first, again, other = (estimate(seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), global_state)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert estimator.exact == all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", REGISTRY)
def test_steps_of_several_runs_map_into_one(name):
    """Runs that are trained side by side, each with parameters, state, images and noise of its own."""
    runs, estimator = 3, create(name)
    if not estimator.mappable:
        return
    for family in served(name):
        if family == "poisson":
            continue  # its samples need a generator
        parameters = torch.stack([PARAMETERS[family] + run for run in range(runs)]).requires_grad_()
        index = torch.tensor([[0, 1], [1, 0], [4, 2]])
        recorded = RecordedNoise()
        setting, initial = fixed_problem(family), estimator.initial_state(CPU, 5)

        def estimate(parameters, index, state, generator, family=family, setting=setting):
            return estimator(
                FAMILIES[family](parameters),
                setting.objective(X),
                control=CONTROLS[family].objective(X),
                index=index,
                generator=generator,
                state=state,
            )

        # The second step of each run: what is carried differs.
        states = [estimate(parameters[run], index[run], initial, seeded(run)).state for run in range(runs)]
        estimate(parameters[0], index[0], initial, recorded)
        noise = [
            torch.stack([request.draw(source, CPU) for source in map(seeded, range(10, 10 + runs))])
            for request in recorded.requests
        ]

        def mapped(parameters, index, state, noise, estimate=estimate, requests=recorded.requests):
            return tuple(estimate(parameters, index, state, PreparedNoise(requests, noise)))

        stacked = {key: torch.stack([state[key] for state in states]) for key in initial}
        value, surrogate, state = torch.vmap(mapped)(parameters, index, stacked, noise)
        (slopes,) = gradients(surrogate.sum(), parameters)
        for run in range(runs):
            alone = PreparedNoise(recorded.requests, [each[run] for each in noise])
            own = estimate(parameters[run], index[run], states[run], alone)
            torch.testing.assert_close(value[run], own.value, rtol=1e-12, atol=1e-12)
            slope = gradients(own.surrogate.sum(), parameters)[0][run]
            torch.testing.assert_close(slopes[run], slope, rtol=1e-11, atol=1e-11)
            for key, entry in own.state.items():
                torch.testing.assert_close(state[key][run], entry)


@pytest.mark.parametrize("name", [name for name, estimator in REGISTRY.items() if estimator.needs_control])
def test_a_missing_control_is_named(name):
    estimator, family = create(name), served(name)[0]
    objective = smooth_problem(family).objective(X)
    for missing in (None, objective):
        with pytest.raises(EstimatorError, match=rf"control.*'{name}'.*{type(missing).__name__}"):
            estimator(
                FAMILIES[family](PARAMETERS[family]),
                objective,
                control=missing,
                generator=seeded(88),
                state=estimator.initial_state(CPU, IMAGES),
            )


@pytest.mark.parametrize("name", [name for name, estimator in REGISTRY.items() if estimator.exact])
def test_an_objective_without_an_expectation_is_refused_where_one_is_needed(name):
    q, objective = FAMILIES["bernoulli"](PARAMETERS["bernoulli"]), smooth_problem("bernoulli").objective(X)
    with pytest.raises(EstimatorError, match=r"exact expectation.*SampledObjective"):
        create(name)(q, objective, state={})


@pytest.mark.parametrize("images", [1, IMAGES])
@pytest.mark.parametrize("name", REGISTRY)
def test_float32_is_close_to_float64(name, images, monkeypatch):
    """The same noise in both."""
    for source in ("rand", "randn"):
        draw = getattr(torch, source)
        single = lambda shape, *, dtype, draw=draw, **options: draw(shape, dtype=torch.float32, **options).to(dtype)  # noqa: E731
        monkeypatch.setattr(torch, source, single)
    for family in served(name):
        estimator, found = create(name), []
        for dtype in (torch.float32, DOUBLE):
            decoder = FixedVarianceDecoder(LATENTS[family], DIMENSIONS, 0.5).to(dtype)
            for parameter, value in zip(decoder.parameters(), CONTROLS[family].parameters, strict=True):
                parameter.data.copy_(value)
            parameters, x = PARAMETERS[family][:images].to(dtype).requires_grad_(), X[:images].to(dtype)
            state, generator = estimator.initial_state(CPU, IMAGES), seeded(89)
            for _ in range(3):
                value, surrogate, state = estimator(
                    FAMILIES[family](parameters),
                    decoder.objective(x),
                    control=decoder.objective(x + 0.1),
                    index=torch.arange(images),
                    generator=generator,
                    state=state,
                )
            found.append([value, surrogate, *gradients(surrogate.sum(), parameters, *decoder.parameters())])
        for position, (single, double) in enumerate(zip(*found, strict=True)):
            assert single.dtype == torch.float32
            if position != 1:  # a surrogate's value means nothing
                torch.testing.assert_close(single.double(), double, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", REGISTRY)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_extreme_posteriors_stay_finite(name, data):
    # Each of the paper's families, and one of the others.
    paper = [family for family in get_args(PosteriorFamily) if family in served(name)]
    others = [[family] for family in served(name) if family not in paper] or [[]]
    for family in paper + data.draw(st.sampled_from(others)):
        drawn = extreme_parameters(data, family, IMAGES, LATENTS[family])
        for dtype in (torch.float32, DOUBLE):
            parameters = torch.tensor(drawn, dtype=dtype).requires_grad_()
            estimator, decoder = create(name), FixedVarianceDecoder(LATENTS[family], DIMENSIONS, 0.01).to(dtype)
            state, generator = estimator.initial_state(CPU, IMAGES), seeded(data.draw(st.integers(0, 1000)))
            for _ in range(2):
                value, surrogate, state = estimator(
                    FAMILIES[family](parameters),
                    decoder.objective(X.to(dtype)),
                    control=decoder.objective(X.to(dtype) + 1),
                    index=torch.arange(IMAGES),
                    generator=generator,
                    state=state,
                )
                for found in (value, *gradients(surrogate.sum(), parameters, *decoder.parameters()), *state.values()):
                    assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", [name for name in REGISTRY if create(name).initial_state(CPU, IMAGES)])
def test_the_state_of_something_else_is_refused(name):
    estimator, family = create(name), served(name)[0]
    for missing in estimator.initial_state(CPU, IMAGES):
        state = {key: entry for key, entry in estimator.initial_state(CPU, IMAGES).items() if key != missing}
        with pytest.raises(EstimatorError, match=rf"state: estimator '{name}' needs '{missing}'"):
            call(estimator, family, PARAMETERS[family], fixed_problem(family).objective(X), state, seeded(90))


@pytest.mark.parametrize("name", REGISTRY)
def test_posteriors_that_are_not_served_are_refused(name):
    estimator = create(name)
    for family in set(FAMILIES) - set(served(name)):
        objective = fixed_problem(family).objective(X)
        with pytest.raises(EstimatorError, match=rf"q: .*'{name}'.*{family}"):
            call(estimator, family, PARAMETERS[family], objective, estimator.initial_state(CPU, IMAGES), seeded(84))


@pytest.mark.parametrize("name", REGISTRY)
def test_names_declarations_and_options(name):
    estimator = REGISTRY[name]
    assert estimator.name == name
    assert isinstance(estimator.unbiased, bool)
    assert isinstance(estimator.exact, bool)
    assert served(name)
    assert estimator.posteriors is None or estimator.posteriors <= set(FAMILIES)
    assert isinstance(create(name), estimator)
    with pytest.raises(EstimatorError, match=rf"{name}.*temprature"):
        create(name, {"temprature": 1.0})


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("samples", [0, -1, 1.5, math.nan, math.inf])
def test_impossible_numbers_of_samples(name, samples):
    with pytest.raises(EstimatorError, match="samples"):
        create(name, {"samples": samples})
    least = getattr(REGISTRY[name], "least_samples", 1)
    # Options are numbers of a settings file, where 2 may be written 2.0.
    made = create(name, {"samples": float(least)})
    assert repr(getattr(made, "samples", None)) == repr(least)
    with pytest.raises(EstimatorError, match=f"samples.*{least} or more"):
        create(name, {"samples": least - 1})


def test_unknown_names_list_the_known_ones():
    """The estimators of the paper among them."""
    with pytest.raises(EstimatorError, match=r"gumbel-softmax.*reinforce.*reparameterization.*silent.*'reinforced'"):
        create("reinforced")


def test_a_cell_of_a_notebook_may_be_run_again_and_other_estimators_keep_their_names(monkeypatch):
    monkeypatch.setattr("silent_gradients.estimators.contract.REGISTRY", dict(REGISTRY))
    rloo = REGISTRY["rloo"]
    again = type("Rloo", (rloo,), {"__module__": rloo.__module__, "__qualname__": rloo.__qualname__})
    assert register(again) is again
    with pytest.raises(EstimatorError, match=r"name: 'rloo' is that of silent_gradients.*Rloo; choose another"):
        register(type("Other", (rloo,), {"__module__": __name__}))


@pytest.mark.parametrize("family", ["bernoulli", "sign", "binomial", "categorical"])
@pytest.mark.parametrize("logit", [-17.0, 17.0])
def test_scores_of_saturated_bits_keep_their_digits(family, logit):
    """Estimates of float32 at the samples of float64."""
    slopes = []
    for dtype in (torch.float32, DOUBLE):
        parameters = torch.full((IMAGES, LATENTS[family]), -logit, dtype=dtype)
        parameters[:, ::3] = logit
        leaf = parameters.requires_grad_()
        z = FAMILIES[family](leaf.detach()).sample(1, seeded(91))
        slopes += [gradients(FAMILIES[family](leaf).log_prob(z).sum(), leaf)[0].double()]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=0)
    assert slopes[0].abs().min() > 0
