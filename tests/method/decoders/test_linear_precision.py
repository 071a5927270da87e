import math

import pytest
import torch
from tests.method.families import FAMILIES, LATENTS, family_parameters
from tests.method.reference import (
    DOUBLE,
    bernoulli_expectation,
    bivariate_expectation,
    codes,
    expectation,
    expected_log_abs,
    gradients,
    linear_heads,
    linear_precision_log_density,
    normal,
    relative,
    weighted_error,
)

from silent_gradients import (
    ExactObjective,
    FixedVarianceDecoder,
    LinearPrecisionDecoder,
    Standardization,
)
from silent_gradients.posteriors import Bernoulli, Gaussian

B, D = 3, 5
X = normal(B, D, seed=30)
PARAMETERS = family_parameters(B, seed=31)
NORMALIZER = 0.5 * math.log(2 * math.pi)


def identity(dimensions=D):
    return Standardization.identity(dimensions, 1000.0)


def decoder_with(latent_dim, log_term="auto", standardization=None, bias=1.0):
    decoder = LinearPrecisionDecoder(latent_dim, standardization or identity(), log_term).double()
    with torch.no_grad():
        decoder.mean_head.weight.copy_(normal(D, latent_dim, seed=33))
        decoder.mean_head.bias.copy_(normal(D, seed=34))
        decoder.precision_head.weight.copy_(normal(D, latent_dim, seed=35, scale=0.7))
        decoder.precision_head.bias.copy_(normal(D, seed=36) + bias)
    return decoder


def heads(decoder):
    return (
        decoder.mean_head.weight,
        decoder.mean_head.bias,
        decoder.precision_head.weight,
        decoder.precision_head.bias,
    )


def square_expansion(name, parameters, own):
    """1/2 (log E s^2 - Var s^2 / (2 (E s^2)^2)), every moment summed over all latents."""
    square = expectation(name, parameters, lambda z: linear_heads(z, own)[1] ** 2)
    fourth = expectation(name, parameters, lambda z: linear_heads(z, own)[1] ** 4)
    return 0.5 * (square.log() - (fourth - square**2) / (2 * square**2))


@pytest.mark.parametrize("name", PARAMETERS)
def test_expectation_and_gradients_equal_the_sum_over_all_latents(name):
    decoder = decoder_with(LATENTS[name], "taylor-square")
    own = heads(decoder)
    parameters = PARAMETERS[name].clone().requires_grad_()
    objective = decoder.objective(X)
    assert isinstance(objective, ExactObjective)
    found = objective.expectation(FAMILIES[name](parameters))
    error = expectation(name, parameters, lambda z: weighted_error(z, X, own))
    exact = (square_expansion(name, parameters, own) - 0.5 * error - NORMALIZER).sum(1)
    assert found.shape == (B,)
    assert relative(found, exact) < 1e-12
    cotangent = normal(B, seed=37)
    for ours, wanted in zip(
        gradients(found @ cotangent, parameters, *own), gradients(exact @ cotangent, parameters, *own), strict=True
    ):
        assert relative(ours, wanted) < 1e-10


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("log_term", ["auto", "central-limit", "taylor"])
def test_expected_weighted_error_does_not_depend_on_the_log_term(name, log_term):
    decoder = decoder_with(LATENTS[name], log_term)
    q = FAMILIES[name](PARAMETERS[name])
    cumulants = q.joint_cumulants(decoder.mean_head.weight, decoder.precision_head.weight)
    log_precision = decoder.expected_log_precision(q, cumulants).sum(1)
    error = -2 * (decoder.objective(X).expectation(q) - log_precision + D * NORMALIZER)
    exact = expectation(name, PARAMETERS[name], lambda z: weighted_error(z, X, heads(decoder))).sum(1)
    assert relative(error, exact) < 1e-12


