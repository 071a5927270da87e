"""What the published numbers imply about settings that the text has lost: the tables of docs/hidden-settings.md.

    python studies/implied_settings.py [--mnist data/prepared/mnist] [--cifar10 data/prepared/cifar10]

Arithmetic on the published numbers and, where folders are given, on covariances of images; nothing is trained.
"""

from __future__ import annotations

import argparse
import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from silent_gradients.evaluation.limits import Limit, LinearModel, Moments
from silent_study.data.prepared import Images, PreparedData
from silent_study.paper import PUBLISHED, PUBLISHED_MSE

LEVELS = 256
DIMENSIONS = {"mnist": 28 * 28, "imagenet32": 3 * 32 * 32, "cifar10": 3 * 32 * 32}
METHODS = ("silent-gaussian", "reparameterization", "silent-bernoulli", "gumbel-softmax", "reinforce")
FIXED = {method: PUBLISHED[f"mnist/fixed/{method}"] for method in METHODS}
LEARNABLE = {cell: values for cell, values in PUBLISHED.items() if "/learnable/" in cell}
VARIANCES = (0.1, 0.05, 0.02, 0.01, 0.005, 0.001)
LATENT_DIMS = (128, 170, 200, 256)
POSSIBLE_LATENT_DIMS = (186, 200, 222)
COLOUR_LATENT_DIMS = (256, 645, 1024)
CHOSEN = 0.01


def negative_elbo(bpd: float, dimensions: int) -> float:
    """Nats per image of x in [0, 1): the inverse of ``bits_per_dimension``."""
    return (bpd - math.log2(LEVELS)) * dimensions * math.log(2)


def implied_kl(bpd: float, expected_squared_error: float, variance: float, dimensions: int) -> float:
    """Return the KL divergence in ``-ELBO = D/2 ln(2 pi s) + E|x - m(z)|^2 / (2 s) + KL``, in nats."""
    constant = dimensions / 2 * math.log(2 * math.pi * variance)
    return negative_elbo(bpd, dimensions) - constant - expected_squared_error / (2 * variance)


def least_bits(kl: float) -> int:
    """Return the least number of bits with this KL divergence to the uniform prior: each has at most ln 2 nats."""
    return math.ceil(kl / math.log(2))


def equivalent_deviation(bpd: float, kl: float, dimensions: int) -> float:
    """Return the standard deviation, in grey levels, at which a Gaussian has the published reconstruction term."""
    reconstruction = negative_elbo(bpd, dimensions) - kl
    return LEVELS * math.exp(reconstruction / dimensions - 0.5 * math.log(2 * math.pi * math.e))


