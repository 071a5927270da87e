"""Measure the steps of methods on a device."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from silent_gradients.evaluation.metrics import evaluate
from silent_study.data.batches import RunData
from silent_study.data.prepared import PreparedData
from silent_study.data.source import Source
from silent_study.jobs.pace import Pace, Steps, architecture
from silent_study.settings import RunSettings
from silent_study.store.provenance import hardware_of
from silent_study.training.device import peak_megabytes, reset_peak, resident_megabytes
from silent_study.training.loop import Interrupted, Phase, Trainer
from silent_study.training.seeds import generator
from silent_study.training.stack import mappable
from silent_study.training.steps import PhaseStep, Stepper

EVALUATED_IMAGES = 256
WARM_UP = 5
"""Rounds that are left out at the beginning; half of them where there are fewer than twice as many."""
LONGEST = 120.0
"""Seconds after which the rounds of a data set end before their number is reached."""


class Stopwatch:
    """Times one method's steps in each phase of a training, as jobs make them, and its evaluation.

    Args:
        settings: A run of the method; its epochs, learning rates and schedule do not matter.
        data: Its data, on the device.
        folder: Folder for the trainers' files.
        device: Device that is measured.
        stack: Runs in a stack, by which the time of its step is divided.
        captured: Capture steps as CUDA graphs.
    """

    def __init__(
        self,
        settings: RunSettings,
        data: RunData,
        folder: Path,
        device: torch.device,
        stack: int = 1,
        *,
        captured: bool = False,
    ) -> None:
        self.settings, self.device, self.data = settings, device, data
        seeds = range(stack if mappable(settings, device) else 1)
        self.trainers = [
            Trainer(dataclasses.replace(settings, seed=seed), data, folder / str(seed), device) for seed in seeds
        ]
        for trainer in self.trainers:
            trainer.begin_step()
        phases = {"plain": Phase("no", frozen=False), "frozen": Phase("no", frozen=True)}
        if settings.silent is not None and settings.silent.role != "control":
            guided = Phase("alone" if settings.silent.role == "only" else "mixed", frozen=False)
            phases = {"guided": guided, **phases}
        stepper = Stepper(stacked=len(seeds) > 1, captured=captured)
        self.steps: dict[str, PhaseStep] = {}
        for name, phase in phases.items():
            self._set_mode(phase.frozen)
            self.steps[name] = stepper.step_of(phase, self.trainers)
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def _set_mode(self, frozen: bool) -> None:
        for trainer in self.trainers:
            trainer.vae.train()
            trainer.vae.encoder.train(not frozen)

    def round(self) -> None:
        """Time one step of each phase and one evaluation."""
        settings, first = self.settings, self.trainers[0]
        index = torch.stack([trainer.next_index() for trainer in self.trainers])
        alpha = torch.full((len(self.trainers),), 0.5, device=self.device)
        for name, step in self.steps.items():
            self._set_mode(frozen=name == "frozen")
            start = self._now()
            step.compute(index, alpha)
            self.seconds[name].append((self._now() - start) / len(self.trainers))
        images, samples = self.data.selection[:EVALUATED_IMAGES], settings.evaluation_samples
        latent, levels = generator(0, "evaluation", self.device), settings.data.levels
        start = self._now()
        evaluate(first.vae, images, levels, "", samples, latent)
        self.seconds["evaluated"].append((self._now() - start) / (len(images) * samples))

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def medians(self) -> Steps:
        """Return median seconds; without a guide, guided steps count as plain ones."""
        medians = {
            what: statistics.median(times[min(WARM_UP, len(times) // 2) :]) for what, times in self.seconds.items()
        }
        return Steps(**{"guided": medians["plain"], **medians})


def stand_in(settings: RunSettings, source: Source, device: torch.device) -> tuple[RunData, float]:
    """Return random images of a data set's shape for a few steps of a run, and how many MiB fewer than its own."""
    images, data = max(settings.batch_size, EVALUATED_IMAGES), settings.data
    generator = np.random.default_rng(0)
    train, test = (
        generator.integers(0, source.levels, (count * images, *source.shape), dtype=np.uint8) for count in (2, 1)
    )
    manifest: Any = {**source.description, "arrays_sha256": "", "files": {}, "seal": ""}
    prepared = PreparedData(train, test, generator.random(test.shape, dtype=np.float32), manifest)
    few = dataclasses.replace(settings, data=dataclasses.replace(data, holdout=images))
    selection = source.test if data.protocol == "paper" else data.holdout
    # Levels of the training images; in float32 the images that select, those that report, and as many of training.
    own = source.train + 4 * (selection + 2 * source.test)
    here = len(train) + 4 * 3 * images
    return RunData.load(prepared, few, device), (own - here) * data.dimensions / 2**20


def measured_pace(
    runs: Sequence[RunSettings],
    sources: Mapping[str, Source],
    device: torch.device,
    rounds: int,
    stack: int = 1,
    *,
    captured: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Pace:
    """Measure every kind of step that some runs make, so many rounds each, or as many as ``LONGEST`` has room for.

    No data set needs to be there: random images of the shapes of ``sources``, by name, take as long. For the other
    arguments see ``Stopwatch``. Raises ``Interrupted`` if ``stop``, called before every kind and round, returns True.
    """
    kinds = {architecture(run): run for run in runs}
    found: dict[str, Steps] = {}
    megabytes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(run.data.name for run in kinds.values()):
            own = {kind: run for kind, run in kinds.items() if run.data.name == name}
            largest = max(own.values(), key=lambda run: run.batch_size)
            data, fewer = stand_in(largest, sources[name], device)
            without, stopwatches = resident_megabytes() + fewer, dict[str, Stopwatch]()
            for kind, run in own.items():
                if stop():
                    raise Interrupted
                before = resident_megabytes()
                reset_peak()
                stopwatches[kind] = Stopwatch(run, data, Path(folder) / kind, device, stack, captured=captured)
                stopwatches[kind].round()
                megabytes[kind] = without + max(0.0, peak_megabytes() - before)
            end = time.monotonic() + LONGEST
            # In turns, so that a busy machine slows all kinds alike.
            for _ in range(WARM_UP + rounds):
                if time.monotonic() > end:
                    break
                if stop():
                    raise Interrupted
                for stopwatch in stopwatches.values():
                    stopwatch.round()
            found |= {kind: stopwatch.medians() for kind, stopwatch in stopwatches.items()}
    return Pace(device.type, hardware_of(device), torch.__version__, stack, found, megabytes, sources)
