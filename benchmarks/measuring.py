"""What the benchmarks have in common: a preset's data, rounds in turn, medians, and what is said of the machine."""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from silent_study import params
from silent_study.data.batches import DeviceBatches, RunData
from silent_study.data.prepare import dequantize, prepare
from silent_study.data.prepared import PreparedData
from silent_study.plan.plan import Cell, Plan
from silent_study.settings import RunSettings
from silent_study.store.provenance import hardware_of
from silent_study.training.build import build_optimizers
from silent_study.training.device import configure_torch
from silent_study.training.loop import Trainer

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 2
"""Rounds that are left out at the beginning."""

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""Clocks by name; CPU time, of this process alone, is what a busy machine disturbs least."""
_chosen = ["wall"]

NEVER = 1_000_000_000
T = TypeVar("T")


def preset_plan(preset: str) -> Plan:
    """The plan of a preset as it is."""
    return Plan(params.resolve({"preset": preset}, ROOT / "presets"))


def undisturbed(settings: RunSettings) -> RunSettings:
    """A run whose epochs hold nothing but training: no evaluation, no snapshot, no end."""
    return dataclasses.replace(settings, epochs=NEVER, evaluate_every=NEVER, snapshot_epochs=())


def cells_by_group(plan: Plan, only: str = "") -> dict[str, list[Cell]]:
    """The cells of a plan by data set/experiment, those whose name contains ``only``."""
    groups: dict[str, list[Cell]] = {}
    for cell in plan.cells():
        if only in cell.group:
            groups.setdefault(cell.group, []).append(cell)
    return groups


def prepare_data(groups: dict[str, list[Cell]], folder: Path) -> None:
    """Prepare the cells' data sets in folders of their names; raw files may come from SILENT_GRADIENTS_MIRROR."""
    for dataset in dict.fromkeys(cell.dataset for cells in groups.values() for cell in cells):
        prepare(dataset, folder / dataset, os.environ.get("SILENT_GRADIENTS_MIRROR"))
        dequantize(dataset, folder / dataset)


def whole_batches(folder: Path, settings: RunSettings, steps: int, device: torch.device) -> RunData:
    """A run's data with ``steps`` batches of training images, or fewer; no image is left over at an epoch's end."""
    data = RunData.load(PreparedData.open(folder), settings, device)
    batches = data.batches
    images = min(steps, batches.number_of_batches(settings.batch_size)) * settings.batch_size
    return dataclasses.replace(
        data, batches=DeviceBatches(batches.images[:images].cpu().numpy(), batches.levels, device)
    )


def in_pytorchs_layout(trainer: Trainer) -> None:
    """Give a run's convolutions PyTorch's own layout in memory; its optimizers begin anew, in the same."""
    trainer.vae.to(memory_format=torch.contiguous_format)
    trainer.optimizers = build_optimizers(trainer.settings, trainer.vae)


def use_clock(name: str) -> str:
    """Make ``now`` read a clock of ``CLOCKS``, and return its name."""
    _chosen[0] = name
    return name


def now(device: torch.device) -> float:
    """Seconds of the chosen clock, once the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return CLOCKS[_chosen[0]]()


def in_turns(measures: Sequence[Callable[[], T]], rounds: int) -> list[list[T]]:
    """What each of ``measures`` returns in every round.

    Each is called once a round, so that a busy machine slows all of them alike; the first rounds are left out.
    """
    taken = [[measure() for measure in measures] for _ in range(WARM_UP + rounds)]
    return [list(column) for column in zip(*taken[WARM_UP:], strict=True)]


class Spread(NamedTuple):
    """Quartiles of what was measured."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The quartiles of ``values``, at least two."""
        return cls(*statistics.quantiles(values, n=4))


def hardware(device: torch.device) -> str:
    """What measures."""
    threads = torch.get_num_threads()
    return hardware_of(device) + ("" if device.type == "cuda" else f", {threads} thread{'s' if threads > 1 else ''}")


class Begun(NamedTuple):
    """What a benchmark on the networks of a preset begins with.

    Attributes:
        device: The device.
        plan: The preset's plan.
        groups: See ``cells_by_group``.
        document: What is written as JSON, with what measures in it.
    """

    device: torch.device
    plan: Plan
    groups: dict[str, list[Cell]]
    document: dict[str, Any]


def begin(options: argparse.Namespace) -> Begun:
    """Settle the device and say what is measured, by options as of ``arguments``."""
    device = torch.device(options.device)
    configure_torch(options.threads)
    plan = preset_plan(options.preset)
    print(
        f"{options.preset} on {hardware(device)}; torch {torch.__version__}; n = {options.rounds}, medians, quartiles"
    )
    document = {"hardware": hardware(device), "torch": torch.__version__}
    return Begun(device, plan, cells_by_group(plan, options.only), document)


def arguments(description: str, rounds: int, steps: int) -> argparse.ArgumentParser:
    """The options that benchmarks on the networks of a preset have in common."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--only", default="", help="groups whose data set/experiment contains this")
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds that are measured")
    parser.add_argument("--steps", type=int, default=steps, help="most steps per method and round or epoch")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", type=use_clock, choices=CLOCKS, help="clock on a CPU; default: wall")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    return parser