def test_gaussian_weighted_error_by_quadrature_of_the_pair():
    """One pixel at a time: (m, s) is bivariate normal."""
    decoder = decoder_with(2, "taylor-square")
    q = Gaussian(PARAMETERS["gaussian"])
    a, bias_m, b, bias_s = (head.detach() for head in heads(decoder))
    total = torch.zeros(B, dtype=DOUBLE)
    mean, log_variance = PARAMETERS["gaussian"].chunk(2, dim=1)
    for image in range(B):
        v = log_variance[image].exp()
        for pixel in range(D):
            center = (float(a[pixel] @ mean[image] + bias_m[pixel]), float(b[pixel] @ mean[image] + bias_s[pixel]))
            spread = tuple(
                float((v * p * r).sum()) for p, r in ((a[pixel],) * 2, (b[pixel],) * 2, (a[pixel], b[pixel]))
            )
            x = float(X[image, pixel])
            error = bivariate_expectation(center, spread, lambda m, s, x=x: (x - m) ** 2 * s**2)  # type: ignore[arg-type, misc]
            second = center[1] ** 2 + spread[1]
            variance_of_square = 4 * center[1] ** 2 * spread[1] + 2 * spread[1] ** 2
            total[image] += 0.5 * math.log(second) - variance_of_square / (4 * second**2) - error / 2 - NORMALIZER
    assert relative(decoder.objective(X).expectation(q), total) < 1e-12


def test_theorem_one_form():
    """x^2 E s^2 - 2 x (M E s^2 + cov(m, s^2)) + (M^2 + V_m) E s^2 + cov(m^2, s^2)."""
    decoder = decoder_with(6)
    q = Bernoulli(PARAMETERS["bernoulli"])

    def moment(p, r):
        def product(z):
            m, s = linear_heads(z, heads(decoder))
            return m**p * s**r

        return bernoulli_expectation(PARAMETERS["bernoulli"], product)

    square = moment(0, 2)
    first = moment(1, 2) - moment(1, 0) * square
    second = moment(2, 2) - moment(2, 0) * square
    theorem = X**2 * square - 2 * X * (moment(1, 0) * square + first) + moment(2, 0) * square + second
    cumulants = q.joint_cumulants(decoder.mean_head.weight, decoder.precision_head.weight)
    log_precision = decoder.expected_log_precision(q, cumulants)
    found = -2 * (decoder.objective(X).expectation(q) - log_precision.sum(1) + D * NORMALIZER)
    assert relative(found, theorem.sum(1)) < 1e-12
    # The covariances themselves, from the cumulants of the specification.
    m, s = cumulants.mean_m + decoder.mean_head.bias, cumulants.mean_s + decoder.precision_head.bias
    assert cumulants.k12 is not None
    assert cumulants.k21 is not None
    assert cumulants.k22 is not None
    c = cumulants.covariance
    assert relative(2 * s * c + cumulants.k12, first) < 1e-12
    by_cumulants = 4 * m * s * c + 2 * c**2 + 2 * m * cumulants.k12 + 2 * s * cumulants.k21 + cumulants.k22
    assert relative(by_cumulants, second) < 1e-11


@pytest.mark.parametrize("log_term", ["auto", "exact"])
def test_gaussian_expectation_is_the_true_one(log_term):
    decoder = decoder_with(2, log_term, bias=0.0)
    parameters = PARAMETERS["gaussian"]
    own = heads(decoder)
    error = expectation("gaussian", parameters, lambda z: weighted_error(z, X, own)).sum(1)
    mean, log_variance = parameters.chunk(2, dim=1)
    s = mean @ own[2].T + own[3]
    variance = log_variance.exp() @ (own[2] ** 2).T
    log_precision = torch.tensor(
        [
            [expected_log_abs(*pair) for pair in zip(*rows, strict=True)]
            for rows in zip(s.tolist(), variance.tolist(), strict=True)
        ],
        dtype=DOUBLE,
    ).sum(1)
    found = decoder.objective(X).expectation(Gaussian(parameters))
    torch.testing.assert_close(found, log_precision - 0.5 * error - D * NORMALIZER, rtol=0, atol=D * 3e-7)


def test_auto_is_exact_for_gaussian_and_central_limit_for_bits():
    gaussian, bits = Gaussian(PARAMETERS["gaussian"]), Bernoulli(PARAMETERS["bernoulli"])

    def value(q, log_term):
        return decoder_with(q.latent_dim, log_term).objective(X).expectation(q)

    assert torch.equal(value(gaussian, "auto"), value(gaussian, "exact"))
    assert torch.equal(value(bits, "auto"), value(bits, "central-limit"))
    others = {name: value(bits, name) for name in ("auto", "taylor", "taylor-square")}
    assert len({tuple(other.tolist()) for other in others.values()}) == 3


