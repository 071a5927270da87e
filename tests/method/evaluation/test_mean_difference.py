"""The test of means against its definition, written as loops, and against its own law."""

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from silent_gradients.evaluation.mean_difference import mean_difference

Real = NDArray[np.float64]


def normal(seed: int, count: int, dimensions: int = 30) -> Real:
    """Samples of correlated coordinates of different sizes."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dimensions, dimensions)) * np.linspace(0.3, 1, dimensions)
    samples: Real = generator.normal(size=(count, dimensions)) @ mixing
    return samples


def by_loops(x: Real, y: Real) -> float:
    """z of Chen and Qin's (2010) two-sample statistic as they write it, the second mean moved to the origin."""
    x, y = x - y.mean(0), y - y.mean(0)
    n, m = len(x), len(y)

    def pairs(a: Real) -> float:
        return sum(a[i] @ a[j] for i, j in itertools.permutations(range(len(a)), 2)) / (len(a) * (len(a) - 1))

    def own(a: Real) -> float:
        total = 0.0
        for j, k in itertools.permutations(range(len(a)), 2):
            rest = np.delete(a, [j, k], axis=0).mean(0)
            total += (a[j] - rest) @ a[k] * ((a[k] - rest) @ a[j])
        return total / (len(a) * (len(a) - 1))

    cross = 0.0
    for i, k in itertools.product(range(n), range(m)):
        cross += ((x[i] - np.delete(x, i, axis=0).mean(0)) @ y[k]) * ((y[k] - np.delete(y, k, axis=0).mean(0)) @ x[i])
    statistic = pairs(x) + pairs(y) - 2 * (x @ y.T).mean()
    variance = 2 * own(x) / (n * (n - 1)) + 2 * own(y) / (m * (m - 1)) + 4 * cross / (n * m) / (n * m)
    return float(statistic / np.sqrt(variance))


def found(x: Real, y: Real) -> tuple[float, float]:
    relative, z = mean_difference(torch.from_numpy(x), torch.from_numpy(y))
    return relative, z


@pytest.mark.parametrize("shift", [0.0, 0.5, 5.0])
def test_two_samples_are_compared_as_the_definition_says(shift):
    x, y = normal(0, 9) + shift + 1, normal(1, 14) + 1
    assert found(x, y)[1] == pytest.approx(by_loops(x, y), rel=1e-9)


def test_without_a_difference_it_is_standard_normal():
    mean = np.ones(30)
    one = [found(normal(seed, 40) + mean, mean[None])[1] for seed in range(600)]
    two = [found(normal(seed, 40) + mean, normal(seed + 10_000, 60) + mean)[1] for seed in range(600)]
    for values in (one, two):
        assert np.mean(values) == pytest.approx(0, abs=4 / np.sqrt(600))
        assert np.std(values) == pytest.approx(1, abs=0.2)  # heavier to the right
        assert np.mean(np.array(values) > 4) < 0.02


def test_the_size_of_a_difference_is_estimated_without_bias():
    mean, shift = np.linspace(1, 2, 30), np.full(30, 0.4)
    expected = np.linalg.norm(shift) / np.linalg.norm(mean)
    sizes = [found(normal(seed, 50) + mean + shift, mean[None])[0] ** 2 for seed in range(400)]
    assert np.mean(sizes) == pytest.approx(expected**2, rel=0.1)
    sizes = [found(normal(seed, 50) + mean + shift, normal(seed + 10_000, 80) + mean)[0] ** 2 for seed in range(400)]
    assert np.mean(sizes) == pytest.approx(expected**2, rel=0.2)


def test_samples_without_a_spread_differ_by_rounding_or_by_more():
    mean = np.linspace(1, 2, 30)
    same = np.repeat(mean[None], 7, axis=0)
    assert found(same, mean[None]) == (0.0, 0.0)
    assert abs(found(same * (1 + 1e-7), mean[None])[1]) < 0.1
    relative, z = found(same * 1.01, mean[None])
    assert relative == pytest.approx(0.01)
    assert z > 1000
    assert found(0 * same, 0 * mean[None]) == (0.0, 0.0)


def test_heavy_tails_and_extreme_scales_stay_finite():
    heavy = normal(0, 20) * np.random.default_rng(5).standard_t(2, size=(20, 1))
    for scale in (1e-30, 1.0, 1e30):
        assert np.isfinite(found(scale * heavy, scale * normal(1, 20))).all()


@pytest.mark.parametrize(("first", "second"), [(3, 5), (5, 3), (5, 0)])
def test_too_few_samples_are_refused(first, second):
    with pytest.raises(ValueError, match="4 samples or more"):
        found(normal(0, first), normal(1, second))
