"""Every decoder with an expectation under every posterior: it is the average of the density, found another way."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.method.families import FAMILIES, LATENTS, family_parameters, with_weights
from tests.method.reference import (
    DOUBLE,
    codes,
    expectation,
    fixed_variance_log_density,
    gradients,
    linear_precision_log_density,
    log_linear_precision_log_density,
    normal,
    relative,
    seeded,
)
from torch import nn

from silent_gradients import (
    BernoulliDecoder,
    ExactObjective,
    FactorAnalysisDecoder,
    FixedVarianceDecoder,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    PositivePrecisionDecoder,
    ShapeError,
    Standardization,
    TwoLayerDecoder,
    limits,
)

B, D, R = 3, 4, 5
PARAMETERS = family_parameters(B, seed=300)
X = normal(B, D, seed=308)
BITS = (X > 0).double()
IDENTITY = Standardization.identity(D, 1000.0)
SCALE = Standardization(normal(D, seed=309).float(), torch.tensor([0.5, 1.0, 2.0, 0.1]), 1000.0)
NOISE, VARIANCE = 1 / (12 * 5**2), 0.3
KINDS = {
    "fixed-variance": lambda k, scale=IDENTITY, **_: FixedVarianceDecoder(k, len(scale.mean), VARIANCE, scale.mean),
    "factor-analysis": lambda k, scale=IDENTITY, **_: FactorAnalysisDecoder(
        k, len(scale.mean), scale.scale.square(), scale.mean
    ),
    "linear-precision": LinearPrecisionDecoder,
    "log-linear-precision": LogLinearPrecisionDecoder,
    "positive-precision": PositivePrecisionDecoder,
    **{
        f"{activation}s": lambda k, scale=IDENTITY, activation=activation: TwoLayerDecoder(
            k, len(scale.mean), R, activation, VARIANCE, learned_variance=True
        )
        for activation in ("square", "cosine")
    },
    "bits": lambda k, scale=IDENTITY: BernoulliDecoder(k, len(scale.mean)),
}
LEARNED = [name for name in KINDS if name.endswith("precision")]
LINEAR = [name for name in KINDS if name not in ("squares", "cosines", "bits")]


def make(name, family, scale=IDENTITY, spread=0.3):
    """A decoder whose weights keep a linear precision many deviations from zero if the spread is 0.02."""
    decoder = KINDS[name](LATENTS[family], scale).double()
    if name not in LINEAR:
        # Laguerre's quadrature of fast cosines is coarse.
        size = 0.15 if (name, family) == ("cosines", "laplace") else 0.5
        return with_weights(decoder, 310, *[size] * len(list(decoder.parameters())))
    with torch.no_grad():
        for number, parameter in enumerate(decoder.parameters()):
            # The heads' parameters are (A, a, B, c), of which the last two are the precision's.
            parameter.add_((spread if number > 1 else 1.0) * normal(*parameter.shape, seed=310 + number))
    return decoder


def served(name):
    return [family for family in FAMILIES if name != "positive-precision" or FAMILIES[family].support == (0.0, 1.0)]


WITHOUT = [("log-linear-precision", "laplace"), ("squares", "categorical")]
"""Families without an expectation."""
CASES = [(name, family) for name in KINDS for family in served(name) if (name, family) not in WITHOUT]


def images(name):
    return BITS if name == "bits" else X


def density(name, decoder, z):
    """The density of the images at z by its definition, [S, B]."""
    if name == "bits":
        return torch.distributions.Bernoulli(logits=decoder.linear(z)).log_prob(BITS).sum(-1)
    if name not in LINEAR:
        inner = z @ decoder.hidden.weight.T + decoder.hidden.bias
        mean = decoder.linear(z) + (inner**2 if name == "squares" else inner.cos()) @ decoder.output.weight.T
        return torch.distributions.Normal(mean, (-decoder.log_precision).exp()).log_prob(X).sum(-1)
    if name == "fixed-variance":
        return fixed_variance_log_density(z, X, decoder.linear.weight, decoder.linear.bias, VARIANCE).sum(-1)
    if name == "factor-analysis":
        deviation = (-decoder.log_precision).exp()
        return torch.distributions.Normal(decoder.linear(z), deviation).log_prob(X).sum(-1)
    weight, bias = decoder.precision_head.weight, decoder.precision_head.bias
    if name == "positive-precision":  # the least precision over all codes is softplus of the bias
        bias = 1e-6 + torch.log1p(bias.exp()) - (codes(weight.shape[1]) @ weight.T).amin(0)
    scale = decoder.scale[:, None]
    heads = [scale * decoder.mean_head.weight, decoder.mean + decoder.scale * decoder.mean_head.bias]
    if name[:3] == "log":
        return log_linear_precision_log_density(z, X, (*heads, weight, bias - decoder.scale.log())).sum(-1)
    return linear_precision_log_density(z, X, (*heads, weight / scale, bias / decoder.scale)).sum(-1)


@pytest.mark.parametrize("name", KINDS)
def test_a_decoder_is_exact_somewhere_or_a_bound(name):
    posteriors = {family: FAMILIES[family](parameters) for family, parameters in PARAMETERS.items()}
    exact = {family for family, q in posteriors.items() if make(name, family).objective(images(name)).is_exact(q)}
    expected = {
        "fixed-variance": set(FAMILIES),
        "factor-analysis": set(FAMILIES),
        "linear-precision": {"gaussian"},
        "log-linear-precision": set(FAMILIES) - {"laplace"},
        "positive-precision": set(),
        "squares": set(FAMILIES) - {"categorical"},
        "cosines": set(FAMILIES),
        "bits": {"gaussian"},
    }
    assert exact == expected[name]


NORMAL = ("linear-precision", "bits")
"""Exact under Gaussian posteriors alone."""
EXACT = [(name, family) for name, family in CASES if name != "positive-precision"]
EXACT = [(name, family) for name, family in EXACT if name not in NORMAL or family == "gaussian"]
TOLERANCES = {"linear-precision": (2e-6, 2e-5), "bits": (1e-8, 1e-6)}
TOLERANCES |= dict.fromkeys(("squares", "cosines"), (1e-11, 1e-9))
"""Of values and of gradients; a normal precision's log term is a rational fit."""