def test_exact_is_refused_for_bits():
    objective = decoder_with(6, "exact").objective(X)
    with pytest.raises(ValueError, match=r"exact.*bernoulli.*central-limit"):
        objective.expectation(Bernoulli(PARAMETERS["bernoulli"]))


def test_central_limit_is_close_for_many_bits():
    """Specification, 3.4: mean error below .002 nats at a mean of four deviations, 12 bits of probability 1/2."""
    latent_dim, dimensions = 12, 40
    weight = normal(dimensions, latent_dim, seed=38)
    deviation = 0.5 * weight.norm(dim=1)
    decoder = LinearPrecisionDecoder(latent_dim, identity(dimensions), "central-limit").double()
    bits = codes(latent_dim)
    for t, tolerance in ((1.0, 0.03), (4.0, 0.002)):
        with torch.no_grad():
            decoder.precision_head.weight.copy_(weight)
            decoder.precision_head.bias.copy_(t * deviation - 0.5 * weight.sum(1))
        q = Bernoulli(torch.zeros(1, latent_dim, dtype=DOUBLE))
        cumulants = q.joint_cumulants(decoder.mean_head.weight, decoder.precision_head.weight)
        exact = (bits @ weight.T + decoder.precision_head.bias).abs().log().mean(0)
        assert (decoder.expected_log_precision(q, cumulants)[0] - exact).abs().mean() < tolerance


