"""Estimators for bits by enumeration: antithetic pairs on a grid of noise, and local expectations at every code."""

import pytest
import torch
from tests.method.families import forced
from tests.method.reference import DOUBLE, expectation, gradients, normal, seeded
from torch import nn

from silent_gradients import Bernoulli
from silent_gradients.estimators import create

P = torch.tensor([[0.25, 0.5, 0.75], [0.75, 0.25, 0.25]], dtype=DOUBLE)
B, K = P.shape
LOGITS, WEIGHT = torch.logit(P), normal(B, K, seed=140)


class Product:
    def sampled(self, z):
        return torch.tanh((z * WEIGHT).sum(-1)) + 3 * z.prod(-1)


def truth():
    """The expectation of ``Product`` and its gradient by the logits."""
    logits = LOGITS.clone().requires_grad_()
    value = expectation("bernoulli", logits, Product().sampled)
    return value.detach(), gradients(value.sum(), logits)[0]


def grid():
    """Midpoints of the quarters of [0, 1]^3, for every image: [64, 2, 3]."""
    cells = (torch.arange(4, dtype=DOUBLE) + 0.5) / 4
    return torch.cartesian_prod(cells, cells, cells)[:, None].expand(-1, 2, -1)


def antithetic(name, uniform, monkeypatch, objective=None):
    """The estimate for one image batch with given noise [S, B, k]."""
    monkeypatch.setattr(torch, "rand", lambda shape, **_: uniform.reshape(shape))
    logits = LOGITS.clone().requires_grad_()
    found = create(name, {"samples": len(uniform)})(Bernoulli(logits), objective or Product(), state={})
    return found.value, gradients(found.surrogate.sum(), logits)[0]


@pytest.mark.parametrize("name", ["arm", "disarm"])
def test_pairs_are_exactly_unbiased(name, monkeypatch):
    """With p in quarters everything is constant or linear in u within a cell, so that midpoints average exactly."""
    value, slope = antithetic(name, grid(), monkeypatch)
    for found, exact in zip((value, slope), truth(), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["arm", "disarm"])
def test_each_pair_by_hand(name, monkeypatch):
    for uniform in torch.rand(20, 1, 2, 3, generator=seeded(141), dtype=DOUBLE):
        _, slope = antithetic(name, uniform, monkeypatch)
        for image in range(2):
            u, p = uniform[0, image], P[image]
            first = torch.tensor([float(u[i] > 1 - p[i]) for i in range(3)], dtype=DOUBLE)
            second = torch.tensor([float(u[i] < p[i]) for i in range(3)], dtype=DOUBLE)
            pair = [Product().sampled(bits.expand(1, 2, 3))[0, image] for bits in (first, second)]
            for i in range(3):
                if name == "arm":
                    expected = (pair[0] - pair[1]) * (u[i] - 0.5)
                else:
                    sign = (-1) ** int(second[i]) * float(first[i] != second[i])
                    expected = 0.5 * (pair[0] - pair[1]) * sign * torch.sigmoid(LOGITS[image, i].abs())
                torch.testing.assert_close(slope[image, i], expected, rtol=1e-12, atol=1e-14)


def test_disarm_is_arm_averaged_over_the_noise_of_a_pair(monkeypatch):
    """Hence its variance is never the larger one; here over all pairs, each with its share of the grid."""
    cells = grid()
    spread = {}
    for name in ("arm", "disarm"):
        slopes = torch.stack([antithetic(name, one[None], monkeypatch)[1] for one in cells])
        spread[name] = slopes.var(0)
    assert (spread["disarm"] <= spread["arm"] + 1e-12).all()


def slope_at(z, objective, **options):
    """The local expectations at forced samples [S, B, k]."""
    logits = LOGITS.clone().requires_grad_()
    estimator = create("local-expectation", {"samples": len(z), **options})
    return gradients(estimator(forced(z)(logits), objective, state={}).surrogate.sum(), logits)[0]


def test_local_expectations_are_exactly_unbiased():
    found = expectation("bernoulli", LOGITS, lambda z: torch.stack([slope_at(code[None], Product()) for code in z]))
    torch.testing.assert_close(found, truth()[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bits_at_once", [1, 2, 3, 16])
def test_by_hand_and_in_any_number_of_pieces(bits_at_once):
    z = Bernoulli(LOGITS).sample(4, seeded(152))
    expected = torch.zeros(B, K, dtype=DOUBLE)
    for i in range(K):
        values = []
        for bit in (1.0, 0.0):
            point = z.clone()
            point[..., i] = bit
            values.append(Product().sampled(point))
        expected[:, i] = (P[:, i] * (1 - P[:, i]) * (values[0] - values[1])).mean(0)
    torch.testing.assert_close(slope_at(z, Product(), bits_at_once=bits_at_once), expected, rtol=1e-11, atol=1e-13)


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

    slope_at(Bernoulli(LOGITS).sample(2, seeded(154)), Network(), bits_at_once=2)
    assert taped == [(2, True), (2 * 3, False), (2 * 2, False)]
