"""How long a preset takes on this machine: steps and evaluations measured, multiplied by what the plan asks for.

    SILENT_GRADIENTS_MIRROR=/datasets python benchmarks/plan_time.py --preset mnist-reduced [--steps 30] [--device cpu]

Each cell's steps are timed in its phases (with the guide, without it, with a frozen encoder) in turns, so that a busy
machine slows all of them alike, and weighted by the epochs that its grid's points spend in each. The number of runs is
the largest that the plan can come to; a run that two rounds share counts once.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from measuring import WARM_UP, cells_by_group, first_point, first_run, hardware, now, prepare_data, preset_plan

from silent_gradients import params
from silent_gradients.data.prepared import PreparedData
from silent_gradients.data.run_data import RunData
from silent_gradients.evaluation.metrics import evaluate
from silent_gradients.model import build_schedule
from silent_gradients.runs import Cell, Plan
from silent_gradients.seeds import generator
from silent_gradients.settings import RunSettings
from silent_gradients.training.loop import Trainer, _Sums

EVALUATED_IMAGES = 256
Phase = tuple[float, bool]
"""Weight of the silent gradient (1 or 0), and whether the encoder is frozen."""


def phases(settings: RunSettings) -> dict[Phase, int]:
    """Epochs of a run in each phase; an epoch counts as it begins."""
    schedule, found = build_schedule(settings), dict[Phase, int]()
    for epoch in range(settings.epochs):
        frozen = schedule is not None and schedule.frozen(epoch)
        guided = schedule is not None and not frozen and schedule.weight(epoch) > 0
        phase = (float(guided), frozen)
        found[phase] = found.get(phase, 0) + 1
    return found


class CellTimer:
    """Times one cell's steps in every phase, and its evaluation per image."""

    def __init__(self, plan: Plan, cell: Cell, data: RunData, device: torch.device, folder: Path) -> None:
        self.cell, self.data, self.device = cell, data, device
        self.settings = first_run(plan, cell)
        self.trainer = Trainer(self.settings, data, folder / cell.method.name, device)
        self.seconds: dict[Phase, list[float]] = {(1.0, False): [], (0.0, False): [], (0.0, True): []}
        self.evaluation: list[float] = []

    def measure(self) -> None:
        """One step of each phase, and one evaluation."""
        trainer = self.trainer
        for (alpha, frozen), seconds in self.seconds.items():
            for x, index in self._batches(1):
                start = now(self.device)
                trainer._step(x, index, alpha, frozen, _Sums.zeros(self.device))
                seconds.append(now(self.device) - start)
        images, samples = self.data.selection[:EVALUATED_IMAGES], self.settings.evaluation_samples
        start = now(self.device)
        evaluate(trainer.vae, images, self.settings.data.levels, "", samples, generator(0, "evaluation", self.device))
        self.evaluation.append((now(self.device) - start) / len(images) / samples)

    def _batches(self, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        batches = self.data.batches.epoch(
            self.trainer.generators["order"], self.trainer.generators["dequantization"], self.settings.batch_size
        )
        for _, batch in zip(range(count), batches, strict=False):
            yield batch

    def step(self, phase: Phase) -> float:
        """Median seconds of a step, the first ones left out."""
        return statistics.median(self.seconds[phase][WARM_UP:])

    def run_seconds(self, settings: RunSettings) -> float:
        """Training and its evaluations."""
        steps = self.data.batches.number_of_batches(settings.batch_size)
        training = sum(epochs * steps * self.step(phase) for phase, epochs in phases(settings).items())
        evaluations = settings.epochs // settings.evaluate_every + 1
        images = len(self.data.selection) * settings.evaluation_samples * evaluations
        return training + images * statistics.median(self.evaluation[WARM_UP:])

    def report_seconds(self, samples: int) -> float:
        """The evaluation of a selected run on two splits of the report's size."""
        return 2 * len(self.data.report) * samples * statistics.median(self.evaluation[WARM_UP:])


def total(plan: Plan, timer: CellTimer) -> tuple[int, float]:
    """Runs of a cell, and their seconds: its grid, and the other seeds at the grid's mean length."""
    first = first_point(plan, timer.cell)
    grid = plan.params.for_method(timer.cell.experiment, timer.cell.dataset, timer.cell.method.name).grid
    # An annealed cell's rate is selected later, and changes no length.
    settings = [plan.run(timer.cell, first | point, 0) for point in points(timer.cell, grid)]
    lengths = [timer.run_seconds(each) for each in settings]
    seeds = len(plan.params.seeds)
    report = seeds * timer.report_seconds(plan.params.evaluation.samples)
    return len(lengths) + seeds - 1, sum(lengths) + (seeds - 1) * statistics.fmean(lengths) + report


def points(cell: Cell, grid: params.GridParams) -> list[dict[str, float | None]]:
    """Combinations of a cell's axes."""
    found: list[dict[str, float | None]] = [{}]
    for axis in cell.axes:
        found = [point | {axis: value} for point in found for value in getattr(grid, axis)]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="mnist-reduced")
    parser.add_argument("--steps", type=int, default=30, help="steps measured per cell and phase")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    plan = preset_plan(options.preset)
    groups = cells_by_group(plan)
    print(f"{options.preset} on {hardware(device)}; torch {torch.__version__}; medians of {options.steps} steps")
    print(f"{'':34} {'ms per step':>23} {'ms per evaluated':>17} {'runs':>5} {'hours':>7}")
    print(f"{'':34} {'guided   plain  frozen':>23} {'image and sample':>17} {'':5} {'':7}")
    sums = [0, 0.0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_data(groups, folder)
        for group, cells in groups.items():
            first = first_run(plan, cells[0])
            data = RunData.load(PreparedData.open(folder / cells[0].dataset), first, device)
            timers = [CellTimer(plan, cell, data, device, folder / group) for cell in cells]
            for _ in range(options.steps + WARM_UP):
                for timer in timers:
                    timer.measure()
            for timer in timers:
                runs, seconds = total(plan, timer)
                sums = [sums[0] + runs, sums[1] + seconds]
                steps = " ".join(f"{timer.step(phase) * 1e3:7.1f}" for phase in timer.seconds)
                evaluation = statistics.median(timer.evaluation[WARM_UP:]) * 1e3
                print(f"{timer.cell.name:34} {steps} {evaluation:17.3f} {runs:5} {seconds / 3600:7.2f}")
    print(f"{'in all':34} {'':23} {'':17} {sums[0]:5} {sums[1] / 3600:7.2f}")


if __name__ == "__main__":
    main()
