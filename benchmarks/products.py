"""Matrix products of a linear layer, PyTorch's (MKL) and oneDNN's in turns: forward, and both gradients.

    python benchmarks/products.py [--sizes 64x6272x400 64x200x784] [--rounds 20] [--clock cpu]

A size is batch x inputs x outputs. A ratio above 1 says that oneDNN is faster than PyTorch's choice here; its operands
are contiguous, and the copies that this takes count.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from measuring import CLOCKS, hardware, in_turns, now, use_clock
from torch import Tensor

from silent_study.training.device import configure_torch

TIMES = 10


def onednn(rows: Tensor, columns: Tensor) -> Tensor:
    """Return rows @ columns.T."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(rows.contiguous(), columns.contiguous(), None, "none", [], "")
    return found


def timed(product: Callable[[Tensor, Tensor], Tensor], rows: Tensor, columns: Tensor) -> Callable[[], float]:
    """A measure of a product's milliseconds."""

    def measure() -> float:
        start = now(rows.device)
        for _ in range(TIMES):
            product(rows, columns)
        return (now(rows.device) - start) / TIMES * 1e3

    return measure


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["64x6272x400", "64x400x400", "64x200x784", "64x64x64"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", type=use_clock, choices=CLOCKS, help="default: wall")
    options = parser.parse_args()
    configure_torch(options.threads)
    print(f"{hardware(torch.device('cpu'))}; torch {torch.__version__}; n = {options.rounds}, medians")
    print(f"{'size':16} {'product':18} {'ms':>8} {'oneDNN':>8} {'ratio':>6}")
    for size in options.sizes:
        batch, inputs, outputs = map(int, size.split("x"))
        x, weight, gradient = torch.rand(batch, inputs), torch.rand(outputs, inputs), torch.rand(batch, outputs)
        operands = {"forward": (x, weight), "by the inputs": (gradient, weight.T), "by the weights": (gradient.T, x.T)}
        for name, (rows, columns) in operands.items():
            usual = timed(lambda one, other: one @ other.T, rows, columns)
            own, other = in_turns([usual, timed(onednn, rows, columns)], options.rounds)
            ratio = statistics.median(one / two for one, two in zip(own, other, strict=True))
            print(f"{size:16} {name:18} {statistics.median(own):8.3f} {statistics.median(other):8.3f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
