"""Time of one training step per method, measured side by side on the networks of a preset.

    python benchmarks/step_time.py [--preset digits] [--stack 1] [--reference reparameterization] [--clock cpu]

Steps of all methods of an experiment alternate, so that a busy machine slows each of them alike; what is compared are
the ratios to the step of the reference, or of the first method of an experiment without it.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from measuring import Begun, Spread, arguments, begin, in_turns, now, prepare_data, undisturbed, whole_batches

from silent_study.plan.plan import Cell
from silent_study.training.loop import Trainer
from silent_study.training.steps import Stepper


def timed(begun: Begun, cell: Cell, folder: Path, steps: int, stack: int) -> Callable[[], float]:
    """A measure of the mean milliseconds of a run's steps, by which a stack of a method's runs advances."""
    first, device = undisturbed(begun.plan.first_run(cell)), begun.device
    data = whole_batches(folder / cell.dataset, first, steps, device)
    trainers = [
        Trainer(dataclasses.replace(first, seed=seed), data, folder / cell.name / str(seed), device)
        for seed in range(stack)
    ]
    stepper = Stepper(stacked=stack > 1)

    def measure() -> float:
        start = now(device)
        for _ in range(steps):
            stepper.advance(trainers)
        return (now(device) - start) / (steps * stack) * 1e3

    return measure


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__.splitlines()[0], rounds=20, steps=16)
    parser.add_argument("--stack", type=int, default=1, help="runs of a method that train side by side")
    parser.add_argument("--reference", default="reparameterization", help="method that the others are compared with")
    options = parser.parse_args()
    begun = begin(options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_data(begun.groups, folder)
        for group, cells in begun.groups.items():
            names = [cell.method.name for cell in cells]
            measures = [timed(begun, cell, folder, options.steps, options.stack) for cell in cells]
            taken = dict(zip(names, in_turns(measures, options.rounds), strict=True))
            reference = options.reference if options.reference in taken else names[0]
            print(f"\n{group:32} {'ms':>8} {'quartiles':>15} {'ratio to ' + reference:>32}")
            for name, milliseconds in taken.items():
                low, median, high = Spread.of(milliseconds)
                ratio = statistics.median(a / b for a, b in zip(milliseconds, taken[reference], strict=True))
                print(f"{name:32} {median:8.2f} {low:7.2f}-{high:7.2f} {ratio:32.2f}", flush=True)


if __name__ == "__main__":
    main()
