"""Time and memory of a step against k, batch size and image size: the exact gradient beside one sample's.

    python benchmarks/scaling.py [--decoders fixed linear log-linear square cosine] [--rounds 12] [--device cpu]

A step is a posterior's parameters (a leaf, in the encoder's place), the linear decoder's loss and its gradients by the
parameters and the weights; no network, so that nothing hides what the gradient costs. Both kinds of steps take turns.
Where k grows, an exponent is fitted: that of a straight line through the logarithms of the upper half of the sizes.
Decoders of two layers have HIDDEN units, and beside them stand the matrix products of their expectation with their
gradients (``products``), the least that it takes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from measuring import CLOCKS, Spread, hardware, in_turns, now, use_clock

from silent_gradients import (
    Decoder,
    FixedVarianceDecoder,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    Standardization,
    TwoLayerDecoder,
)
from silent_gradients.estimators import create
from silent_gradients.posteriors import FAMILIES
from silent_study.training.device import configure_torch, peak_megabytes, reset_peak, resident_megabytes

TWO_LAYERS = ("square", "cosine")
HIDDEN = 256
LEAST_SECONDS = 0.05
"""Steps are repeated until a measurement takes as long."""

SAMPLED = {"gaussian": "reparameterization", "bernoulli": "gumbel-softmax"}


def decoder(kind: str, latent_dim: int, dimensions: int) -> Decoder:
    """A decoder with its usual start."""
    scale = Standardization(torch.full((dimensions,), 0.5), torch.full((dimensions,), 0.25), 1000.0)
    match kind:
        case "fixed":
            return FixedVarianceDecoder(latent_dim, dimensions, 0.01, scale.mean)
        case "linear":
            return LinearPrecisionDecoder(latent_dim, scale)
        case "square" | "cosine":
            return TwoLayerDecoder(latent_dim, dimensions, HIDDEN, kind, 0.01, scale.mean)
        case _:
            return LogLinearPrecisionDecoder(latent_dim, scale)


def step(
    kind: str, posterior: str, estimator: str, latent_dim: int, batch: int, dimensions: int, device: torch.device
) -> Callable[[], None]:
    """A step of an estimator."""
    torch.manual_seed(0)
    family, model = FAMILIES[posterior], decoder(kind, latent_dim, dimensions).to(device)
    parameters = (0.1 * torch.randn(batch, family.parameters_per_latent * latent_dim, device=device)).requires_grad_()
    x, made = torch.rand(batch, dimensions, device=device), create(estimator)
    leaves = [parameters, *model.parameters()]

    def run() -> None:
        estimate = made(family(parameters), model.objective(x), state=made.initial_state(device))
        torch.autograd.grad(estimate.surrogate.mean(), leaves)

    return run


def products(latent_dim: int, batch: int, dimensions: int, device: torch.device) -> Callable[[], None]:
    """The matrix products that an exact step of two layers cannot do without, and their gradients by both factors.

    Of variances with the products of all pairs of hidden units, of the outer weights with each other, and of means.
    """
    pairs = HIDDEN * (HIDDEN + 1) // 2
    shapes = [
        (batch, latent_dim, pairs),  # Cov(h_r, h_s)
        (HIDDEN, dimensions, HIDDEN),  # U' w U
        (latent_dim, dimensions, HIDDEN),  # A' w U
        (batch, latent_dim, HIDDEN),  # E h
        (batch, latent_dim, HIDDEN),  # Cov(z, y)
        (batch, latent_dim, dimensions),  # A E z
        (batch, HIDDEN, dimensions),  # U E y
    ]
    factors = [
        [torch.rand(shape, device=device, requires_grad=True) for shape in ((rows, inner), (columns, inner))]
        for rows, inner, columns in shapes
    ]
    gradients = [torch.rand(rows, columns, device=device) for rows, _, columns in shapes]

    def run() -> None:
        for (one, other), gradient in zip(factors, gradients, strict=True):
            torch.autograd.grad(one @ other.T, (one, other), gradient)

    return run


def timed(run: Callable[[], None], device: torch.device) -> Callable[[], float]:
    """A measure of a step's milliseconds."""
    run()
    start = now(device)
    run()
    times = max(1, math.ceil(LEAST_SECONDS / max(now(device) - start, 1e-6)))

    def measure() -> float:
        start = now(device)
        for _ in range(times):
            run()
        return (now(device) - start) / times * 1e3

    return measure