@pytest.mark.parametrize("scale", [IDENTITY, SCALE])
@pytest.mark.parametrize(("name", "family"), EXACT)
def test_expectations_and_gradients_are_averages_of_the_density(name, family, scale):
    decoder = make(name, family, scale, 0.02 if name == "linear-precision" else 0.3)
    parameters = PARAMETERS[family].clone().requires_grad_()
    objective = decoder.objective(images(name))
    assert isinstance(objective, ExactObjective)
    found = objective.expectation(FAMILIES[family](parameters))
    truth = expectation(family, parameters, lambda z: decoder.likelihood(z).log_prob(images(name)))
    assert found.shape == (B,)
    assert found.dtype == DOUBLE
    tolerance, of_slopes = TOLERANCES.get(name, (1e-12, 1e-11))
    assert relative(found, truth) < tolerance
    wanted, cotangent = [parameters, *decoder.parameters()], normal(B, seed=25)
    for mine, theirs in zip(gradients(found @ cotangent, *wanted), gradients(truth @ cotangent, *wanted), strict=True):
        assert relative(mine, theirs) < of_slopes


@pytest.mark.parametrize(("name", "family"), CASES)
def test_sampled_matches_torch_distributions(name, family):
    """Standardization only changes the coordinates."""
    decoder = make(name, family, SCALE, spread=0.7)
    z = normal(50, B, LATENTS[family], seed=26)
    if name == "positive-precision":
        z = (z > 0).double()
    x, exact = images(name), density(name, decoder, z)
    for found in (decoder.objective(x).sampled(z), decoder.likelihood(z).log_prob(x)):
        assert found.shape == (50, B)
        torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("name", "family"), [case for case in CASES if case[0] != "bits"])
