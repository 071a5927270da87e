"""What is particular to each kind of learned precision: log terms, controls, bounds and limits."""

import math

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
    expected_log_abs,
    gradients,
    linear_heads,
    linear_precision_log_density,
    normal,
    relative,
    seeded,
    weighted_error,
)

from silent_gradients import (
    Bernoulli,
    ExactObjective,
    FixedVarianceDecoder,
    Gaussian,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    PositivePrecisionDecoder,
    Posterior,
    Standardization,
)
from silent_gradients.decoders import log_terms
from silent_gradients.decoders.weighted_error import weighted_error as moments_of

B, D, K = 3, 5, 6
X = normal(B, D, seed=30)
PARAMETERS = family_parameters(B, seed=31)
TILTED = sorted(set(PARAMETERS) - {"laplace"})
LOGITS = PARAMETERS["bernoulli"]
NORMALIZER = 0.5 * math.log(2 * math.pi)


def identity(dimensions=D):
    return Standardization.identity(dimensions, 1000.0)


def linear(latent_dim, log_term="auto", standardization=None, bias=1.0):
    decoder = LinearPrecisionDecoder(latent_dim, standardization or identity(), log_term)
    with_weights(decoder, 33, 1.0, 1.0, 0.7, 1.0)
    with torch.no_grad():
        decoder.precision_head.bias.add_(bias)
    return decoder


def log_linear(latent_dim):
    return with_weights(LogLinearPrecisionDecoder(latent_dim, identity()), 123, 1.0, 1.0, 0.4, 1.0)


def positive(latent_dim=K, dimensions=D):
    return with_weights(PositivePrecisionDecoder(latent_dim, identity(dimensions)), 152, 1.0, 1.0, 0.7, 1.0)


def log_precision_of(decoder, q):
    """E log|s| by the decoder's log term, [B, D]."""
    cumulants = q.joint_cumulants(decoder.mean_head.weight, decoder.precision_head.weight)
    return decoder.expected_log_precision(q, cumulants.mean_s + decoder.precision_bias, cumulants.variance_s)


def assert_gradients(found, exact, wanted, tolerance):
    for ours, theirs in zip(gradients(found, *wanted), gradients(exact, *wanted), strict=True):
        assert relative(ours, theirs) < tolerance


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("log_term", ["auto", "taylor-square", "taylor"])
def test_each_log_term_and_the_weighted_error_by_the_sum_over_all_latents(name, log_term):
    """A normal precision comes close to zero here, which a quadrature over the latents does not see."""
    decoder = linear(LATENTS[name], log_term, bias=0.0 if name == "gaussian" else 1.0)
    parameters, own = PARAMETERS[name].clone().requires_grad_(), tuple(decoder.parameters())
    powers = torch.arange(1, 5)[:, None, None, None]
    s, square, _, fourth = expectation(
        name, parameters, lambda z: (linear_heads(z, own)[1] ** powers).permute(1, 2, 0, 3)
    ).unbind(1)
    if log_term == "taylor-square":
        log_precision = 0.5 * (square.log() - (fourth - square**2) / (2 * square**2))
    elif log_term == "taylor":
        log_precision = s.abs().log() - (square - s**2) / (2 * s**2)
    else:
        pairs = zip(s.flatten().tolist(), (square - s**2).flatten().tolist(), strict=True)
        log_precision = torch.tensor([expected_log_abs(*pair) for pair in pairs], dtype=DOUBLE).view(B, D)
    error = expectation(name, parameters, lambda z: weighted_error(z, X, own))
    exact = (log_precision - 0.5 * error - NORMALIZER).sum(1)
    found = decoder.objective(X).expectation(FAMILIES[name](parameters))
    assert found.shape == (B,)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=D * 3e-7 if log_term == "auto" else 1e-11)
    if log_term != "auto":
        cotangent = normal(B, seed=37)
        assert_gradients(found @ cotangent, exact @ cotangent, (parameters, *own), 1e-10)


