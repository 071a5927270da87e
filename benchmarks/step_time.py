"""Time of one training step per method, measured side by side on the networks of a preset.

    python benchmarks/step_time.py [--preset digits] [--epochs 20] [--device cpu]

Steps of all methods of an experiment alternate, so that a busy machine slows each of them alike; what is compared are
the ratios to the reparameterization step.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from measuring import Spread, cells_by_group, hardware, in_turns, now, prepare_data, preset_plan, undisturbed

from silent_study.data.batches import RunData
from silent_study.data.prepared import PreparedData
from silent_study.plan.plan import Cell, Plan
from silent_study.training.device import configure_torch
from silent_study.training.loop import Trainer
from silent_study.training.steps import Stepper

REFERENCE = "reparameterization"


class StepTimer:
    """One method's training, a batch at a time."""

    def __init__(self, plan: Plan, cell: Cell, prepared: PreparedData, device: torch.device, folder: Path) -> None:
        self.name = cell.method.name
        settings = undisturbed(plan.first_run(cell))
        self.trainer = Trainer(settings, RunData.load(prepared, settings, device), folder / self.name, device)
        self.stepper = Stepper()
        self.milliseconds: list[float] = []

    def measure_epoch(self) -> float:
        """Train one epoch: the mean milliseconds of its steps."""
        device, batches = self.trainer.device, self.trainer.data.batches
        steps = batches.number_of_batches(self.trainer.settings.batch_size)
        start = now(device)
        for _ in range(steps):
            self.stepper.advance([self.trainer])
        return (now(device) - start) / steps * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--epochs", type=int, default=20, help="epochs measured per method")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    configure_torch()
    plan = preset_plan(options.preset)
    groups = cells_by_group(plan)
    versions = f"{hardware(device)}; torch {torch.__version__}"
    print(f"{versions}; n = {options.epochs} epochs per method, medians of ms per step")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_data(groups, folder)
        for group, cells in groups.items():
            prepared = PreparedData.open(folder / cells[0].dataset)
            timers = [StepTimer(plan, cell, prepared, device, folder / group) for cell in cells]
            measured = in_turns([timer.measure_epoch for timer in timers], options.epochs)
            for timer, milliseconds in zip(timers, measured, strict=True):
                timer.milliseconds = milliseconds
            _print_group(group, timers)


def _print_group(group: str, timers: list[StepTimer]) -> None:
    reference = next(timer for timer in timers if timer.name == REFERENCE)
    print(f"\n{group:32} {'median':>8} {'quartiles':>15} {'ratio to ' + REFERENCE:>28}")
    for timer in timers:
        low, median, high = Spread.of(timer.milliseconds)
        ratios = [own / other for own, other in zip(timer.milliseconds, reference.milliseconds, strict=True)]
        print(f"{timer.name:32} {median:8.2f} {low:7.2f}-{high:7.2f} {statistics.median(ratios):28.2f}")


if __name__ == "__main__":
    main()
