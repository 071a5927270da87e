"""Every aim of speed in one table, with what this machine reaches and the command that measures it.

    python benchmarks/bars.py [--device cuda] [--json FILE]

On a CPU the digits, mnist-reduced and colour-reduced, a few rounds each, in CPU time, which a busy machine disturbs
least; on a GPU the networks of the preset paper. SILENT_GRADIENTS_MIRROR names a folder with the raw files where the
publishers are out of reach. Each benchmark is a process of its own; an aim whose benchmark fails, or lacks a trainer
that is not installed, is listed as not measured.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guide import ratio_of
from scaling import exponent
from trainers import CAREFUL, OURS

HERE = Path(__file__).resolve().parent
Found = Mapping[str, Any]
"""What the benchmarks wrote, by their name."""


@dataclass(frozen=True)
class Aim:
    """A speed that is aimed at.

    Attributes:
        name: What is compared.
        least: The bar; with ``at_most`` the largest value, otherwise the smallest one.
        benchmark: Name of the benchmark in ``COMMANDS``.
        value: The measured value, from what the benchmark wrote.
        at_most: The value is to be small.
    """

    name: str
    least: float
    benchmark: str
    value: Callable[[Any], float]
    at_most: bool = False

    def row(self, found: Found) -> str:
        """Return the aim's line of the table."""
        bar = f"{'at most' if self.at_most else 'at least'} {self.least:g}" if math.isfinite(self.least) else ""
        try:
            value = self.value(found[self.benchmark])
        except (KeyError, TypeError):  # no such trainer here, or the benchmark failed
            return f"| {self.name} | {bar} | | not measured |"
        if not bar:
            return f"| {self.name} | | {value:.2f} | |"
        reached = value <= self.least if self.at_most else value >= self.least
        return f"| {self.name} | {bar} | {value:.2f} | {'reached' if reached else 'not reached'} |"


PLAIN, LIGHTNING, STACK = "plain loop, 0 workers", "lightning, 0 workers", f"{OURS}, stack of 8"
BESIDE = ["--beside", CAREFUL, PLAIN, LIGHTNING, "pythae"]
COMMANDS: dict[str, dict[str, list[str]]] = {
    "cpu": {
        "digits": ["trainers.py", "--rounds", "7", "--beside", CAREFUL, STACK],
        "mnist": ["trainers.py", "--preset", "mnist-reduced", "--steps", "10", "--rounds", "5", *BESIDE],
        "bfloat16": [
            *("engines.py", "--preset", "mnist-reduced", "--only", "fixed", "--methods", "reparameterization"),
            *("--stacks", "--rounds", "7"),
        ],
        "guide": ["guide.py", "--rounds", "7", "--steps", "8"],
        "scaling": [
            *("scaling.py", "--decoders", "linear", "--latent", "256", "1024", "4096", "--batch", "64"),
            *("--side", "28", "--rounds", "5"),
        ],
    },
    "cuda": {
        "paper": ["trainers.py", "--preset", "paper", "--only", "mnist", "--rounds", "8", *BESIDE],
        "engines, mnist": [
            *("engines.py", "--preset", "paper", "--only", "mnist", "--rounds", "8", "--steps", "64", "--stacks", "8"),
        ],
        "engines, cifar10": ["engines.py", "--preset", "paper", "--only", "cifar10", "--rounds", "8", "--stacks", "8"],
        "scaling": ["scaling.py", "--decoders", "fixed", "linear", "log-linear"],
        "agreement": ["agreement.py", "--preset", "mnist-short", "--seeds", "4"],
    },
}
"""By device, the benchmarks with their commands by name."""


def over(group: str, other: str, lane: str = OURS) -> Callable[[Any], float]:
    """Return the median over rounds of a lane's rate over another's, of trainers.py by group, of engines.py by cell."""

    def value(document: Any) -> float:
        rates = document["groups"][group]["rates"] if "groups" in document else document["cells"][group]
        return statistics.median(mine / theirs for mine, theirs in zip(rates[lane], rates[other], strict=True))

    return value


def milliseconds(cell: str, lane: str, images: int) -> Callable[[Any], float]:
    """Return the milliseconds of a step of so many images, in a cell of engines.py."""
    return lambda document: 1e3 * images / statistics.median(document["cells"][cell][lane])


