"""Every benchmark in one go, into one file, with the speeds that this project has set itself.

    python benchmarks/bars.py --json FILE [--device cuda] [--quick]

On a GPU with the networks of the paper's study (MNIST and CIFAR-10; SILENT_GRADIENTS_MIRROR names a folder with the
raw files where the publishers are out of reach), on a CPU with those of the digits and of mnist-reduced. Each benchmark
is a process of its own; one that fails is named, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from first_step import seconds_to_first_step

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Bar:
    """A speed that was aimed at.

    Attributes:
        name: What it is about.
        wanted: The bar, in words.
        measured: What was found.
        reached: Whether that is enough.
    """

    name: str
    wanted: str
    measured: float
    reached: bool


def commands(device: str, quick: bool) -> dict[str, list[str]]:
    """The benchmarks by name."""
    rounds = ["--rounds", "3"] if quick else []
    on = ["--device", device]
    if device == "cpu":
        mnist = ["--preset", "mnist-reduced", "--steps", "30"]
        return {
            "trainers, digits": ["trainers.py", *on, *(rounds or ["--rounds", "24", "--epochs", "2"])],
            "trainers, mnist": ["trainers.py", *mnist, *on, *(rounds or ["--rounds", "8"])],
            "engines, digits": ["engines.py", *on, *rounds, "--compiled"],
            "engines, mnist": ["engines.py", *mnist, *on, *(rounds or ["--rounds", "6"]), "--stacks", "2", "4"],
            "ceilings, digits": ["ceilings.py", *on, *rounds],
            "scaling": ["scaling.py", *on, *rounds],
            "agreement": ["agreement.py", *on, *(["--seeds", "2", "--epochs", "5"] if quick else [])],
        }
    cifar = ["--preset", "paper", "--only", "cifar10", *on, *(rounds or ["--rounds", "8"])]
    mnist = ["--preset", "paper", "--only", "mnist", *on, *(rounds or ["--rounds", "8"])]
    short = ["--preset", "mnist-short", "--seeds", "2" if quick else "4"]
    return {
        "trainers, mnist": ["trainers.py", *mnist],
        "engines, mnist": ["engines.py", *mnist, "--steps", "64", "--processes", "2", "4"],
        "engines, cifar10": ["engines.py", *cifar, "--stacks", "2", "4", "8"],
        "ceilings, mnist": ["ceilings.py", *mnist],
        "ceilings, cifar10": ["ceilings.py", *cifar],
        "scaling": ["scaling.py", *on, *rounds, "--decoders", "fixed", "linear", "log-linear"],
        "agreement": ["agreement.py", *short, *on],
    }


def run(name: str, command: list[str], folder: Path) -> Any:
    """What a benchmark writes; None where it fails."""
    file = folder / f"{name}.json"
    print(f"\n== {name}: python benchmarks/{' '.join(command)}", flush=True)
    script, *options = command
    ended = subprocess.run([sys.executable, HERE / script, *options, "--json", file], check=False)
    if ended.returncode:
        print(f"failed with exit code {ended.returncode}", flush=True)
        return None
    return json.loads(file.read_text())


def at_least(name: str, wanted: float, measured: float) -> Bar:
    """A bar from below."""
    return Bar(name, f"at least {wanted:g}", measured, measured >= wanted)


def at_most(name: str, wanted: float, measured: float) -> Bar:
    """A bar from above."""
    return Bar(name, f"at most {wanted:g}", measured, measured <= wanted)


def ratio(rates: dict[str, list[float]], over: str, under: str) -> float:
    """Median over the rounds of one rate over another."""
    return statistics.median(one / other for one, other in zip(rates[over], rates[under], strict=True))


def bars(found: dict[str, Any], device: str) -> list[Bar]:
    """The bars whose benchmarks have run."""
    made: list[Bar] = []
    for name in [name for name in found if name.startswith("trainers") and found[name]]:
        for group, measured in found[name]["groups"].items():
            rates = measured["rates"]
            ours = [lane for lane in rates if lane.startswith("silent-gradients")]
            for other in ("plain loop, 0 workers", "pythae"):
                wanted = 5.0 if device != "cpu" else 2.0 if "digits" in group else 1.0
                made += [
                    at_least(f"{group}: {lane} over {other}", wanted, ratio(rates, lane, other))
                    for lane in ours
                    if other in rates
                ]
    for name in [name for name in found if name.startswith("engines") and found[name]]:
        cells = found[name]["cells"]
        for cell, rates in cells.items():
            if device != "cpu":
                best = max(statistics.median(own) for lane, own in rates.items() if lane.startswith("graph"))
                epochs, images, wanted = (500, 50_000, 3) if "mnist" in cell else (2000, 45_000, 6)
                minutes = epochs * images / best / 60
                made.append(at_most(f"{cell}: minutes of training for {epochs} epochs", wanted, minutes))
                for lane in [lane for lane in rates if lane.startswith(("stack of 8", "streams of 8"))]:
                    made.append(at_least(f"{cell}: {lane} over a graph", 2.0, ratio(rates, lane, "graph, float32")))
            if cell.endswith("fixed/silent-gaussian"):
                other = cells[cell.replace("silent-gaussian", "reparameterization")]
                lane = "eager" if device == "cpu" else "graph, float32"
                slower = statistics.median(other[lane]) / statistics.median(rates[lane])
                made.append(at_most(f"{cell}: step over a reparameterized one", 1.1, slower))
    made.append(at_most("seconds from start to first step", 60.0, found["start"]))
    return made


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that all of it works")
    parser.add_argument("--json", type=Path, required=True, help="file to write all numbers to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        preset = "digits" if options.device == "cpu" else "paper"
        found: dict[str, Any] = {"start": seconds_to_first_step(preset, options.device)}
        for name, command in commands(options.device, options.quick).items():
            found[name] = run(name, command, folder)
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    found["bars"] = [bar.__dict__ for bar in bars(found, options.device)]
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    print()
    for bar in bars(found, options.device):
        print(f"{bar.name:72} {bar.wanted:>14} {bar.measured:8.2f}  {'reached' if bar.reached else 'NOT reached'}")
    failed = [name for name, document in found.items() if document is None]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
