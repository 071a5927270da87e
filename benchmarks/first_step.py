"""Seconds from an interpreter's start until a run's first steps are done.

    python benchmarks/first_step.py [--preset digits] [--device cpu]

On a GPU the last of the steps is the first one of a graph. The data set is prepared before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from measuring import cells_by_group, prepare_data, preset_plan, undisturbed

from silent_study.data.batches import RunData
from silent_study.data.prepared import PreparedData
from silent_study.training.device import configure_torch
from silent_study.training.loop import Trainer
from silent_study.training.steps import WARM_UP, Stepper


def first_steps(preset: str, device: torch.device, prepared: Path, folder: Path) -> None:
    """Make the first steps of a preset's first cell."""
    configure_torch()
    plan = preset_plan(preset)
    settings = undisturbed(plan.first_run(plan.cells()[0]))
    data = RunData.load(PreparedData.open(prepared), settings, device)
    trainer = Trainer(settings, data, folder, device)
    stepper = Stepper(stacked=False, captured=device.type == "cuda")
    for _ in range(WARM_UP + 1):
        stepper.advance([trainer])
    if not trainer.sums.totals.isfinite().all():
        raise RuntimeError("the first steps' sums are not finite")


def seconds_to_first_step(preset: str, device: str) -> float:
    """Measure it in a process of its own."""
    plan = preset_plan(preset)
    cell = plan.cells()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_data(cells_by_group(plan, cell.group), folder)
        own = ["--preset", preset, "--device", device, "--prepared", folder / cell.dataset]
        start = time.perf_counter()
        subprocess.run([sys.executable, __file__, *own], check=True)
        return time.perf_counter() - start


def main() -> None:
    """Measure and print, or make the steps that are measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepared is None:
        print(f"{seconds_to_first_step(options.preset, options.device):.1f} s from start to first step")
        return
    with tempfile.TemporaryDirectory() as folder:
        first_steps(options.preset, torch.device(options.device), options.prepared, Path(folder))


if __name__ == "__main__":
    main()
