"""Bits/dim of whole trainings by every way of making steps, against the eager float32 reference at equal seeds.

    python benchmarks/agreement.py [--preset digits] [--only fixed] [--ways "eager, bfloat16"] [--seeds 5] [--json FILE]

Two ways round differently, and training amplifies rounding until runs differ as seeds do, or less. A way agrees where
the Student interval of the paired differences holds zero; beside it stands what seeds do to the reference.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import cells_by_group, hardware, in_pytorchs_layout, prepare_data, preset_plan
from scipy import stats

from silent_study.data.batches import RunData
from silent_study.data.prepared import PreparedData
from silent_study.settings import Precision, RunSettings
from silent_study.training.device import configure_torch
from silent_study.training.loop import Trainer, train
from silent_study.training.steps import Stepper

REFERENCE = "eager, PyTorch's layout"


@dataclasses.dataclass(frozen=True)
class Way:
    """A way of making steps.

    Attributes:
        stacked: In a stack of all seeds.
        captured: As CUDA graphs.
        streams: On streams of their own.
        precision: Arithmetic of the networks in training.
        channels_last: The layout of images and convolutions in memory.
    """

    stacked: bool = False
    captured: bool = False
    streams: bool = False
    precision: Precision = "float32"
    channels_last: bool = True


def ways(device: torch.device) -> dict[str, Way]:
    """Those that a device has; the reference first."""
    found = {REFERENCE: Way(channels_last=False), "eager": Way(), "stack": Way(stacked=True)}
    if device.type == "cpu":
        found["eager, bfloat16"] = Way(precision="bfloat16")
    if device.type == "cuda":
        found |= {f"graph, {kind}": Way(captured=True, precision=kind) for kind in ("float32", "tf32", "bfloat16")}
        found["stack, graph"] = Way(stacked=True, captured=True)
        found["streams, graph"] = Way(captured=True, streams=True)
    return found


def bits_per_dim(
    runs: Sequence[RunSettings], way: Way, data: RunData, folder: Path, device: torch.device
) -> list[float]:
    """Final bounds of some runs on the selection split."""
    trainers = [
        Trainer(dataclasses.replace(run, precision=way.precision), data, folder / str(number), device)
        for number, run in enumerate(runs)
    ]
    if not way.channels_last:
        for trainer in trainers:
            in_pytorchs_layout(trainer)
    advance = Stepper(stacked=way.stacked, captured=way.captured, streams=way.streams).advance
    train(trainers, advance, math.inf, lambda: False)
    results = [trainer.result() for trainer in trainers]
    return [math.nan if result["selection"] is None else result["selection"]["bpd"] for result in results]


def main() -> None:
    """Train, and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--only", default="", help="groups whose data set/experiment contains this")
    parser.add_argument("--methods", nargs="*", help="default: all of the preset")
    parser.add_argument("--ways", nargs="*", help="ways compared with the reference; default: all of the device")
    parser.add_argument("--epochs", type=int, help="epochs of every run, instead of the preset's")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    options = parser.parse_args()
    device = torch.device(options.device)
    if unknown := set(options.ways or ()) - set(ways(device)):
        parser.error(f"--ways: {min(unknown)!r} is none of {', '.join(map(repr, ways(device)))}")
    configure_torch()
    plan = preset_plan(options.preset)
    groups = cells_by_group(plan, options.only)
    print(f"{options.preset} on {hardware(device)}; torch {torch.__version__}; {options.seeds} seeds, bits/dim")
    print(f"{'':48} {'way':24} {'mean':>7} {'difference, 95 %':>22}  {'deviation over seeds':>20}")
    document: dict[str, Any] = {"hardware": hardware(device), "torch": torch.__version__, "cells": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_data(groups, folder)
        for cells in groups.values():
            prepared = PreparedData.open(folder / cells[0].dataset)
            for cell in cells:
                if options.methods and cell.method.name not in options.methods:
                    continue
                first = plan.first_run(cell)
                if options.epochs is not None:
                    first = dataclasses.replace(first, epochs=options.epochs, snapshot_epochs=())
                runs = [dataclasses.replace(first, seed=seed) for seed in range(options.seeds)]
                data = RunData.load(prepared, first, device)
                found = {
                    name: bits_per_dim(runs, way, data, folder / f"{cell.name}-{number}", device)
                    for number, (name, way) in enumerate(ways(device).items())
                    if options.ways is None or name in (REFERENCE, *options.ways)
                }
                document["cells"][cell.name] = found
                _print_cell(cell.name, found)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def _print_cell(cell: str, found: dict[str, list[float]]) -> None:
    reference = found[REFERENCE]
    for name, own in found.items():
        differences = [mine - theirs for mine, theirs in zip(own, reference, strict=True)]
        mean = statistics.fmean(differences)
        half = stats.t.ppf(0.975, len(own) - 1) * statistics.stdev(differences) / math.sqrt(len(own))
        difference = "" if name == REFERENCE else f"{mean:+8.4f} +- {half:.4f}"
        deviation = statistics.stdev(own)
        print(f"{cell:48} {name:24} {statistics.fmean(own):7.4f} {difference:>22}  {deviation:20.4f}", flush=True)


if __name__ == "__main__":
    main()
