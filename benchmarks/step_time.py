"""Time of one training step per method, measured side by side on the networks of a preset.

    python benchmarks/step_time.py [--preset digits] [--epochs 20] [--device cpu]

Steps of all methods of an experiment alternate, so that a busy machine slows each of them alike; what is compared are
the ratios to the reparameterization step.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch

from silent_gradients import params
from silent_gradients.data.prepare import dequantize, prepare
from silent_gradients.data.prepared import PreparedData
from silent_gradients.data.run_data import RunData
from silent_gradients.runs import Cell, Plan, Point
from silent_gradients.training.loop import Trainer

REFERENCE = "reparameterization"
ROOT = Path(__file__).resolve().parents[1]


def first_point(plan: Plan, cell: Cell) -> Point:
    """The first value of every axis: steps cost the same at all of them."""
    grid = plan.params.for_method(cell.experiment, cell.dataset, cell.method.name).grid
    return {axis: values[0] for axis, values in grid.model_dump().items()}


def hardware(device: torch.device) -> str:
    """What measures."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, 1 thread"


class StepTimer:
    """One method's training, a batch at a time."""

    def __init__(self, plan: Plan, cell: Cell, prepared: PreparedData, device: torch.device, folder: Path) -> None:
        self.name = cell.method.name
        settings = plan.run(cell, first_point(plan, cell), seed=0)
        self.trainer = Trainer(settings, RunData.load(prepared, settings, device), folder / self.name, device)
        self.milliseconds: list[float] = []

    def measure_epoch(self, *, record: bool) -> None:
        """Train one epoch; record the mean time of its steps."""
        device, batches = self.trainer.device, self.trainer.data.batches
        steps = batches.number_of_batches(self.trainer.settings.batch_size)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        self.trainer.train_epoch()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if record:
            self.milliseconds.append((time.perf_counter() - start) / steps * 1e3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--epochs", type=int, default=20, help="epochs measured per method")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    # No evaluation inside the measured epochs.
    quiet = {"evaluate_every": 1_000_000, "snapshot_epochs": []}
    base = params.resolve({"preset": options.preset}, ROOT / "presets")
    own = {
        "preset": options.preset,
        "experiments": {e: dict.fromkeys(datasets, quiet) for e, datasets in base.experiments.items()},
    }
    plan = Plan(params.resolve(own, ROOT / "presets"))
    versions = f"{hardware(device)}; torch {torch.__version__}"
    print(f"{versions}; n = {options.epochs} epochs per method, medians of ms per step")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for dataset in plan.datasets():
            prepare(dataset, folder / dataset, os.environ.get("SILENT_GRADIENTS_MIRROR"))
            dequantize(dataset, folder / dataset)
        for group in dict.fromkeys(cell.group for cell in plan.cells()):
            cells = [cell for cell in plan.cells() if cell.group == group]
            prepared = PreparedData.open(folder / cells[0].dataset)
            timers = [StepTimer(plan, cell, prepared, device, folder / group) for cell in cells]
            for number in range(options.epochs + 2):
                for timer in timers:
                    timer.measure_epoch(record=number >= 2)
            _print_group(group, timers)


def _print_group(group: str, timers: list[StepTimer]) -> None:
    reference = next(timer for timer in timers if timer.name == REFERENCE)
    print(f"\n{group:32} {'median':>8} {'quartiles':>15} {'ratio to ' + REFERENCE:>28}")
    for timer in timers:
        low, median, high = statistics.quantiles(timer.milliseconds, n=4)
        ratios = [own / other for own, other in zip(timer.milliseconds, reference.milliseconds, strict=True)]
        print(f"{timer.name:32} {median:8.2f} {low:7.2f}-{high:7.2f} {statistics.median(ratios):28.2f}")


if __name__ == "__main__":
    main()