def tables_of_the_numbers() -> dict[str, str]:
    """Tables that need no data, by name."""
    kls = [
        [method, *(f"{implied_kl(row['bpd'], row[PUBLISHED_MSE], variance, 784):.0f}" for variance in VARIANCES)]
        for method, row in FIXED.items()
    ]
    by_method: dict[str, dict[str, dict[str, float]]] = {}
    for cell, values in LEARNABLE.items():
        dataset, _, method = cell.split("/")
        by_method.setdefault(method, {})[dataset] = values
    bits = [
        [method, *(f"{row[dataset]['kl']:.2f}: {least_bits(row[dataset]['kl'])}" for dataset in DIMENSIONS)]
        for method, row in by_method.items()
        if method.startswith(("silent-bernoulli", "gumbel-softmax", "reinforce"))
    ]
    deviations = []
    for method, row in by_method.items():
        entries = []
        for dataset, dimensions in DIMENSIONS.items():
            bpd, kl = row[dataset]["bpd"], row[dataset]["kl"]
            share = kl / dimensions / math.log(2)
            entries.append(f"{equivalent_deviation(bpd, kl, dimensions):.2f} ({share:.2f})")
        deviations.append([method, *entries])
    precision, steps = LEVELS * math.sqrt(12), 200 * (60_000 // 64)
    head = [
        ["precision 1/σ of the dequantization noise", f"{precision:.0f}"],
        ["bits that a pixel costs which never varies, at this precision", f"{math.log2(math.pi * math.e / 6) / 2:.3f}"],
        ["steps in 200 epochs of batches of 64", f"{steps}"],
        [
            "least rate at which AdamW takes a bias from 1 to this precision in so many steps",
            f"{precision / steps:.4f}",
        ],
    ]
    return {
        "KL divergence of Table 2 by variance": markdown(["method", *map(str, VARIANCES)], kls),
        "Least number of bits": markdown(["method", *DIMENSIONS], bits),
        "Equivalent deviation": markdown(["method", *DIMENSIONS], deviations),
        "Precision head": markdown(["", "MNIST"], head),
    }


@dataclass(frozen=True, eq=False)
class Mnist:
    """MNIST's training and test images, uint8, and their moments."""

    train_images: Images
    test_images: Images
    train: Moments
    test: Moments

    @classmethod
    def read(cls, folder: Path) -> Mnist:
        """From the folder of the prepared data set."""
        prepared = PreparedData.open(folder)
        return cls(
            prepared.train, prepared.test, *(Moments.of(part, LEVELS) for part in (prepared.train, prepared.test))
        )

    def carried(self, latent_dim: int, variance: float) -> Limit:
        """Return the optimum of the training images, evaluated on the test images."""
        return LinearModel.with_variance(self.train, latent_dim, variance).limit(self.test)

    def held_out(self, count: int) -> Callable[[int, float], Limit]:
        """By k and variance: the optimum of all training images but the last so many, valued on those."""
        kept, held = (Moments.of(part, LEVELS) for part in (self.train_images[:-count], self.train_images[-count:]))
        return lambda latent_dim, variance: LinearModel.with_variance(kept, latent_dim, variance).limit(held)

    def oracle(self, latent_dim: int, variance: float) -> Limit:
        """Return the optimum of the test images, which no model exceeds there."""
        return LinearModel.with_variance(self.test, latent_dim, variance).limit(self.test)


def least_bpd(optimum: Callable[[float], Limit], expected_squared_error: float, dimensions: int) -> float:
    """Return the least bits/dim under ``CHOSEN`` that a family of linear decoders has with a certain error.

    For every variance s, ``KL + E / (2 s)`` is least at the optimum of s: each s bounds the KL divergence of every
    model from below by a line in its error E, and the s whose optimum has the asked-for error touches the bound there.

    Args:
        optimum: The optimum by variance. Fitted to the images that it is valued on, it makes the result a limit;
            fitted to others, it is what models reach that were fitted to those.
        expected_squared_error: The error E, summed over pixels.
        dimensions: Number of pixels D.
    """
    s = crossing(lambda s: optimum(s).expected_squared_error - expected_squared_error, 0.002, 0.02)
    nats = dimensions / 2 * math.log(2 * math.pi * CHOSEN) + expected_squared_error / (2 * CHOSEN) + optimum(s).kl
    return math.log2(LEVELS) + nats / (dimensions * math.log(2))


def tables_of_mnist(mnist: Mnist) -> dict[str, str]:
    """Tables that need MNIST's images, by name."""
    limits = [[str(k), *(f"{mnist.carried(k, variance).bpd:.3f}" for variance in VARIANCES)] for k in LATENT_DIMS]
    optima = []
    for k in LATENT_DIMS:
        limit = mnist.carried(k, CHOSEN)
        errors = (limit.expected_squared_error, limit.mean_decoded_squared_error)
        optima.append([str(k), f"{limit.bpd:.4f}", f"{limit.kl:.0f}", *(f"{error:.2f}" for error in errors)])
    published, rounding = FIXED["silent-gaussian"]["bpd"], 0.0005
    error = FIXED["silent-gaussian"][PUBLISHED_MSE]
    last_10k, last_6k = mnist.held_out(10_000), mnist.held_out(6_000)
    splits = [
        [str(k), *(f"{optimum(k, CHOSEN).bpd:.4f}" for optimum in (last_6k, last_10k, mnist.carried))]
        for k in POSSIBLE_LATENT_DIMS
    ]
    facts = [
        [
            f"largest variance under which some k allows {published}",
            f"{crossing(lambda s: mnist.oracle(783, s).bpd - published - rounding, 0.008, 0.02):.4f}",
        ],
        [
            f"least k whose optimum, carried over from the training images, has {published}",
            str(least(lambda k: mnist.carried(k, CHOSEN).bpd < published + rounding)),
        ],
        [
            f"least k that allows {published} at all",
            str(least(lambda k: mnist.oracle(k, CHOSEN).bpd < published + rounding)),
        ],
        [
            "least k from which variance 0.001 is better than 0.01",
            str(least(lambda k: mnist.carried(k, 0.001).bpd < mnist.carried(k, CHOSEN).bpd)),
        ],
        [
            f"least k whose optimum for the first 50,000 training images has {published} on the last 10,000",
            str(least(lambda k: last_10k(k, CHOSEN).bpd < published + rounding)),
        ],
        [
            "least k from which variance 0.001 is better than 0.01 on the last 10,000",
            str(least(lambda k: last_10k(k, 0.001).bpd < last_10k(k, CHOSEN).bpd)),
        ],
        [
            f"least bits/dim that some k allows with an expected squared error of {error}",
            f"{least_bpd(lambda s: mnist.oracle(783, s), error, 784):.4f}",
        ],
        [
            "the same of optima carried over from the training images",
            f"{least_bpd(lambda s: mnist.carried(783, s), error, 784):.4f}",
        ],
    ]
    return {
        "Limits by k and variance": markdown(["k", *map(str, VARIANCES)], limits),
        "Optima under variance 0.01": markdown(
            ["k", "bits/dim", "KL", "squared error of samples", "squared error at the mean"], optima
        ),
        "Optima by split under variance 0.01": markdown(
            ["k", "last 6,000 training images", "last 10,000 training images", "test images"], splits
        ),
        "What 6.718 allows": markdown(["on MNIST's test images, variance 0.01 where none is named", ""], facts),
    }


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Probabilistic PCA with the best variance for every k from 0 to D - 1, out of one decomposition.

    ``LinearModel`` decomposes the covariance for each k and variance; here only the sums over directions differ.

    Attributes:
        bpd: Bits/dim of the evaluated images, [D].
        kl: KL divergence in nats per image, [D].
        deviation: Standard deviation of the likelihood in grey levels, [D].
    """

    bpd: NDArray[np.float64]
    kl: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def read(cls, folder: Path) -> PrincipalComponents:
        """Of the training images of a prepared data set, valued on its test images."""
        prepared = PreparedData.open(folder)
        return cls.of(*(Moments.of(images, LEVELS) for images in (prepared.train, prepared.test)))

    @classmethod
    def of(cls, fitted: Moments, evaluated: Moments) -> PrincipalComponents:
        """Return the optima of the fitted images, evaluated on others."""
        dimensions = len(fitted.mean)
        ascending, vectors = np.linalg.eigh(fitted.covariance)
        eigenvalues, directions = ascending[::-1], vectors[:, ::-1]
        shift = evaluated.mean - fitted.mean
        scatter = evaluated.covariance + np.outer(shift, shift)
        spread = ((scatter @ directions) * directions).sum(axis=0)
        used = np.arange(dimensions)

        def first(values: NDArray[np.float64]) -> NDArray[np.float64]:
            """Return sums over the first k directions, for k from 0 to D - 1."""
            return np.concatenate([[0.0], np.cumsum(values)[:-1]])

        variance = (eigenvalues.sum() - first(eigenvalues)) / (dimensions - used)
        left = spread.sum() - first(spread)
        nats = dimensions * math.log(2 * math.pi) + (dimensions - used) * np.log(variance) + left / variance
        nats = (nats + first(np.log(eigenvalues) + spread / eigenvalues)) / 2
        # With r = variance / eigenvalue: (1 - r) spread / eigenvalue + r - 1 - log r.
        kl = first(spread / eigenvalues) - variance * first(spread / eigenvalues**2) + variance * first(1 / eigenvalues)
        kl = (kl - used - used * np.log(variance) + first(np.log(eigenvalues))) / 2
        bpd = math.log2(fitted.levels) + nats / (dimensions * math.log(2))
        return cls(bpd, kl, fitted.levels * np.sqrt(variance))


def tables_of_cifar10(components: PrincipalComponents) -> dict[str, str]:
    """Tables that need CIFAR-10's images, by name."""

    def row(k: int) -> list[str]:
        return [f"{components.bpd[k]:.2f}", f"{components.kl[k]:.0f}", f"{components.deviation[k]:.2f}"]

    rivals = []
    for cell, values in LEARNABLE.items():
        dataset, _, method = cell.split("/")
        if dataset == "cifar10":
            k = int(np.argmax(components.bpd < values["bpd"]))
            rivals.append([method, f"{values['bpd']:.2f}", f"{values['kl']:.0f}", f"{k}", f"{components.kl[k]:.0f}"])
    return {
        "Probabilistic PCA on CIFAR-10": markdown(
            ["k", "bits/dim", "KL", "deviation, grey levels"], [[str(k), *row(k)] for k in COLOUR_LATENT_DIMS]
        ),
        "Probabilistic PCA below the published rows": markdown(
            ["method", "bits/dim, published", "KL, published", "least k of PCA below it", "its KL"], rivals
        ),
    }


def least(holds: Callable[[int], bool]) -> int:
    """Return the least k below 784 from which on a condition holds."""
    return bisect.bisect_left(range(784), True, key=holds)


def crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """Where an increasing function is zero, to a relative 1e-6."""
    from scipy.optimize import brentq

    return float(brentq(function, low, high, rtol=1e-6))


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table as in docs/."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="folder of the prepared MNIST, for the tables that need its images")
    parser.add_argument("--cifar10", type=Path, help="folder of the prepared CIFAR-10, for those that need its images")
    options = parser.parse_args()
    tables = tables_of_the_numbers()
    if options.mnist is not None:
        tables |= tables_of_mnist(Mnist.read(options.mnist))
    if options.cifar10 is not None:
        tables |= tables_of_cifar10(PrincipalComponents.read(options.cifar10))
    for name, table in tables.items():
        print(f"{name}\n\n{table}\n")


if __name__ == "__main__":
    main()
