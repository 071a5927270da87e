"""Images per second, by how its steps are made: eager, compiled, bfloat16, as CUDA graphs, in stacks, in processes.

    python benchmarks/engines.py [--preset digits] [--methods reparameterization] [--rounds 12] [--json FILE]

All lanes train the same networks on the same batches and take turns, so that a busy machine slows them alike; what is
compared are the ratios of each round to the reference, the eager float32 step with PyTorch's own layout. A stack's rate
is that of all its runs. Processes train at the same time, each a run of its own; they start before the clock does.
"""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from measuring import (
    WARM_UP,
    Spread,
    arguments,
    begin,
    in_pytorchs_layout,
    in_turns,
    now,
    prepare_data,
    undisturbed,
    whole_batches,
)

from silent_study.data.batches import RunData
from silent_study.settings import RunSettings
from silent_study.training.device import configure_torch
from silent_study.training.loop import Trainer, step_sums
from silent_study.training.stack import mappable
from silent_study.training.steps import Stepper

REFERENCE = "eager, PyTorch's layout"
Lane = Callable[[], float]
"""Trains for a round and returns images per second, of all runs together."""


class Trained:
    """Runs of one method and a way to make their steps.

    Args:
        settings: The first run; others differ by their seed.
        data: Their data.
        folder: Folder for curves.
        device: The device.
        runs: Number of runs.
    """

    def __init__(self, settings: RunSettings, data: RunData, folder: Path, device: torch.device, runs: int = 1) -> None:
        self.device = device
        self.trainers = [
            Trainer(dataclasses.replace(settings, seed=seed), data, folder / str(seed), device) for seed in range(runs)
        ]
        for trainer in self.trainers:
            trainer.begin_step()
        self.images = settings.batch_size * runs

    def lane(self, advance: Callable[[list[Trainer]], None], steps: int) -> Lane:
        """A lane whose rounds are ``steps`` steps."""

        def measure() -> float:
            start = now(self.device)
            for _ in range(steps):
                advance(self.trainers)
            return steps * self.images / (now(self.device) - start)

        return measure


def compiled(trainer: Trainer) -> Callable[[list[Trainer]], None]:
    """Steps whose loss and its gradients are compiled (``torch.compile``); the optimizers are our own."""
    loss = torch.compile(trainer.vae.training_step)

    def advance(_trainers: list[Trainer]) -> None:
        phase, index = trainer.begin_step(), trainer.next_index()
        x = trainer.data.batches.at(index, trainer.generators["dequantization"])
        # Generators cannot be compiled: the noise is PyTorch's own.
        step = loss(x, state=trainer.state, alpha=trainer.alpha, frozen=phase.frozen, index=index)
        step.loss.backward()
        trainer.update(step.state, step_sums(step))
        trainer.end_step(len(x), guided=step.guide_log_likelihood is not None)

    return advance


def in_process(settings: RunSettings, prepared: Path, folder: Path, device: str, steps: int, pipe: Connection) -> None:
    """Train a round whenever the pipe says so; the body of one of several processes."""
    configure_torch()
    where = torch.device(device)
    trained = Trained(settings, whole_batches(prepared, settings, steps, where), folder, where)
    measure = trained.lane(Stepper(stacked=False, captured=where.type == "cuda").advance, steps)
    for _ in range(WARM_UP):
        measure()
    with suppress(EOFError):  # the other end is gone: there is nothing left to measure
        while True:
            pipe.send("ready")
            pipe.recv()
            measure()


def processes(number: int, settings: RunSettings, prepared: Path, folder: Path, device: str, steps: int) -> Lane:
    """A lane of several processes on one device."""
    context = multiprocessing.get_context("spawn")
    pipes = []
    for seed in range(number):
        here, there = context.Pipe()
        run = dataclasses.replace(settings, seed=seed)
        own = (run, prepared, folder / str(seed), device, steps, there)
        context.Process(target=in_process, args=own, daemon=True).start()
        there.close()
        pipes.append(here)
    for pipe in pipes:
        pipe.recv()

    def measure() -> float:
        start = time.perf_counter()
        for pipe in pipes:
            pipe.send("go")
        for pipe in pipes:
            pipe.recv()
        return number * steps * settings.batch_size / (time.perf_counter() - start)

    return measure


