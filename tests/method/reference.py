"""Independent oracles: enumeration of {0,1}^k, Gauss-Hermite quadrature, adaptive quadrature and plain densities.

Nothing here imports the package under test. Everything is float64, and differentiable where it takes tensors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from scipy import integrate, special
from torch import Tensor
from torch.distributions import Normal

DOUBLE = torch.float64

Function = Callable[[Tensor], Tensor]
"""z [S, B, k] -> [S, B, ...]."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    """Standard normal float64 numbers times ``scale``."""
    return scale * torch.randn(*shape, generator=seeded(seed), dtype=DOUBLE)


def codes(latent_dim: int) -> Tensor:
    """All 2^k bit vectors, [2^k, k]."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=latent_dim)), dtype=DOUBLE)


def expectation(family: str, parameters: Tensor, function: Function) -> Tensor:
    """E of function(z) under the posterior family of that name: a sum over all values, or a product of quadratures."""
    return block_expectation(*BLOCKS[family](parameters), function)


def block_expectation(values: Tensor, weights: Tensor, function: Function) -> Tensor:
    """E of function(z), z made of G independent blocks: a sum over all N^G combinations of their values.

    Args:
        values: [B, G, N, C], the N values of each block of C latent variables (or the nodes of a quadrature).
        weights: [B, G, N], their probabilities (or the quadrature's weights).
        function: What is averaged.
    """
    batch, groups, number, _ = values.shape
    choice = torch.cartesian_prod(*[torch.arange(number)] * groups).reshape(-1, groups)
    z = torch.stack([values[:, group, choice[:, group]] for group in range(groups)], 2)  # [B, N^G, G, C]
    volume = torch.stack([weights[:, group, choice[:, group]] for group in range(groups)], 2).prod(2).T
    found = function(z.transpose(0, 1).flatten(2))
    return (volume.reshape(-1, batch, *[1] * (found.ndim - 2)) * found).sum(0)


