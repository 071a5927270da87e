"""Measures how long the steps of methods take on a device (``pace.py`` multiplies them)."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from silent_gradients.data.prepared import PreparedData
from silent_gradients.data.run_data import RunData
from silent_gradients.evaluation.metrics import evaluate
from silent_gradients.pace import Pace, Steps, architecture
from silent_gradients.seeds import generator
from silent_gradients.settings import RunSettings
from silent_gradients.training.loop import Trainer
from silent_gradients.training.pack import hardware_of

EVALUATED_IMAGES = 256
WARM_UP = 3
"""Rounds that are measured and not counted."""


class Stopwatch:
    """Times one method's steps in each phase of a training, and its evaluation.

    Args:
        settings: A run of the method; its epochs, rates and schedule do not matter.
        data: Its data, on the device.
        folder: A folder that the training may write to.
        device: The device.
    """

    def __init__(self, settings: RunSettings, data: RunData, folder: Path, device: torch.device) -> None:
        self.device, self.data = device, data
        self.trainer = Trainer(settings, data, folder, device)
        self.seconds: dict[str, list[float]] = {"guided": [], "plain": [], "frozen": [], "evaluated": []}

    def round(self) -> None:
        """One step of each phase and one evaluation."""
        trainer, settings = self.trainer, self.trainer.settings
        phases = {"plain": (0.0, False), "frozen": (0.0, True)}
        if trainer.schedule is not None:
            phases = {"guided": (1.0, False), **phases}
        trainer.vae.train()
        streams = trainer.generators
        batches = self.data.batches.epoch(streams["order"], streams["dequantization"], settings.batch_size)
        x, index = next(batches)
        for phase, (alpha, frozen) in phases.items():
            self._time(phase, partial(trainer.train_step, x, index, alpha, frozen))
        images, samples = self.data.selection[:EVALUATED_IMAGES], settings.evaluation_samples
        latent, levels = generator(0, "evaluation", self.device), settings.data.levels
        self._time("evaluated", partial(evaluate, trainer.vae, images, levels, "", samples, latent))
        self.seconds["evaluated"][-1] /= len(images) * samples

    def _time(self, what: str, work: Callable[[], object]) -> None:
        start = self._now()
        work()
        self.seconds[what].append(self._now() - start)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def medians(self) -> Steps:
        """Median seconds; a method without a guide has no guided steps, which then count as plain ones."""
        medians = {what: statistics.median(times[WARM_UP:]) for what, times in self.seconds.items() if times}
        return Steps(**{"guided": medians["plain"], **medians})


def measure(stopwatches: Sequence[Stopwatch], rounds: int) -> list[Steps]:
    """Let all stopwatches run in turns, so that a busy machine slows all methods alike.

    Args:
        stopwatches: One per method.
        rounds: Steps per method and phase that count.
    """
    for _ in range(WARM_UP + rounds):
        for stopwatch in stopwatches:
            stopwatch.round()
    return [stopwatch.medians() for stopwatch in stopwatches]


def measured_pace(runs: Sequence[RunSettings], prepared: Path, device: torch.device, rounds: int) -> Pace:
    """Measure every kind of step that some runs take; runs of one data set take turns.

    Args:
        runs: The runs.
        prepared: Folder of the prepared data sets.
        device: Device that is measured.
        rounds: Steps per method and phase.

    Raises:
        DataError: A data set is not prepared.
    """
    kinds = {architecture(run): run for run in runs}
    found: dict[str, Steps] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(run.data.name for run in kinds.values()):
            own = {kind: run for kind, run in kinds.items() if run.data.name == name}
            first = next(iter(own.values()))
            data = RunData.load(PreparedData.open(prepared / name, first.data.sha256), first, device)
            stopwatches = [Stopwatch(run, data, Path(folder) / kind, device) for kind, run in own.items()]
            found |= dict(zip(own, measure(stopwatches, rounds), strict=True))
    return Pace(device.type, hardware_of(device), torch.__version__, found)