def lanes(options: Any, settings: RunSettings, prepared: Path, folder: Path, device: torch.device) -> dict[str, Lane]:
    """Every lane that the device has, by name."""
    graphs, steps = device.type == "cuda", options.steps
    data = whole_batches(prepared, settings, steps, device)
    make = partial(Trained, data=data, device=device)
    plain = make(settings, folder=folder / "plain")
    in_pytorchs_layout(plain.trainers[0])
    eager = make(settings, folder=folder / "eager")
    found = {REFERENCE: plain.lane(Stepper().advance, steps), "eager": eager.lane(Stepper().advance, steps)}
    if options.compiled:
        own = make(settings, folder=folder / "compiled")
        found["compiled"] = own.lane(compiled(own.trainers[0]), steps)
    for precision in ("float32", "tf32", "bfloat16") if graphs else ("bfloat16",):
        own = make(dataclasses.replace(settings, precision=precision), folder=folder / precision)
        name = f"{'graph' if graphs else 'eager'}, {precision}"
        found[name] = own.lane(Stepper(stacked=False, captured=graphs).advance, steps)
    for size in options.stacks:
        ways = {f"stack of {size}": Stepper(stacked=True)} if mappable(settings, device) else {}
        if graphs:
            ways |= {f"{name}, graph": Stepper(stacked=True, captured=True) for name in ways}
            ways[f"streams of {size}, graph"] = Stepper(stacked=False, captured=True, streams=True)
        for name, stepper in ways.items():
            own = make(settings, folder=folder / name, runs=size)
            found[name] = own.lane(stepper.advance, max(1, steps // size))
    for number in options.processes:
        found[f"{number} processes"] = processes(
            number, settings, prepared, folder / f"process-{number}", str(device), steps
        )
    return found


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__.splitlines()[0], rounds=12, steps=16)
    parser.add_argument("--methods", nargs="+", default=["reparameterization", "silent-gaussian"])
    parser.add_argument("--stacks", nargs="*", type=int, default=[2, 4, 8, 16], help="numbers of runs in a stack")
    parser.add_argument("--processes", nargs="*", type=int, default=[], help="numbers of processes on the device")
    parser.add_argument("--compiled", action="store_true", help="torch.compile as well, which takes minutes")
    options = parser.parse_args()
    device, plan, groups, document = begin(options)
    document["cells"] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_data(groups, folder)
        for group, cells in groups.items():
            for cell in cells:
                if cell.method.name not in options.methods:
                    continue
                settings = undisturbed(plan.first_run(cell))
                measured = lanes(options, settings, folder / cell.dataset, folder / cell.name, device)
                rates = dict(zip(measured, in_turns(list(measured.values()), options.rounds), strict=True))
                document["cells"][cell.name] = rates
                _print_cell(f"{group}, {cell.method.name}", rates)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def _print_cell(title: str, rates: dict[str, list[float]]) -> None:
    print(f"\n{title:44} {'median':>9} {'quartiles':>15} {'to reference':>12} {'quartiles':>13}", flush=True)
    for name, own in rates.items():
        rate = Spread.of(own)
        ratio = Spread.of([mine / theirs for mine, theirs in zip(own, rates[REFERENCE], strict=True)])
        # Down, that no ratio is rounded in our favour.
        low, median, high = (math.floor(100 * value) / 100 for value in ratio)
        print(f"{name:44} {rate.median:9.0f} {rate.low:7.0f}-{rate.high:7.0f} {median:12.2f} {low:6.2f}-{high:6.2f}")


if __name__ == "__main__":
    main()