@pytest.mark.parametrize("size", [0, 2**16])
def test_each_moment_of_the_weighted_error_has_a_gradient_of_its_own(size, monkeypatch):
    """By either backward pass, also where a loss uses one of the three alone."""
    monkeypatch.setattr("silent_gradients.decoders.weighted_error.LARGE", size)
    decoder, parameters = linear(LATENTS["bernoulli"]), LOGITS.clone().requires_grad_()
    own, noise = tuple(decoder.parameters()), torch.full((D,), 0.1, dtype=DOUBLE)
    s = expectation("bernoulli", parameters, lambda z: linear_heads(z, own)[1])
    variance = expectation("bernoulli", parameters, lambda z: (linear_heads(z, own)[1] - s) ** 2)
    error = expectation("bernoulli", parameters, lambda z: weighted_error(z, X, own)) + noise * (s**2 + variance)
    for found, exact in zip(
        moments_of(Bernoulli(parameters), X, noise, *own), (error.sum(1), s, variance), strict=True
    ):
        slopes = (gradients(each.square().sum(), parameters, *own) for each in (found, exact))
        for ours, theirs in zip(*slopes, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


def test_auto_is_exact_for_gaussian_and_central_limit_for_bits():
    gaussian, bits = Gaussian(PARAMETERS["gaussian"]), Bernoulli(LOGITS)

    def value(q, log_term):
        return linear(q.latent_dim, log_term).objective(X).expectation(q)

    assert torch.equal(value(gaussian, "auto"), value(gaussian, "exact"))
    assert torch.equal(value(bits, "auto"), value(bits, "central-limit"))
    assert len({tuple(value(bits, name).tolist()) for name in ("auto", "taylor", "taylor-square")}) == 3


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("log_term", ["auto", "exact", "central-limit", "taylor-square", "taylor"])
def test_the_expectation_is_declared_exact_where_it_is(name, log_term):
    declared = linear(LATENTS[name], log_term).objective(X).is_exact(FAMILIES[name](PARAMETERS[name]))
    assert declared == (name == "gaussian" and not log_term.startswith("taylor"))


def test_central_limit_is_close_for_many_bits():
    """Specification, 3.4: mean error below .002 nats at a mean of four deviations, 12 bits of probability 1/2."""
    weight, bits, q = normal(40, 12, seed=38), codes(12), Bernoulli(torch.zeros(1, 12, dtype=DOUBLE))
    decoder = LinearPrecisionDecoder(12, identity(40), "central-limit").double()
    for t, tolerance in ((1.0, 0.03), (4.0, 0.002)):
        with torch.no_grad():
            decoder.precision_head.weight.copy_(weight)
            decoder.precision_head.bias.copy_(t * 0.5 * weight.norm(dim=1) - 0.5 * weight.sum(1))
        exact = (bits @ weight.T + decoder.precision_head.bias).abs().log().mean(0)
        found = log_precision_of(decoder, q)[0]
        assert (found - exact).abs().mean() < tolerance


@pytest.mark.parametrize("name", PARAMETERS)
def test_sign_of_the_precision_does_not_matter(name):
    q, decoder = FAMILIES[name](PARAMETERS[name]), linear(LATENTS[name])
    before = decoder.objective(X).expectation(q)
    with torch.no_grad():
        decoder.precision_head.weight.neg_()
        decoder.precision_head.bias.neg_()
    torch.testing.assert_close(decoder.objective(X).expectation(q), before, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("log_term", ["auto", "taylor-square", "taylor"])
def test_a_precision_that_hangs_on_one_saturating_bit_stays_finite(log_term):
    """s = z b with P(z = 1) from 1/2 down to 0 in float32: mean and variance of s vanish together."""
    logits = torch.linspace(0, -110, 221)[:, None].requires_grad_()
    decoder = LinearPrecisionDecoder(1, identity(3), log_term)
    with torch.no_grad():
        decoder.precision_head.weight.copy_(torch.tensor([[0.1], [1.0], [10.0]]))
        decoder.precision_head.bias.zero_()
    value = decoder.objective(torch.zeros(len(logits), 3)).expectation(Bernoulli(logits))
    slopes = torch.autograd.grad(value.sum(), (logits, *decoder.parameters()))
    assert all(torch.isfinite(found).all() for found in (value, *slopes))


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_control_by_its_definition_and_its_expectation_by_enumeration(name):
    """The tangent of 1/2 log s^2 in s^2 at the second moment makes a polynomial in z.

    It is exact under every posterior, also under another one than it was made for.
    """
    scale = normal(D, seed=46).exp()
    decoder = linear(LATENTS[name], standardization=Standardization(normal(D, seed=47), scale, 1000.0), bias=0.1)
    own, q = tuple(decoder.parameters()), FAMILIES[name](PARAMETERS[name])
    control = decoder.control(X, q)
    assert isinstance(control, ExactObjective)
    assert control.is_exact(q)

    def precision(z):
        return linear_heads(z, own)[1] / scale

    fixed = expectation(name, PARAMETERS[name], lambda z: precision(z).square()).detach()

    def density(z):
        m, s = decoder.mean + scale * linear_heads(z, own)[0], precision(z)
        tangent = 0.5 * fixed.log() + (s.square() - fixed) / (2 * fixed)
        return (tangent - 0.5 * (X - m).square() * s.square() - NORMALIZER).sum(-1)

    z = q.sample(7, seeded(48))
    assert relative(control.sampled(z), density(z)) < 1e-11
    for shift in (0.0, 0.3):
        parameters = (PARAMETERS[name] + shift).requires_grad_()
        found, exact = control.expectation(FAMILIES[name](parameters)), expectation(name, parameters, density)
        assert relative(found, exact) < 1e-11
        assert_gradients(found.sum(), exact.sum(), (parameters, *own), 1e-10)


def test_the_control_is_above_the_objective_and_touches_it_where_the_precision_is_certain():
    decoder, certain = linear(K), Bernoulli(torch.full((B, K), 40.0, dtype=DOUBLE))
    z, objective = torch.ones(1, B, K, dtype=DOUBLE), decoder.objective(X)
    torch.testing.assert_close(decoder.control(X, certain).sampled(z), objective.sampled(z), rtol=1e-9, atol=1e-9)
    drawn = codes(K)[:, None].expand(-1, B, -1)
    assert (decoder.control(X, Bernoulli(LOGITS)).sampled(drawn) >= objective.sampled(drawn) - 1e-9).all()


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_control_stays_finite_where_the_precision_vanishes(name):
    decoder = LinearPrecisionDecoder(LATENTS[name], identity(), small_weights=False)
    for parameter in decoder.precision_head.parameters():
        parameter.data.zero_()
    parameters = torch.full(PARAMETERS[name].shape, -60.0, requires_grad=True)
    q, z = FAMILIES[name](parameters), torch.zeros(1, B, LATENTS[name], requires_grad=True)
    control = decoder.control(X.float(), q)
    for value, wanted in ((control.expectation(q), parameters), (control.sampled(z), z)):
        assert torch.isfinite(value).all()
        assert torch.isfinite(torch.autograd.grad(value.sum(), wanted, retain_graph=True)[0]).all()


def test_other_decoders_are_their_own_control():
    decoder = FixedVarianceDecoder(2, D, 0.3).double()
    assert decoder.control(X, Gaussian(PARAMETERS["gaussian"])) == decoder.objective(X)


def test_a_log_linear_precision_needs_tilted_moments():
    class Heavy(Bernoulli):
        name = "heavy"
        tilted_moments = Posterior.tilted_moments

    objective, q = log_linear(K).objective(X), Heavy(LOGITS)
    assert not objective.is_exact(q)
    with pytest.raises(NotImplementedError, match="heavy"):
        objective.expectation(q)


def test_the_expectation_is_finite_where_the_expected_squared_precision_is_not():
    """E s^2 = e^100 is no float32, e^100 times an error of e^-40 is one."""
    decoder = LogLinearPrecisionDecoder(1, identity(1))
    with torch.no_grad():
        decoder.mean_head.weight.zero_()
        decoder.precision_head.weight.zero_()
        decoder.precision_head.bias.fill_(50.0)
    value = decoder.objective(torch.tensor([[math.exp(-20)]])).expectation(Bernoulli(torch.zeros(1, 1))).detach()
    assert float(value) == pytest.approx(50 - 0.5 * math.exp(60) - NORMALIZER, rel=1e-5)


def positive_heads(decoder):
    """A, a, B, c, re-derived: the least precision over all codes is softplus of the bias."""
    weight_m, bias_m, weight, bias = decoder.parameters()
    return weight_m, bias_m, weight, 1e-6 + torch.log1p(bias.exp()) - (codes(weight.shape[1]) @ weight.T).amin(0)


def bound_and_truth(decoder, logits):
    """The positive decoder's log term and the sum over all codes, [B, D]."""
    q, own = Bernoulli(logits), positive_heads(decoder)
    truth = expectation("bernoulli", logits, lambda z: (z @ own[2].T + own[3]).log())
    return log_precision_of(decoder, q), truth


def test_the_least_precision_over_all_codes_is_the_stated_one():
    decoder = positive()
    least = decoder.likelihood(codes(K)[:, None]).log_precision.exp().amin((0, 1))
    torch.testing.assert_close(least, decoder.least_precision)
    torch.testing.assert_close(least, 1e-6 + torch.log1p(decoder.precision_head.bias.exp()))


def test_only_the_log_term_is_below_the_sum_over_all_codes():
    decoder = positive()
    own, found = positive_heads(decoder), decoder.objective(X).expectation(Bernoulli(LOGITS))
    exact = expectation("bernoulli", LOGITS, lambda z: linear_precision_log_density(z, X, own)).sum(1)
    bound, truth = bound_and_truth(decoder, LOGITS)
    assert (found < exact).all()
    torch.testing.assert_close(found + (truth - bound).sum(1), exact, rtol=1e-11, atol=1e-11)


def test_gradients_of_the_bound_match_differences():
    """On either side of the switch between its series and its closed form, and through the whole objective."""
    mean = torch.ones(6, dtype=DOUBLE)
    least = torch.tensor([1e-3, 0.3, 0.899, 0.901, 0.95, 0.999], dtype=DOUBLE)
    inputs = [each.requires_grad_() for each in (mean, 0.1 + 0 * mean, least)]
    assert torch.autograd.gradcheck(log_terms.lower_bound, inputs, eps=1e-7)
    decoder, logits = positive(), LOGITS.clone().requires_grad_()
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in decoder.named_parameters()}

    def expected(logits, *values):
        decoder.forward = lambda logits: decoder.objective(X).expectation(Bernoulli(logits))
        return torch.func.functional_call(decoder, dict(zip(weights, values, strict=True)), (logits,))

    assert torch.autograd.gradcheck(expected, (logits, *weights.values()))


@pytest.mark.parametrize("ratio", [1e-6, 0.01, 0.5, 0.899, 0.901, 0.999, 1 - 1e-8, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_the_bound_is_tight_for_the_two_point_law(ratio, dtype):
    """The parabola meets log s at L and touches it at S: a law on {L, S'} of mean S tends to equality as S' to S."""
    least, probability, mean = ratio, 1e-5, 1.0
    upper = (mean - probability * least) / (1 - probability)
    variance = probability * (least - mean) ** 2 + (1 - probability) * (upper - mean) ** 2
    truth = probability * math.log(least) + (1 - probability) * math.log(upper)
    values = (torch.tensor(value, dtype=dtype) for value in (mean, variance, least))
    gap = truth - float(log_terms.lower_bound(*values))
    assert abs(gap) < 1e-8
    assert gap > -2e-16 or dtype == torch.float32


@hypothesis_settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_never_above_the_truth(data):
    def tensor(low, high, *shape):
        size = math.prod(shape)
        numbers = data.draw(st.lists(st.floats(low, high), min_size=size, max_size=size))
        return torch.tensor(numbers, dtype=DOUBLE).reshape(shape)

    decoder = positive(4, 2)
    with torch.no_grad():
        decoder.precision_head.weight.copy_(tensor(-10, 10, 2, 4))
        decoder.precision_head.bias.copy_(tensor(-30, 10, 2))
    bound, truth = bound_and_truth(decoder, tensor(-40, 40, 1, 4))
    assert (bound <= truth + 1e-10 * (1 + truth.abs())).all()


@pytest.mark.parametrize(("ratio", "gap"), [(0.5, 0.006), (0.2, 0.044), (0.05, 0.15)])
def test_gap_to_the_truth(ratio, gap):
    """Twelve bits, normal weights, uniform probabilities: figures of the specification."""
    decoder, p = positive(12, 200), torch.rand(1, 12, generator=seeded(157), dtype=DOUBLE)
    with torch.no_grad():
        weight = normal(200, 12, seed=158)
        decoder.precision_head.weight.copy_(weight)
        above_least = (p @ weight.T)[0] + (-weight).clamp_min(0).sum(1)
        decoder.precision_head.bias.copy_((ratio / (1 - ratio) * above_least).expm1().log())
    bound, truth = bound_and_truth(decoder, p.logit())
    assert float((truth - bound).detach().mean()) == pytest.approx(gap, rel=0.2)