def guide_ratio(document: Any) -> float:
    """Return the time of an exact step over a sampled one at k = 256."""
    row = next(row for row in document["latent variables"] if row["k"] == 256)
    return statistics.median(one / other for one, other in zip(row["exact"], row["sampled"], strict=True))


def growth(document: Any) -> float:
    """Return the exponent of an exact step's time in k."""
    rows = document["latent variables"]
    return exponent([row["k"] for row in rows], [statistics.median(row["exact"]) for row in rows])


def aims(device: str) -> list[Aim]:
    """Return the aims of a device, in the order of the table."""
    if device == "cuda":
        fixed, learnable = "mnist/fixed/silent-gaussian", "mnist/learnable/silent-gaussian"
        graph = "graph, bfloat16"
        return [
            Aim("MNIST, fixed, step of 64 images, ms", 0.5, "engines, mnist", milliseconds(fixed, graph, 64), True),
            Aim("MNIST, learnable, step, ms", math.inf, "engines, mnist", milliseconds(learnable, graph, 64), True),
            Aim(
                "CIFAR-10, learnable, step of 256 images, ms",
                math.inf,
                "engines, cifar10",
                milliseconds("cifar10/learnable/silent-gaussian", graph, 256),
                True,
            ),
            Aim(
                "MNIST, fixed, 8 runs on streams over one after another",
                2.0,
                "engines, mnist",
                lambda document: (
                    1.0
                    / milliseconds(fixed, "streams of 8, graph", 64)(document)
                    * milliseconds(fixed, "graph, float32", 64)(document)
                ),
            ),
        ]
    careful = [
        Aim(f"{name}, {kind}: one run over the careful loop", least, benchmark, over(f"{dataset}/{kind}", CAREFUL))
        for name, dataset, benchmark, least in (("digits", "digits", "digits", 1.15), ("MNIST", "mnist", "mnist", 1.4))
        for kind in ("fixed", "learnable")
    ]
    stacks = [
        Aim(
            f"digits, {kind}: a stack of 8 over the careful loop",
            1.5,
            "digits",
            over(f"digits/{kind}", CAREFUL, STACK),
        )
        for kind in ("fixed", "learnable")
    ]
    others = [
        Aim(f"MNIST, {kind}: one run over {other}", 2.0, "mnist", over(f"mnist/{kind}", other))
        for kind in ("fixed", "learnable")
        for other in (PLAIN, LIGHTNING, "pythae")
        if (kind, other) != ("learnable", "pythae")
    ]
    shorter = Aim(
        "MNIST, fixed: bfloat16 over float32",
        1.8,
        "bfloat16",
        over("mnist/fixed/reparameterization", "eager", "eager, bfloat16"),
    )
    guided = [
        Aim(
            f"CIFAR-10, {method}, k = {k}: step by hand over automatic differentiation",
            least,
            "guide",
            ratio_of(f"cifar10/learnable/{method}, k = {k}"),
        )
        for k, least in ((256, 1.4), (1024, 2.0))
        for method in ("silent-gaussian", "silent-bernoulli")
    ]
    guide = [
        Aim("the guide at k = 256 over two sampled linear heads", 1.3, "scaling", guide_ratio, at_most=True),
        Aim("the guide: exponent of k, 1024 to 4096", 1.1, "scaling", growth, at_most=True),
    ]
    return [*careful, *stacks, *others, shorter, *guided, *guide]


def run(name: str, command: list[str], device: str, folder: Path) -> Any:
    """Return what a benchmark writes; None where it fails."""
    file = folder / f"{name}.json"
    script, *options = command
    print(f"== {name}: python benchmarks/{' '.join(command)}", file=sys.stderr, flush=True)
    clock = ["--clock", "cpu"] if device == "cpu" else []
    arguments = [sys.executable, str(HERE / script), *options, *clock, "--device", device, "--json", str(file)]
    ended = subprocess.run(arguments, check=False, stdout=sys.stderr)
    return None if ended.returncode else json.loads(file.read_text())


def main() -> None:
    """Measure everything, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=sorted(COMMANDS))
    parser.add_argument("--json", type=Path, help="file to write all numbers to")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, command in COMMANDS[options.device].items():
            found[name] = run(name, command, options.device, Path(temporary))
            if options.json:
                options.json.write_text(json.dumps(found, indent=1) + "\n")
    print("| aim | bar | measured | |\n| --- | --- | --- | --- |")
    print("\n".join(aim.row(found) for aim in aims(options.device)))
    failed = [name for name, document in found.items() if document is None]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