def test_noise_is_integrated_out(name, family):
    """By Gauss-Legendre quadrature: two nodes are exact for the density, a quadratic in the noise of each dimension."""
    decoder, leaf = make(name, family, SCALE), PARAMETERS[family].clone().requires_grad_()
    q, levels = FAMILIES[family](leaf), (X * 5).round()
    z = q.sample(6, seeded(176)).requires_grad_()
    points, weights = np.polynomial.legendre.leggauss(2)
    for value in (lambda objective: objective.expectation(q), lambda objective: objective.sampled(z)):
        found = value(decoder.objective((levels + 0.5) / 5, NOISE))
        averaged = [
            weight / 2 * value(decoder.objective((levels + (point + 1) / 2) / 5))
            for point, weight in zip(points, weights, strict=True)
        ]
        truth = sum(averaged)
        assert relative(found, truth) < 1e-12
        assert (found < value(decoder.objective((levels + 0.5) / 5))).all()
        cotangent, wanted = normal(*found.shape, seed=175), [leaf, z, *decoder.parameters()]
        slopes = (gradients((each * cotangent).sum(), *wanted) for each in (found, truth))
        for ours, theirs in zip(*slopes, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_float32_is_close_to_float64_at_image_size(name, family):
    """Standardised heads keep their digits at the scale of constant pixels: no residual is formed at image scale."""
    location, scale = (normal(784, seed=seed).float() for seed in (131, 132))
    standardization = Standardization(location, scale.exp() / 887, 1000.0)
    high, low = make(name, family, standardization), make(name, family, standardization).float()
    high.load_state_dict(low.state_dict())
    single = PARAMETERS[family].float().requires_grad_()
    double = single.detach().double().requires_grad_()
    x = (standardization.mean + standardization.scale * normal(B, 784, seed=136)).float()
    x = (x > 0).float() if name == "bits" else x
    found, exact = (
        decoder.objective(x.to(leaf.dtype)).expectation(FAMILIES[family](leaf))
        for decoder, leaf in ((low, single), (high, double))
    )
    assert found.dtype == torch.float32
    assert relative(found.double(), exact) < 5e-6
    pairs = gradients(found.sum(), single, *low.parameters()), gradients(exact.sum(), double, *high.parameters())
    for ours, wanted in zip(*pairs, strict=True):
        assert relative(ours.double(), wanted) < 5e-5


@pytest.mark.parametrize("name", LEARNED)
def test_initial_precision_is_that_of_the_data(name):
    """For fair bits where the precision is positive over the unit cube."""
    k, scale = 20, Standardization(torch.zeros(D), torch.tensor([0.1, 0.2, 0.5, 2.0]), 1000.0)
    torch.manual_seed(0)
    decoder = KINDS[name](k, scale)
    middle = 0.5 if name == "positive-precision" else 0.0
    likelihood = decoder.likelihood(torch.full((1, 1, k), middle))
    torch.testing.assert_close(likelihood.precision_squared[0, 0], scale.scale**-2, rtol=1e-5, atol=0)
    torch.testing.assert_close(likelihood.log_precision[0, 0], -scale.scale.log(), rtol=1e-5, atol=1e-6)
    if middle == 0:
        torch.testing.assert_close(likelihood.mean[0, 0], torch.zeros(D))
        assert decoder.precision_head.weight.std() < 0.02
    else:
        torch.testing.assert_close(decoder.least_precision, torch.full((D,), 0.8), rtol=1e-5, atol=0)
    torch.manual_seed(0)
    default = KINDS[name](k, scale, small_weights=False)
    torch.manual_seed(0)
    assert torch.equal(default.mean_head.weight, nn.Linear(k, D).weight)


def test_a_fixed_variance_is_as_accurate_as_the_type_that_the_decoder_has_last():
    decoder, z = FixedVarianceDecoder(2, D, 0.07), torch.zeros(1, 1, 2)
    for dtype in (torch.bfloat16, torch.float64, torch.float32, torch.float64):
        found = decoder.to(dtype).likelihood(z.to(dtype))
        np.testing.assert_allclose(found.precision_squared.item(), 1 / 0.07, rtol=torch.finfo(dtype).eps)
    assert "precision" not in decoder.state_dict()


def test_a_fixed_variance_starts_small_at_the_mean_of_the_data():
    mean = torch.linspace(0, 1, D)
    for argument, start in ((mean, mean), (None, torch.full((D,), 0.5))):
        decoder = FixedVarianceDecoder(50, D, 0.01, argument)
        assert torch.equal(decoder.linear.bias, start)
        assert decoder.linear.weight.abs().max() < 0.06
    torch.manual_seed(0)
    default = FixedVarianceDecoder(50, D, 0.01, small_weights=False)
    torch.manual_seed(0)
    assert torch.equal(default.linear.weight, nn.Linear(50, D).weight)


def test_a_learned_variance_of_each_pixel_is_factor_analysis():
    """Full-batch training of decoder and encoder comes to the likelihood that another algorithm ascends to."""
    generator = np.random.default_rng(0)
    latent = generator.normal(size=(60, 2)) @ generator.normal(size=(2, 5)) * 1.5 + 4
    images = np.clip((latent + generator.normal(scale=0.6, size=(60, 5))).round(), 0, 8).astype(np.uint8)
    limit = limits.factor_analysis_limit(images, images, 9, 2)
    # Finitely many dequantizations with the mean and covariance of uniform noise.
    noise = 0.5 + math.sqrt(5 / 12) * np.concatenate((np.eye(5), -np.eye(5)))
    x = torch.from_numpy((images[:, None] + noise) / 9).reshape(-1, 5)
    torch.manual_seed(0)
    decoder = FactorAnalysisDecoder(2, 5, x.var(0), x.mean(0)).double()
    encoder, log_variance = nn.Linear(5, 2).double(), torch.zeros(2, dtype=DOUBLE, requires_grad=True)
    weights = [*decoder.parameters(), *encoder.parameters(), log_variance]
    optimizer = torch.optim.LBFGS(weights, max_iter=1000, tolerance_change=1e-13, line_search_fn="strong_wolfe")

    def bits() -> torch.Tensor:
        optimizer.zero_grad()
        q = FAMILIES["gaussian"](torch.cat((encoder(x), log_variance.expand(len(x), 2)), 1))
        bound = decoder.objective(x).expectation(q) - q.kl_divergence()
        found = math.log2(9) - bound.mean() / (5 * math.log(2))
        found.backward()
        return found

    optimizer.step(bits)
    assert float(bits().detach()) == pytest.approx(limit.bpd, abs=1e-6)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_saturated_posteriors_have_gradients_of_their_own_scale_in_float32(name, family):
    """Over parameters of -40 to 40, each gradient beside that of float64."""
    k, per_latent = LATENTS[family], FAMILIES[family].parameters_per_latent
    for number, extreme in enumerate((-40.0, -20.0, -17.0, -16.0, -12.0, 12.0, 16.0, 17.0, 20.0, 40.0)):
        decoder, parameters = make(name, family, SCALE, 0.1).float(), 0.5 * PARAMETERS[family]
        parameters[:, number % (k * per_latent)] = extreme
        found = []
        for dtype in (torch.float32, DOUBLE):
            leaf = parameters.float().to(dtype).requires_grad_()
            value = decoder.to(dtype).objective(images(name).float().to(dtype)).expectation(FAMILIES[family](leaf))
            found.append((value.detach().double(), gradients(value.sum(), leaf)[0].double()))
        (value, slope), (exact, true) = found
        if exact.abs().max() < 1e30 and true.abs().max() < 1e30:  # else float32 has no such numbers
            assert relative(value, exact) < 1e-5
            torch.testing.assert_close(slope, true, rtol=2e-2, atol=1e-9 * float(true.abs().max()))


@pytest.mark.parametrize("family", ["gaussian", "bernoulli", "categorical", "uniform"])
@pytest.mark.parametrize("name", KINDS)
def test_closed_forms_leave_autocast(name, family):
    """With half-precision posteriors as they come from an encoder under autocast."""
    if (name, family) not in CASES:
        return
    decoder, low = make(name, family).float(), PARAMETERS[family].bfloat16().requires_grad_()
    high = low.detach().float().requires_grad_()
    x = images(name).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = decoder.objective(x).expectation(FAMILIES[family](low))
    wanted = decoder.objective(x).expectation(FAMILIES[family](high))
    assert torch.equal(found, wanted)
    slopes = gradients(found.sum(), low)[0], gradients(wanted.sum(), high)[0]
    torch.testing.assert_close(slopes[0], slopes[1].bfloat16())


def function_of(name, family, seed=0):
    """The expectation as a function of the posterior's parameters and the weights, and arguments of it."""
    decoder = make(name, family, SCALE)
    names = [weight for weight, _ in decoder.named_parameters()]

    def bound(parameters, *weights):
        decoder.forward = lambda: decoder.objective(images(name)).expectation(FAMILIES[family](parameters))
        return torch.func.functional_call(decoder, dict(zip(names, weights, strict=True)))

    arguments = [PARAMETERS[family], *(weight.detach() for weight in decoder.parameters())]
    return bound, [argument + 0.1 * seed for argument in arguments]


FORWARD = [case for case in CASES if case[0] not in ("bits", "log-linear-precision", "cosines")]
FORWARD += [("cosines", "gaussian")]
"""Without own functions that have no rule for forward mode or second derivatives."""


@pytest.mark.parametrize(("name", "family"), CASES)
def test_steps_of_several_runs_map_into_one(name, family):
    """``torch.func.grad`` under ``vmap`` over parameters and weights gives the gradients of each run."""
    runs = [function_of(name, family, seed)[1] for seed in (0, 1)]
    bound, arguments = function_of(name, family)
    slopes = torch.func.grad(lambda *each: bound(*each).sum(), tuple(range(len(arguments))))
    found = torch.vmap(slopes)(*(torch.stack(each) for each in zip(*runs, strict=True)))
    for number, run in enumerate(runs):
        leaves = [each.clone().requires_grad_() for each in run]
        for stacked, wanted in zip(found, gradients(bound(*leaves).sum(), *leaves), strict=True):
            torch.testing.assert_close(stacked[number], wanted, rtol=1e-11, atol=1e-12 * float(wanted.abs().max()))


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # torch's own, in forward mode
@pytest.mark.parametrize(("name", "family"), FORWARD)
def test_second_derivatives_forward_mode_and_batched_gradients(name, family):
    bound, arguments = function_of(name, family)
    leaves = [each.clone().requires_grad_() for each in arguments]
    assert torch.autograd.gradgradcheck(bound, leaves, fast_mode=True)
    for argument in range(len(arguments)):
        reverse = torch.func.jacrev(bound, argument)(*arguments)
        torch.testing.assert_close(torch.func.jacfwd(bound, argument)(*arguments), reverse, rtol=1e-11, atol=1e-11)
    jacobian = torch.autograd.functional.jacobian(bound, tuple(arguments), vectorize=True)
    torch.testing.assert_close(jacobian[-1], reverse, rtol=1e-11, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gaussian", "bernoulli", "categorical", "uniform"])
@pytest.mark.parametrize("name", KINDS)
def test_the_whole_gradient_compiles(name, family):
    if (name, family) not in CASES:
        return
    bound, arguments = function_of(name, family)
    leaves = [each.clone().requires_grad_() for each in arguments]
    torch.compiler.reset()
    compiled = torch.compile(lambda *each: bound(*each).sum(), backend="aot_eager", fullgraph=True)
    for found, wanted in zip(*(gradients(each(*leaves).sum(), *leaves) for each in (compiled, bound)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", KINDS)
def test_mixed_types_are_named(name):
    decoder, x = make(name, "bernoulli"), images(name)
    zeros = torch.zeros(B, LATENTS["bernoulli"])
    for call, message in (
        (lambda: decoder.objective(x).expectation(FAMILIES["bernoulli"](zeros)), "q: expected torch.float64"),
        (lambda: decoder.objective(x).sampled(zeros[None]), "z: expected torch.float64, .*got torch.float32"),
        (lambda: decoder.objective(x.float()), "x: expected torch.float64, the type of the decoder's weights"),
        (lambda: decoder.objective(x.long()), "x: expected floating-point numbers, got torch.int64; divide grey"),
        (
            lambda: decoder.half().objective(x.half()).expectation(FAMILIES["bernoulli"](zeros.half())),
            "decoder: a closed form needs weights of float32 or float64, got torch.float16",
        ),
    ):
        with pytest.raises(TypeError, match=message):
            call()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", KINDS)
def test_wrong_shapes_are_named(name, family):
    """Also those that would be broadcast."""
    objective, k = make(name, family).objective(images(name)), LATENTS[family]
    with pytest.raises(ShapeError, match=rf"z: .*{k}"):
        objective.sampled(torch.zeros(1, B, k + 1, dtype=DOUBLE))
    assert isinstance(objective, ExactObjective)
    per_latent = FAMILIES[family].parameters_per_latent
    wide = k + (k // 2 if family == "categorical" else 1)
    for count, latents in ((1, k), (B + 1, k), (B, wide), (B, k - wide + k)):
        q = FAMILIES[family](torch.zeros(count, latents * per_latent, dtype=DOUBLE))
        with pytest.raises(ShapeError, match=rf"q: expected \[B, k\] = \[{B}, {k}\], got \[{count}, {latents}\]"):
            objective.expectation(q)


LOGITS = st.one_of(st.sampled_from([-1e4, 1e4, 0.0]), st.floats(-200, 200, width=32))
WEIGHTS = st.floats(-10, 10, width=32)
EXTREMES = {
    **{
        name: {"bernoulli": [LOGITS], "gaussian": [st.floats(-1000, 1000, width=32), st.floats(-80, 20, width=32)]}
        for name in ("fixed-variance", "auto", "central-limit", "taylor-square", "taylor")
    },
    # The precision's square is an exponential: values and gradients of float64 have to be within float32's range.
    "log-linear-precision": {
        "bernoulli": [LOGITS],
        "gaussian": [st.floats(-100, 100, width=32), st.floats(-300, 5, width=32)],
    },
    "positive-precision": {"bernoulli": [LOGITS]},
}
"""What a posterior's parameters may be, for each part of them, by decoder or log term and family."""


@pytest.mark.parametrize(("name", "family"), [(name, family) for name, parts in EXTREMES.items() for family in parts])
@hypothesis_settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_extreme_posteriors_give_finite_values_and_gradients(name, family, data):
    def tensor(strategy, *shape):
        size = math.prod(shape)
        return torch.tensor(data.draw(st.lists(strategy, min_size=size, max_size=size))).reshape(shape)

    parameters = torch.cat([tensor(part, 2, 3) for part in EXTREMES[name][family]], 1)
    biases = st.floats(-1000, 10, width=32) if name == "positive-precision" else WEIGHTS
    drawn = [tensor(WEIGHTS, 2, 3), tensor(WEIGHTS, 2), tensor(WEIGHTS, 2, 3), tensor(biases, 2)]
    scale = Standardization(torch.tensor([0.1, 0.5]), torch.tensor([0.01, 0.3]), 1e3)

    def value_and_gradients(dtype):
        decoder = (KINDS.get(name) or KINDS["linear-precision"])(3, scale).to(dtype)
        if name not in KINDS:
            decoder.log_term = name
        with torch.no_grad():
            for parameter, values in zip(decoder.parameters(), drawn, strict=False):
                parameter.copy_(values)
        leaf = parameters.to(dtype).requires_grad_()
        q = FAMILIES[family](leaf)
        value = decoder.objective(torch.tensor([[0.0, 0.25], [1.0, 0.999]], dtype=dtype)).expectation(q)
        return [value, *torch.autograd.grad((value - q.kl_divergence()).sum(), (leaf, *decoder.parameters()))]

    if name == "log-linear-precision":
        exact = value_and_gradients(torch.float64)
        if not all(torch.isfinite(entry).all() and entry.abs().max() < 1e37 for entry in exact):
            return
    assert all(torch.isfinite(entry).all() for entry in value_and_gradients(torch.float32))
