"""Moments under exponential tilting: by the sum over all latents, in bounded memory, and where float32 is short."""

import math

import pytest
import torch
from tests.method.families import FAMILIES, LATENTS, family_parameters
from tests.method.reference import DOUBLE, expectation, gradients, normal, relative
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from silent_gradients.posteriors import tilting
from silent_gradients.posteriors.tilting import tilted_bits

B, K, D = 3, 6, 5
PARAMETERS = family_parameters(B, seed=1)


def problem(dtype=DOUBLE, batch=B, latents=K, dimensions=D, scale=2.0):
    """Logits, weight and exponent."""
    shapes = ((batch, latents), (dimensions, latents), (dimensions, latents))
    return [normal(*shape, seed=seed, scale=scale).to(dtype).requires_grad_() for seed, shape in enumerate(shapes, 700)]


def all_gradients(outputs, inputs, seed=710):
    """Of the outputs in one random direction."""
    total = sum((out * normal(*out.shape, seed=seed + i).to(out.dtype)).sum() for i, out in enumerate(outputs))
    return gradients(total, *inputs)


@pytest.mark.parametrize("dimensions_at_once", [1, 2, 100])
@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.has_tilted_moments()])
def test_moments_and_gradients_equal_the_sum_over_all_latents(name, dimensions_at_once, monkeypatch):
    k = LATENTS[name]
    monkeypatch.setattr(tilting, "CHUNK_BYTES", {"cpu": dimensions_at_once * B * k * 8})
    weight, exponent = normal(D, k, seed=13).requires_grad_(), normal(D, k, seed=14, scale=0.7).requires_grad_()
    parameters = PARAMETERS[name].clone().requires_grad_()

    def tilted(function):
        return expectation(name, parameters, lambda z: (z @ exponent.T).exp() * function(z @ weight.T))

    normalizer = tilted(torch.ones_like)
    mean = tilted(lambda m: m) / normalizer
    exact = normalizer.log(), mean, tilted(lambda m: (m - mean) ** 2) / normalizer
    found = FAMILIES[name](parameters).tilted_moments(weight, exponent)
    inputs = (parameters, weight, exponent)
    for ours, wanted in zip(found, exact, strict=True):
        assert ours.shape == (B, D)
        assert relative(ours, wanted) < 1e-12
        for slope, true_slope in zip(all_gradients([ours], inputs), all_gradients([wanted], inputs), strict=True):
            torch.testing.assert_close(slope, true_slope, rtol=1e-10, atol=1e-11)


def test_no_tensor_outgrows_the_budget_and_none_is_kept(monkeypatch):
    """Forward and backward at D = 50, four dimensions at once; what autograd keeps is its input alone."""
    batch, latents, dimensions = 8, 16, 50
    budget = 4 * batch * latents * 4
    monkeypatch.setattr(tilting, "CHUNK_BYTES", {"cpu": budget})
    inputs = problem(torch.float32, batch, latents, dimensions, 0.5)
    made: list[int] = []
    kept: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made_here = func(*args, **(kwargs or {}))
            outputs = made_here if isinstance(made_here, tuple | list) else [made_here]
            made.extend(out.untyped_storage().nbytes() for out in outputs if isinstance(out, torch.Tensor))
            return made_here

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with Sizes():
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            total = torch.stack([out.square().sum() for out in tilted_bits(*inputs)]).sum()
        forward = len(made)
        torch.autograd.grad(total, inputs)
    # Every chunk of either pass is seen, and the budget is used.
    assert forward > 13 * 5
    assert len(made) - forward > 13 * 5
    largest_without_chunks = max(batch * dimensions, dimensions * latents) * 4
    assert max(made) == max(budget, largest_without_chunks)
    assert max(kept) <= dimensions * latents < batch * latents * dimensions / 4


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_saturated_bits_keep_the_digits_of_the_normalizer(dtype):
    """log E e^(t z) = t where z = 1: softplus(1e4 + t) - softplus(1e4) would lose all of a small t in float32."""
    logits = torch.tensor([[1e4], [-1e4], [30.0], [-30.0], [math.inf], [-math.inf]], dtype=dtype)
    exponent = torch.tensor([[1e-4], [3.0], [-50.0], [200.0]], dtype=dtype)
    found, mean, variance = tilted_bits(logits, torch.ones_like(exponent), exponent)
    p, rest = torch.sigmoid(logits.double()), torch.sigmoid(-logits.double())
    exact = exponent.double().T * (p > 0.5)
    for image, row in ((2, 0), (2, 2), (2, 3), (3, 0), (3, 1), (3, 3)):
        exact[image, row] = math.log(float(rest[image] + p[image] * exponent[row].double().exp()))
    torch.testing.assert_close(found.double(), exact, rtol=1e-6 if dtype == torch.float32 else 1e-9, atol=1e-12)
    assert ((mean == 0) | (mean == 1))[[0, 1, 4, 5]].all()
    assert (variance[[0, 1, 4, 5]] == 0).all()


def test_second_derivatives_are_refused_where_they_are_asked_for():
    inputs = problem()
    (slope,) = torch.autograd.grad(tilted_bits(*inputs)[0].sum(), inputs[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        torch.autograd.grad(slope.sum(), inputs[:1])


@pytest.mark.parametrize("x", [0.0, 1e-12, 1e-3, 0.5, 0.999, 1.0, 1.001, 3.0, 50.0, 800.0, 1e4])
@pytest.mark.parametrize("sign", [-1, 1])
def test_log_sinh_ratio(x, sign):
    """Against sixty digits."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        y = mpmath.mpf(sign * x)
        exact = [mpmath.mpf(0), y / 3, mpmath.mpf(1) / 3]
        if x > 1e-9:
            exact = [mpmath.log(mpmath.sinh(y) / y), mpmath.coth(y) - 1 / y, 1 / y**2 - 1 / mpmath.sinh(y) ** 2]
        wanted = [float(each) for each in exact]
    for dtype, tolerance in ((DOUBLE, 2e-15), (torch.float32, 2e-6)):
        found = tilting.log_sinh_ratio(torch.tensor(sign * x, dtype=dtype))
        for ours, each in zip(found, wanted, strict=True):
            assert float(ours) == pytest.approx(each, rel=tolerance, abs=1e-20)
