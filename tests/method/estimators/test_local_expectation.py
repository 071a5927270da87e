import math

import pytest
import torch
from tests.method.reference import DOUBLE, bernoulli_expectation, gradients, normal, seeded
from torch import nn

from silent_gradients.estimators import EstimatorError, create
from silent_gradients.posteriors import Bernoulli

B, K = 3, 5
LOGITS, WEIGHT = normal(B, K, seed=150), normal(B, K, seed=151)


class Product:
    def sampled(self, z):
        return torch.tanh((z * WEIGHT).sum(-1)) + 3 * z.prod(-1)


def slope_at(z, objective, **options):
    """The estimate at forced samples [S, B, k]."""

    class Forced(Bernoulli):
        def sample(self, samples, generator=None):
            return z

    logits = LOGITS.to(z.dtype).requires_grad_()
    estimator = create("local-expectation", {"samples": len(z), **options})
    return gradients(estimator(Forced(logits), objective, state={}).surrogate.sum(), logits)[0]


def test_exactly_unbiased():
    logits = LOGITS.clone().requires_grad_()
    truth = gradients(bernoulli_expectation(logits, Product().sampled).sum(), logits)[0]
    found = bernoulli_expectation(LOGITS, lambda z: torch.stack([slope_at(code[None], Product()) for code in z]))
    torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bits_at_once", [1, 2, 5, 16])
def test_by_hand_and_in_any_number_of_pieces(bits_at_once):
    z = Bernoulli(LOGITS).sample(4, seeded(152))
    expected = torch.zeros(B, K, dtype=DOUBLE)
    p = torch.sigmoid(LOGITS)
    for i in range(K):
        values = []
        for bit in (1.0, 0.0):
            point = z.clone()
            point[..., i] = bit
            values.append(Product().sampled(point))
        expected[:, i] = (p[:, i] * (1 - p[:, i]) * (values[0] - values[1])).mean(0)
    torch.testing.assert_close(slope_at(z, Product(), bits_at_once=bits_at_once), expected, rtol=1e-11, atol=1e-13)


def test_a_sum_over_bits_has_no_variance():
    class Additive:
        def sampled(self, z):
            return (z * WEIGHT).sum(-1)

    p = torch.sigmoid(LOGITS)
    for seed in range(3):
        z = Bernoulli(LOGITS).sample(1, seeded(seed))
        torch.testing.assert_close(slope_at(z, Additive()), p * (1 - p) * WEIGHT, rtol=1e-12, atol=1e-14)


def test_values_are_compared_within_one_batch_where_normalization_joins_them():
    """A function of the whole batch's statistics shifts the values of a group alike, and no difference of theirs."""

    class Shifting:
        calls = 0

        def sampled(self, z):
            Shifting.calls += 1
            return Product().sampled(z) + 1000.0 * Shifting.calls

    z = Bernoulli(LOGITS).sample(2, seeded(153))
    for bits_at_once in (2, 16):
        found = slope_at(z, Shifting(), bits_at_once=bits_at_once)
        torch.testing.assert_close(found, slope_at(z, Product()), rtol=1e-9, atol=1e-9)


def test_flipped_bits_are_evaluated_without_a_gradient():
    network, taped = nn.Linear(K, 1).double(), []

    class Network:
        def sampled(self, z):
            value = network(z)[..., 0]
            taped.append((len(z), value.requires_grad))
            return value

    slope_at(Bernoulli(LOGITS).sample(2, seeded(154)), Network(), bits_at_once=3)
    assert taped == [(2, True), (2 * 4, False), (2 * 3, False)]


@pytest.mark.parametrize("bits_at_once", [0, -1, 1.5, math.nan])
def test_impossible_numbers_of_bits(bits_at_once):
    with pytest.raises(EstimatorError, match="bits_at_once"):
        create("local-expectation", {"bits_at_once": bits_at_once})