def peak(run: Callable[[], None], device: torch.device) -> float:
    """MiB that a step occupies beside what is there before it: on a CPU of the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return float(torch.cuda.max_memory_allocated(device) - before) / 2**20
    before_resident = resident_megabytes()
    reset_peak()
    run()
    return max(0.0, peak_megabytes() - before_resident)


def exponent(sizes: list[int], milliseconds: list[float]) -> float:
    """The slope of log time over log size, in the upper half of the sizes."""
    half = max(0, min(len(sizes) // 2, len(sizes) - 2))
    return statistics.linear_regression(
        [math.log(size) for size in sizes[half:]], [math.log(value) for value in milliseconds[half:]]
    ).slope


def sweep(options: argparse.Namespace, name: str, sizes: list[tuple[int, int, int]], device: torch.device) -> Any:
    """Measure and print steps at some sizes (k, batch, D)."""
    rows: list[dict[str, Any]] = []
    for kind, posterior in product(options.decoders, options.posteriors):
        print(f"\n{name}; {kind} decoder, {posterior}; sampled: {SAMPLED[posterior]}, one sample")
        print(
            f"{'k':>6} {'B':>5} {'D':>6} {'exact ms':>10} {'sampled ms':>11} {'ratio':>6} {'quartiles':>12} {'MiB':>8}"
        )
        exact_medians = []
        for latent_dim, batch, dimensions in sizes:
            own = (latent_dim, batch, dimensions, device)
            exact = step(kind, posterior, "silent", *own)
            megabytes = peak(exact, device)
            sampled = step(kind, posterior, SAMPLED[posterior], *own)
            runs = [exact, sampled, *([products(latent_dim, batch, dimensions, device)] if kind in TWO_LAYERS else [])]
            taken = in_turns([timed(run, device) for run in runs], options.rounds)
            ratio, *over = (
                Spread.of([one / other for one, other in zip(taken[0], least, strict=True)]) for least in taken[1:]
            )
            medians = [statistics.median(each) for each in taken]
            exact_medians.append(medians[0])
            print(
                f"{latent_dim:6} {batch:5} {dimensions:6} {medians[0]:10.3f} {medians[1]:11.3f} {ratio.median:6.2f}"
                f" {ratio.low:5.2f}-{ratio.high:5.2f} {megabytes:8.1f}"
                + "".join(
                    f"  {each.median:.2f} times the {least:.1f} ms of the products"
                    for each, least in zip(over, medians[2:], strict=True)
                ),
                flush=True,
            )
            sized = {"k": latent_dim, "batch": batch, "dimensions": dimensions, "mib": megabytes}
            rows.append({"decoder": kind, "posterior": posterior, **sized, "exact": taken[0], "sampled": taken[1]})
        if name == "latent variables" and len(sizes) > 1:
            print(f"exponent of k: {exponent([size[0] for size in sizes], exact_medians):.2f}")
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--decoders", nargs="+", default=["fixed", "linear"], choices=["fixed", "linear", "log-linear", *TWO_LAYERS]
    )
    parser.add_argument("--posteriors", nargs="+", default=["gaussian"], choices=sorted(SAMPLED))
    parser.add_argument("--latent", nargs="+", type=int, default=[64, 128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--batch", nargs="+", type=int, default=[16, 64, 256, 1024])
    parser.add_argument("--side", nargs="+", type=int, default=[8, 16, 28, 56], help="image sizes, one channel")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", type=use_clock, choices=CLOCKS, help="clock on a CPU; default: wall")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    options = parser.parse_args()
    device = torch.device(options.device)
    configure_torch(options.threads)
    print(
        f"{hardware(device)}; torch {torch.__version__}; n = {options.rounds}; k, B and D are 200, 64 and 784 elsewhere"
    )
    sweeps = {
        "latent variables": [(latent_dim, 64, 784) for latent_dim in options.latent],
        "batch size": [(200, batch, 784) for batch in options.batch],
        "image size": [(200, 64, side**2) for side in options.side],
    }
    document = {"hardware": hardware(device), "torch": torch.__version__}
    document |= {name: sweep(options, name, sizes, device) for name, sizes in sweeps.items()}
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
