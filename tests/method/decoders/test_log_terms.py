import math

import numpy as np
import pytest
import torch
from scipy import integrate, special
from tests.method.reference import DOUBLE, expected_log_abs, expected_log_abs_slopes

from silent_gradients.decoders import log_terms

T = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 65)])
V = np.geomspace(1e-12, 1e6, 10)


def scalar(value, dtype=DOUBLE):
    return torch.tensor(value, dtype=dtype)


def test_the_reference_agrees_with_the_closed_form():
    for t in (0.0, 0.3, 1.0, 4.0, 12.0, 30.0):
        area, _ = integrate.quad(
            lambda u: 2 * special.dawsn(u), 0, t / math.sqrt(2), epsabs=1e-13, epsrel=1e-12, limit=200
        )
        assert expected_log_abs(t, 1.0) == pytest.approx(-(np.euler_gamma + math.log(2)) / 2 + area, abs=1e-10)
    h = 1e-4
    for t in (0.3, 2.0, 60.0):
        by_mean, by_variance = expected_log_abs_slopes(t, 1.0)
        assert (expected_log_abs(t + h, 1) - expected_log_abs(t - h, 1)) / (2 * h) == pytest.approx(by_mean, abs=1e-6)
        slope = (expected_log_abs(t, 1 + h) - expected_log_abs(t, 1 - h)) / (2 * h)
        assert slope == pytest.approx(by_variance, abs=1e-6)


def test_largest_overestimates():
    t = torch.linspace(0.01, 50, 20_000, dtype=DOUBLE)
    exact = log_terms.normal(t, torch.ones_like(t))
    second = log_terms.taylor_of_square(t, torch.ones_like(t), None, None) - exact
    first = log_terms.taylor(t, torch.ones_like(t)) - exact
    assert second.max() == pytest.approx(0.1812, abs=6e-5)
    assert t[second.argmax()] == pytest.approx(1.089, abs=5e-3)
    assert first.max() == pytest.approx(0.0484, abs=6e-5)
    assert t[first.argmax()] == pytest.approx(1.920, abs=5e-3)


def test_float32_accuracy_over_the_whole_range():
    pairs = [(float(np.float32(t * math.sqrt(v))), float(np.float32(v))) for t in T for v in V]
    pairs += [(float(np.float32(s)), 0.0) for s in np.geomspace(1e-6, 1e7, 30)]
    exact = np.array([expected_log_abs(*pair) for pair in pairs])
    mean, variance = torch.tensor(pairs, dtype=torch.float32).unbind(1)
    ulp = np.spacing(np.abs(exact).astype(np.float32))
    for sign in (1, -1):
        found = log_terms.normal(sign * mean, variance)
        assert found.dtype == torch.float32
        assert (np.abs(found.double().numpy() - exact) - ulp).max() < 4e-7
    high = log_terms.normal(mean.double(), variance.double()).numpy()
    assert np.abs(high - exact).max() < 1e-12  # the quadrature's error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_accuracy_over_the_whole_range(dtype):
    pairs = [(float(np.float32(t * math.sqrt(v))), float(np.float32(v))) for t in T for v in V]
    exact = torch.tensor([expected_log_abs_slopes(*pair) for pair in pairs], dtype=DOUBLE)
    mean, variance = torch.tensor(pairs, dtype=dtype).unbind(1)
    second_moment = mean.double() ** 2 + variance.double()
    variance.requires_grad_()
    for sign in (1, -1):
        signed = (sign * mean).requires_grad_()
        by_mean, by_variance = torch.autograd.grad(log_terms.normal(signed, variance).sum(), (signed, variance))
        assert by_mean.dtype == dtype
        limits = (1e-6, 2e-6) if dtype == torch.float32 else (1e-12, 4e-9)  # float32's, or the reference's
        assert ((sign * by_mean.double() - exact[:, 0]) * second_moment.sqrt()).abs().max() < limits[0]
        assert ((by_variance.double() - exact[:, 1]) * second_moment).abs().max() < limits[1]