def one_hot_blocks(logits: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Groups of ``classes`` side by side, of which one is set."""
    groups = logits.reshape(len(logits), -1, classes)
    values = torch.eye(classes, dtype=DOUBLE).expand(*groups.shape, classes)
    return values, groups.exp() / groups.exp().sum(2, keepdim=True)


def counted(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks of a single variable, for values broadcastable to the weights [B, k, N]."""
    return values.expand(weights.shape)[..., None], weights


def two_values(low: float, high: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The blocks of variables with two values, from the logits of the high one."""

    def blocks(logits: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.stack([torch.sigmoid(-logits), torch.sigmoid(logits)], 2)
        return counted(torch.tensor([low, high], dtype=DOUBLE), weights)

    return blocks


def gaussian_blocks(parameters: Tensor, nodes: int = 40) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite for means and log variances."""
    points, weights = (torch.from_numpy(each) for each in special.roots_hermitenorm(nodes))
    mean, log_variance = parameters.chunk(2, dim=1)
    values = mean[..., None] + torch.exp(log_variance / 2)[..., None] * points
    return values[..., None], (weights / weights.sum()).expand(values.shape)


def binomial_blocks(logits: Tensor, trials: int) -> tuple[Tensor, Tensor]:
    count = torch.arange(trials + 1, dtype=DOUBLE)
    ways = torch.tensor([float(math.comb(trials, n)) for n in range(trials + 1)], dtype=DOUBLE)
    p = torch.sigmoid(logits)[..., None]
    return counted(count, ways * p**count * (1 - p) ** (trials - count))


def poisson_blocks(log_rates: Tensor, largest: int = 50) -> tuple[Tensor, Tensor]:
    """Counts up to ``largest``: what is left is below rounding for rates of up to about 5."""
    count = torch.arange(largest + 1, dtype=DOUBLE)
    weights = torch.exp(count * log_rates[..., None] - log_rates[..., None].exp() - torch.lgamma(count + 1))
    return counted(count, weights)


def laplace_blocks(parameters: Tensor, nodes: int = 24) -> tuple[Tensor, Tensor]:
    """Gauss-Laguerre on either side of the peak."""
    points, weights = (torch.from_numpy(each) for each in special.roots_laguerre(nodes))
    location, log_scale = parameters.chunk(2, dim=1)
    values = location[..., None] + log_scale.exp()[..., None] * torch.cat([-points, points])
    return values[..., None], 0.5 * torch.cat([weights, weights]).expand(values.shape)


def uniform_blocks(parameters: Tensor, nodes: int = 24) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre on an interval of width sigmoid(c) at sigmoid(a) of the room that it leaves in [0, 1]."""
    points, weights = (torch.from_numpy(each) for each in special.roots_legendre(nodes))
    place, size = (torch.sigmoid(half)[..., None] for half in parameters.chunk(2, dim=1))
    values = place * (1 - size) + size * (points + 1) / 2
    return values[..., None], (weights / 2).expand(values.shape)


CLASSES, TRIALS = 3, 3
"""Classes of a group and largest count in the tests."""
BLOCKS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "categorical": lambda logits: one_hot_blocks(logits, CLASSES),
    "gaussian": gaussian_blocks,
    "bernoulli": two_values(0, 1),
    "sign": two_values(-1, 1),
    "binomial": lambda logits: binomial_blocks(logits, TRIALS),
    "poisson": poisson_blocks,
    "laplace": laplace_blocks,
    "uniform": uniform_blocks,
}


def fixed_variance_log_density(z: Tensor, x: Tensor, weight: Tensor, bias: Tensor, variance: float) -> Tensor:
    """Log density of x [B, D] under N(W z + b, variance I), per dimension: [S, B, D]."""
    mean = torch.einsum("sbk,dk->sbd", z, weight) + bias
    density: Tensor = Normal(mean, torch.full_like(mean, math.sqrt(variance))).log_prob(x)
    return density


def weighted_error(z: Tensor, x: Tensor, heads: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """(x - m)^2 s^2 for m = A z + a, s = B z + b, heads (A, a, B, b): [S, B, D]."""
    mean, precision = linear_heads(z, heads)
    return (x - mean).square() * precision.square()


def linear_heads(z: Tensor, heads: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """m = A z + a and s = B z + b, each [S, B, D]."""
    weight_m, bias_m, weight_s, bias_s = heads
    return (
        torch.einsum("sbk,dk->sbd", z, weight_m) + bias_m,
        torch.einsum("sbk,dk->sbd", z, weight_s) + bias_s,
    )


def linear_precision_log_density(z: Tensor, x: Tensor, heads: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Log density of x [B, D] under N(m, 1/s^2), per dimension: [S, B, D]."""
    mean, precision = linear_heads(z, heads)
    density: Tensor = Normal(mean, 1 / precision.abs()).log_prob(x)
    return density


def log_linear_precision_log_density(z: Tensor, x: Tensor, heads: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Log density of x [B, D] under N(m, e^(-2 l)) with m and l linear in z, per dimension: [S, B, D]."""
    mean, log_precision = linear_heads(z, heads)
    density: Tensor = Normal(mean, torch.exp(-log_precision)).log_prob(x)
    return density


def expected_log_abs(mean: float, variance: float) -> float:
    """E log|s| for s ~ N(mean, variance), by adaptive quadrature across the logarithmic singularity."""
    if variance == 0:
        return math.log(abs(mean))
    deviation = math.sqrt(variance)
    t = abs(mean) / deviation

    def density(u: float) -> float:
        return math.exp(-u * u / 2) / math.sqrt(2 * math.pi)

    def integrand(u: float) -> float:
        # Relative to log t far from the singularity, so that the sum keeps its digits; the weight integrates to 1.
        return density(u) * (math.log1p(u / t) if t > 20 else math.log(abs(t + u)))

    cuts = [-15.0, -t, 15.0] if t < 15 else [-15.0, 15.0]
    total = sum(
        integrate.quad(integrand, low, high, limit=400, epsabs=1e-13, epsrel=1e-12)[0]
        for low, high in itertools.pairwise(cuts)
    )
    return float(math.log(deviation) + total + (math.log(t) if t > 20 else 0.0))


def expected_log_abs_slopes(mean: float, variance: float) -> tuple[float, float]:
    """Derivatives of E log|s| by mean and variance: g'(t) = sqrt 2 Dawson(t / sqrt 2) and the heat equation."""
    t = mean / math.sqrt(variance)
    slope = math.sqrt(2) * float(special.dawsn(t / math.sqrt(2)))
    # 1 - t g'(t) cancels for large t; its asymptotic series does not.
    curvature = 1 - t * slope if abs(t) < 50 else -(t**-2) - 3 * t**-4 - 15 * t**-6
    return slope / math.sqrt(variance), curvature / (2 * variance)


def gradients(value: Tensor, *wanted: Tensor) -> list[Tensor]:
    """Gradients of a scalar by each wanted tensor, zero where it does not depend on it."""
    found = torch.autograd.grad(value, wanted, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, wanted, strict=True)]


def relative(actual: Tensor, expected: Tensor) -> float:
    """Largest deviation, relative to the largest expected entry."""
    actual, expected = actual.detach(), expected.detach()
    return float((actual - expected).abs().max() / expected.abs().max())
