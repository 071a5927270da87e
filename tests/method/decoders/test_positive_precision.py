import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.method.reference import (
    DOUBLE,
    bernoulli_expectation,
    codes,
    gradients,
    linear_precision_log_density,
    normal,
    seeded,
)

from silent_gradients import ExactObjective, PositivePrecisionDecoder, Standardization
from silent_gradients.decoders import log_terms
from silent_gradients.posteriors import Bernoulli, Gaussian

B, D, K = 3, 5, 6
X = normal(B, D, seed=150)
LOGITS = normal(B, K, seed=151, scale=2.0)


def decoder_with(latent_dim=K, dimensions=D, standardization=None):
    identity = Standardization.identity(dimensions, 1000.0)
    decoder = PositivePrecisionDecoder(latent_dim, standardization or identity).double()
    with torch.no_grad():
        decoder.mean_head.weight.copy_(normal(dimensions, latent_dim, seed=152))
        decoder.mean_head.bias.copy_(normal(dimensions, seed=153))
        decoder.precision_head.weight.copy_(normal(dimensions, latent_dim, seed=154, scale=0.7))
        decoder.precision_head.bias.copy_(normal(dimensions, seed=155))
    return decoder


def heads(decoder):
    """A, a, B, c, re-derived: the least precision over all codes is softplus of the bias."""
    weight = decoder.precision_head.weight
    reach = (codes(weight.shape[1]) @ weight.T).amin(0)
    return (
        decoder.mean_head.weight,
        decoder.mean_head.bias,
        weight,
        1e-6 + torch.log1p(decoder.precision_head.bias.exp()) - reach,
    )


def log_precision_and_truth(decoder, logits):
    """The decoder's log term and the sum over all codes, [B, D]."""
    q = Bernoulli(logits)
    own = heads(decoder)
    cumulants = q.joint_cumulants(own[0], own[2])
    truth = bernoulli_expectation(logits, lambda z: (z @ own[2].T + own[3]).log())
    return decoder.expected_log_precision(q, cumulants), truth


def test_the_least_precision_over_all_codes_is_the_stated_one():
    decoder = decoder_with()
    likelihood = decoder.likelihood(codes(K)[:, None])
    least = likelihood.log_precision.exp().amin((0, 1))
    torch.testing.assert_close(least, decoder.least_precision)
    torch.testing.assert_close(least, 1e-6 + torch.log1p(decoder.precision_head.bias.exp()))


def test_only_the_log_term_is_below_the_sum_over_all_codes():
    decoder = decoder_with()
    objective = decoder.objective(X)
    assert isinstance(objective, ExactObjective)
    assert not objective.is_exact(Bernoulli(LOGITS))
    exact = bernoulli_expectation(LOGITS, lambda z: linear_precision_log_density(z, X, heads(decoder))).sum(1)
    bound, truth = log_precision_and_truth(decoder, LOGITS)
    found = objective.expectation(Bernoulli(LOGITS))
    assert (found < exact).all()
    torch.testing.assert_close(found + (truth - bound).sum(1), exact, rtol=1e-11, atol=1e-11)


def test_gradients_match_differences():
    """Of the whole objective, to logits and every parameter, in random directions."""
    decoder, logits = decoder_with(), LOGITS.clone().requires_grad_()
    leaves = (logits, *decoder.parameters())
    slopes = gradients(decoder.objective(X).expectation(Bernoulli(logits)).sum(), *leaves)
    h = 1e-6
    for number, (leaf, slope) in enumerate(zip(leaves, slopes, strict=True)):
        direction = normal(*leaf.shape, seed=160 + number)
        values = []
        for step in (h, -2 * h):
            with torch.no_grad():
                leaf += step * direction
                values.append(decoder.objective(X).expectation(Bernoulli(logits)).sum())
        with torch.no_grad():
            leaf += h * direction
        assert float((values[0] - values[1]) / (2 * h)) == pytest.approx(float((slope * direction).sum()), rel=1e-6)


@pytest.mark.parametrize("ratio", [1e-6, 0.01, 0.5, 0.899, 0.901, 0.999, 1 - 1e-8, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_the_bound_is_tight_for_the_two_point_law(ratio, dtype):
    """The parabola meets log s at L and touches it at S: a law on {L, S'} of mean S tends to equality as S' to S."""
    least, probability = ratio, 1e-5
    mean = 1.0
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

    decoder = decoder_with(4, 2)
    with torch.no_grad():
        decoder.precision_head.weight.copy_(tensor(-10, 10, 2, 4))
        decoder.precision_head.bias.copy_(tensor(-30, 10, 2))
    bound, truth = log_precision_and_truth(decoder, tensor(-40, 40, 1, 4))
    assert (bound <= truth + 1e-10 * (1 + truth.abs())).all()


@pytest.mark.parametrize(("ratio", "gap"), [(0.5, 0.006), (0.2, 0.044), (0.05, 0.15)])
def test_gap_to_the_truth(ratio, gap):
    """Twelve bits, normal weights, uniform probabilities: figures of the specification."""
    dimensions, latent_dim = 200, 12
    decoder = decoder_with(latent_dim, dimensions)
    p = torch.rand(1, latent_dim, generator=seeded(157), dtype=DOUBLE)
    with torch.no_grad():
        weight = normal(dimensions, latent_dim, seed=158)
        decoder.precision_head.weight.copy_(weight)
        above_least = (p @ weight.T)[0] + (-weight).clamp_min(0).sum(1)
        decoder.precision_head.bias.copy_((ratio / (1 - ratio) * above_least).expm1().log())
    bound, truth = log_precision_and_truth(decoder, p.logit())
    assert float((truth - bound).detach().mean()) == pytest.approx(gap, rel=0.2)


def test_latent_variables_outside_the_unit_interval_are_refused():
    objective = decoder_with(2).objective(X)
    with pytest.raises(ValueError, match=r"\[0, 1\].*gaussian"):
        objective.expectation(Gaussian(torch.zeros(B, 4, dtype=DOUBLE)))


@pytest.mark.parametrize("latent_dim", [4, 1000])
def test_initial_precision_is_that_of_the_data_for_fair_bits(latent_dim):
    torch.manual_seed(0)
    scale = torch.tensor([0.1, 0.2, 0.5, 1.0, 2.0])
    decoder = PositivePrecisionDecoder(latent_dim, Standardization(torch.zeros(D), scale, 1000.0))
    likelihood = decoder.likelihood(torch.full((1, 1, latent_dim), 0.5))
    torch.testing.assert_close(likelihood.precision_squared[0, 0], scale**-2, rtol=1e-5, atol=0)
    torch.testing.assert_close(decoder.least_precision, torch.full((D,), 0.8), rtol=1e-5, atol=0)