def test_second_derivatives_of_the_normal_term():
    """By the heat equation d/dV = 1/2 d^2/dS^2, and the third derivative of g is -t g'' - g'."""
    variance = torch.tensor(V, dtype=DOUBLE).repeat_interleave(len(T)).requires_grad_()
    mean = (torch.tensor(T, dtype=DOUBLE).repeat(len(V)) * variance.detach().sqrt()).requires_grad_()
    pairs = zip(mean.tolist(), variance.tolist(), strict=True)
    by_mean, by_variance = torch.tensor([expected_log_abs_slopes(*pair) for pair in pairs], dtype=DOUBLE).unbind(1)
    v, root = variance.detach(), variance.detach().sqrt()
    t = mean.detach() / root
    third = torch.where(t < 50, -t * 2 * by_variance * v - by_mean * root, 2 / t**3 + 12 / t**5 + 90 / t**7)
    second_moment = mean.detach() ** 2 + v
    slopes = torch.autograd.grad(log_terms.normal(mean, variance).sum(), (mean, variance), create_graph=True)
    twice = torch.autograd.grad(slopes[0].sum(), (mean, variance), retain_graph=True)
    assert ((twice[0] - 2 * by_variance) * second_moment).abs().max() < 1e-8
    assert ((twice[1] - third / (2 * root**3)) * second_moment**1.5).abs().max() < 1e-7


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # torch's own, in forward mode
def test_forward_mode_gives_the_same_derivatives():
    mean, variance = torch.linspace(-3, 3, 7, dtype=DOUBLE), torch.linspace(0.1, 2, 7, dtype=DOUBLE)
    for argument in (0, 1):
        reverse, forward = (
            mode(log_terms.normal, argument)(mean, variance) for mode in (torch.func.jacrev, torch.func.jacfwd)
        )
        torch.testing.assert_close(forward, reverse, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("expansion", [log_terms.taylor, log_terms.taylor_of_square])
def test_what_keeps_expansions_finite_is_below_the_type_s_precision(expansion):
    """A share of the variance, which is felt in float32 alone, and the constants near 0."""
    mean, variance = scalar(1e-5), scalar(1e-9)
    more = () if expansion is log_terms.taylor else (None, None)
    square = mean**2 + (0 if expansion is log_terms.taylor else variance)
    second = variance if expansion is log_terms.taylor else (4 * mean**2 * variance + 2 * variance**2) / square / 2
    torch.testing.assert_close(
        expansion(mean, variance, *more), 0.5 * square.log() - 0.5 * second / square, rtol=1e-13, atol=0
    )


def test_limit_of_no_variance():
    mean = torch.tensor([-1e3, -1.0, 1e-3, 2.0, 1e6], requires_grad=True)
    value = log_terms.normal(mean, torch.zeros(5))
    torch.testing.assert_close(value, mean.detach().abs().log())
    (slope,) = torch.autograd.grad(value.sum(), mean)
    torch.testing.assert_close(slope, 1 / mean.detach(), rtol=1e-5, atol=0)


def test_square_expansion_with_third_and_fourth_cumulants():
    # s in {-1, 2, 3} with probabilities (.2, .5, .3): moments by hand.
    values, probabilities = np.array([-1.0, 2.0, 3.0]), np.array([0.2, 0.5, 0.3])
    mean = probabilities @ values
    second, third, fourth = (probabilities @ (values - mean) ** order for order in (2, 3, 4))
    square = probabilities @ values**2
    variance_of_square = probabilities @ values**4 - square**2
    exact = 0.5 * (math.log(square) - variance_of_square / (2 * square**2))
    found = log_terms.taylor_of_square(*(scalar(c) for c in (mean, second, third, fourth - 3 * second**2)))
    assert float(found) == pytest.approx(exact, rel=1e-13)


CUMULANTS = {
    "normal": log_terms.normal,
    "taylor": log_terms.taylor,
    "taylor-square": lambda mean, variance: log_terms.taylor_of_square(mean, variance, None, None),
    "taylor-square-skewed": lambda mean, variance: log_terms.taylor_of_square(mean, variance, variance, variance),
}


@pytest.mark.parametrize("name", CUMULANTS)
def test_finite_where_mean_or_variance_vanish(name):
    for mean, variance in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1e-10, 0.0), (0.0, 1e-12), (1e-10, 1e-3), (0.0, 100.0)):
        leaves = [torch.tensor(value, requires_grad=True) for value in (mean, variance)]
        value = CUMULANTS[name](*leaves)
        assert torch.isfinite(value), (mean, variance)
        for slope in torch.autograd.grad(value, leaves):
            assert torch.isfinite(slope), (mean, variance)
