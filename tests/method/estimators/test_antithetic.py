"""ARM and DisARM on a grid of noise that makes their means exact sums."""

import pytest
import torch
from tests.method.reference import DOUBLE, bernoulli_expectation, gradients, normal, seeded

from silent_gradients.estimators import create
from silent_gradients.posteriors import Bernoulli

P = torch.tensor([[0.25, 0.5, 0.75], [0.75, 0.25, 0.25]], dtype=DOUBLE)
WEIGHT = normal(2, 3, seed=140)


class Product:
    def sampled(self, z):
        return torch.tanh((z * WEIGHT).sum(-1)) + 3 * z.prod(-1)


def grid():
    """Midpoints of the quarters of [0, 1]^3, for every image: [64, 2, 3]."""
    cells = (torch.arange(4, dtype=DOUBLE) + 0.5) / 4
    return torch.cartesian_prod(cells, cells, cells)[:, None].expand(-1, 2, -1)


def estimate(name, uniform, monkeypatch, objective=None):
    """The estimate for one image batch with given noise [S, B, k]."""
    monkeypatch.setattr(torch, "rand", lambda shape, **_: uniform.reshape(shape))
    logits = torch.logit(P).requires_grad_()
    found = create(name, {"samples": len(uniform)})(Bernoulli(logits), objective or Product(), state={})
    return found.value, gradients(found.surrogate.sum(), logits)[0]


@pytest.mark.parametrize("name", ["arm", "disarm"])
def test_exactly_unbiased(name, monkeypatch):
    """With p in quarters everything is constant or linear in u within a cell, so that midpoints average exactly."""
    value, slope = estimate(name, grid(), monkeypatch)
    logits = torch.logit(P).requires_grad_()
    truth = bernoulli_expectation(logits, Product().sampled)
    torch.testing.assert_close(value, truth.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slope, gradients(truth.sum(), logits)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["arm", "disarm"])
def test_each_pair_by_hand(name, monkeypatch):
    logits = torch.logit(P)
    for uniform in torch.rand(20, 1, 2, 3, generator=seeded(141), dtype=DOUBLE):
        _, slope = estimate(name, uniform, monkeypatch)
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
                    expected = 0.5 * (pair[0] - pair[1]) * sign * torch.sigmoid(logits[image, i].abs())
                torch.testing.assert_close(slope[image, i], expected, rtol=1e-12, atol=1e-14)


def test_disarm_is_arm_averaged_over_the_noise_of_a_pair(monkeypatch):
    """Hence its variance is never the larger one; here over all pairs, each with its share of the grid."""
    cells = grid()
    spread = {}
    for name in ("arm", "disarm"):
        slopes = torch.stack([estimate(name, one[None], monkeypatch)[1] for one in cells])
        spread[name] = slopes.var(0)
    assert (spread["disarm"] <= spread["arm"] + 1e-12).all()


@pytest.mark.parametrize("name", ["arm", "disarm"])
def test_a_constant_has_no_gradient(name, monkeypatch):
    class Constant:
        def sampled(self, z):
            return torch.full(z.shape[:2], -1234.5, dtype=z.dtype)

    _, slope = estimate(name, grid(), monkeypatch, Constant())
    assert torch.equal(slope, torch.zeros_like(slope))