def test_sampled_matches_torch_distributions_for_both_signs():
    decoder = decoder_with(2, bias=0.0)
    z = normal(50, B, 2, seed=39)
    _, precision = linear_heads(z, heads(decoder))
    assert (precision < 0).any()
    assert (precision > 0).any()
    exact = linear_precision_log_density(z, X, heads(decoder)).sum(-1)
    torch.testing.assert_close(decoder.objective(X).sampled(z), exact, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", PARAMETERS)
def test_sign_of_the_precision_does_not_matter(name):
    q = FAMILIES[name](PARAMETERS[name])
    decoder = decoder_with(LATENTS[name])
    before = decoder.objective(X).expectation(q)
    with torch.no_grad():
        decoder.precision_head.weight.neg_()
        decoder.precision_head.bias.neg_()
    torch.testing.assert_close(decoder.objective(X).expectation(q), before, rtol=1e-13, atol=1e-13)


def test_float32_at_the_scale_of_a_constant_pixel():
    """Standardised heads keep their digits where the precision is 887: the residual is never formed at image scale."""
    scale = torch.full((D,), 1 / (256 * math.sqrt(12)), dtype=DOUBLE)
    location = torch.full((D,), 0.5, dtype=DOUBLE)
    x = location + scale * normal(B, D, seed=42)
    x = x.float().double()
    high = decoder_with(2, "auto", Standardization(location, scale, 1000.0))
    low = decoder_with(2, "auto", Standardization(location, scale, 1000.0)).float()
    exact = high.objective(x).expectation(Gaussian(PARAMETERS["gaussian"]))
    found = low.objective(x.float()).expectation(Gaussian(PARAMETERS["gaussian"].float()))
    assert relative(found.double(), exact) < 1e-4


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("log_term", ["auto", "exact", "central-limit", "taylor-square", "taylor"])
def test_the_expectation_is_declared_exact_where_it_is(name, log_term):
    q = FAMILIES[name](PARAMETERS[name])
    declared = decoder_with(LATENTS[name], log_term).objective(X).is_exact(q)
    assert declared == (name == "gaussian" and not log_term.startswith("taylor"))


@pytest.mark.parametrize("log_term", ["auto", "taylor-square", "taylor"])
def test_a_precision_that_hangs_on_one_saturating_bit_stays_finite(log_term):
    """s = z b with P(z = 1) from 1/2 down to 0 in float32: mean and variance of s vanish together."""
    logits = torch.linspace(0, -110, 221)[:, None].requires_grad_()
    decoder = LinearPrecisionDecoder(1, Standardization.identity(3, 1e3), log_term)
    with torch.no_grad():
        decoder.precision_head.weight.copy_(torch.tensor([[0.1], [1.0], [10.0]]))
        decoder.precision_head.bias.zero_()
    value = decoder.objective(torch.zeros(len(logits), 3)).expectation(Bernoulli(logits))
    assert torch.isfinite(value).all()
    for slope in torch.autograd.grad(value.sum(), (logits, *decoder.parameters())):
        assert torch.isfinite(slope).all()


def tangent(s, second_moment):
    """The line that touches 1/2 log s^2, as a function of s^2, at the second moment."""
    return 0.5 * second_moment.log() + (s.square() - second_moment) / (2 * second_moment)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_control_by_its_definition_and_its_expectation_by_enumeration(name):
    """A polynomial in z: exact under every posterior, also under another one than it was made for."""
    scale = normal(D, seed=46).exp()
    decoder = decoder_with(LATENTS[name], standardization=Standardization(normal(D, seed=47), scale, 1000.0), bias=0.1)
    q = FAMILIES[name](PARAMETERS[name])
    control = decoder.control(X, q)
    assert isinstance(control, ExactObjective)
    assert control.is_exact(q)

    def density(z, fixed):
        m, s = linear_heads(z, heads(decoder))
        m, s = decoder.mean + scale * m, s / scale
        return (tangent(s, fixed) - 0.5 * (X - m).square() * s.square() - NORMALIZER).sum(-1)

    def squared_precision(z):
        return (linear_heads(z, heads(decoder))[1] / scale).square()

    fixed = expectation(name, PARAMETERS[name], squared_precision).detach()
    z = q.sample(7, torch.Generator().manual_seed(48))
    assert relative(control.sampled(z), density(z, fixed)) < 1e-11
    for shift in (0.0, 0.3):
        parameters = (PARAMETERS[name] + shift).requires_grad_()
        found = control.expectation(FAMILIES[name](parameters))
        exact = expectation(name, parameters, lambda z: density(z, fixed))
        assert relative(found, exact) < 1e-11
        for slope, truth in zip(
            gradients(found.sum(), parameters, *heads(decoder)),
            gradients(exact.sum(), parameters, *heads(decoder)),
            strict=True,
        ):
            assert relative(slope, truth) < 1e-10


def test_the_control_is_above_the_objective_and_touches_it_where_the_precision_is_certain():
    decoder = decoder_with(6)
    logits = torch.full((B, 6), 40.0, dtype=DOUBLE)
    q = Bernoulli(logits)
    z = torch.ones(1, B, 6, dtype=DOUBLE)
    objective = decoder.objective(X)
    torch.testing.assert_close(decoder.control(X, q).sampled(z), objective.sampled(z), rtol=1e-9, atol=1e-9)
    q = Bernoulli(PARAMETERS["bernoulli"])
    drawn = codes(6)[:, None].expand(-1, B, -1)
    assert (decoder.control(X, q).sampled(drawn) >= objective.sampled(drawn) - 1e-9).all()


def test_the_control_stays_finite_where_the_precision_vanishes():
    for name in PARAMETERS:
        decoder = LinearPrecisionDecoder(LATENTS[name], identity(), small_weights=False)
        with torch.no_grad():
            decoder.precision_head.weight.zero_()
            decoder.precision_head.bias.zero_()
        parameters = torch.full(PARAMETERS[name].shape, -60.0, requires_grad=True)
        q = FAMILIES[name](parameters)
        control = decoder.control(X.float(), q)
        z = torch.zeros(1, B, LATENTS[name], requires_grad=True)
        for value, wanted in ((control.expectation(q), parameters), (control.sampled(z), z)):
            assert torch.isfinite(value).all()
            assert torch.isfinite(torch.autograd.grad(value.sum(), wanted, retain_graph=True)[0]).all()


def test_other_decoders_are_their_own_control():
    decoder = FixedVarianceDecoder(2, D, 0.3).double()
    control = decoder.control(X, Gaussian(PARAMETERS["gaussian"]))
    assert control == decoder.objective(X)
