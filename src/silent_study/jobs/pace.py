"""Estimate time and memory of runs from measured steps.

``silent-gradients pace`` measures (``stopwatch.py``) and writes ``results/pace.json``; this module reads it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from silent_study.data.source import Source
from silent_study.data.sources import SOURCES
from silent_study.settings import EvaluationSettings, RunSettings, digest
from silent_study.store.packs import PackSpec
from silent_study.store.runs import as_json, read_as

PACE = "pace.json"
"""Name of the file in the results."""

DEFAULT_MINUTES = 24 * 60
DEFAULT_MEGABYTES = 8192
"""Grants for a pack whose time and memory are not known."""
PIXELS_PER_SECOND = 2e7
"""Order of magnitude of training with the paper's networks on a GPU."""

_PLAIN = ("device", "hardware", "torch", "stack", "megabytes")
"""Entries of the file that are kept as they are."""


@dataclass(frozen=True)
class Steps:
    """Seconds of a method's training steps with one architecture, by phase, and of its evaluation."""

    guided: float
    plain: float
    frozen: float
    evaluated: float
    """Per image and latent sample."""


def epochs_by_phase(settings: RunSettings) -> dict[str, int]:
    """Return the numbers of epochs of a run that begin ``guided``, ``plain`` and ``frozen``.

    The counts are those of ``silent_gradients.SilentSchedule``, which a plan does not import: it loads torch.
    """
    silent, epochs = settings.silent, settings.epochs
    if silent is None or silent.role == "control":
        return {"guided": 0, "plain": epochs, "frozen": 0}
    guided = unfrozen = settings.unfrozen_epochs
    if silent.role == "annealed":
        # The weight 1 - rate (epoch - plateau) is positive before plateau + 1 / rate, which may be rounded upwards.
        guided = min(unfrozen, math.ceil(silent.plateau_epochs + 1 / silent.annealing_rate - 1e-9))
    return {"guided": guided, "plain": unfrozen - guided, "frozen": epochs - unfrozen}


def architecture(settings: RunSettings) -> str:
    """Return 12 hexadecimal digits that identify all settings on which the time of a run's steps depends."""
    silent = settings.silent
    return digest(
        [
            [settings.experiment, settings.estimator, settings.posterior, settings.latent_dim, settings.batch_size],
            [settings.data.shape, vars(settings.network), settings.gradient_clip is not None],
            [settings.precision, settings.estimator_options],
            *([[settings.activation, settings.hidden_units]] if settings.hidden_units else []),
            None if silent is None else [silent.guide, silent.log_term, silent.sampled],
        ]
    )[:12]


@dataclass(frozen=True)
class Pace:
    """The measurements of a device; by default nothing is measured."""

    device: str = ""  # ``cpu`` or ``cuda``
    hardware: str = ""  # name of the device
    torch: str = ""  # version
    stack: int = 1  # runs in the measured stacks; times are divided by it
    steps: Mapping[str, Steps] = field(default_factory=dict)  # by architecture
    megabytes: Mapping[str, float] = field(default_factory=dict)  # peak memory of a process in MiB, by architecture
    sources: Mapping[str, Source] = field(default_factory=lambda: SOURCES)  # of the plan; not measured

    @classmethod
    def read(cls, path: Path, sources: Mapping[str, Source] = SOURCES) -> Pace:
        """Read the file, which may be missing; raises ``StoreError`` if it has another content."""

        def pace(document: Any) -> Pace:
            steps = {key: Steps(**times) for key, times in document["steps"].items()}
            return cls(**{key: document[key] for key in _PLAIN}, steps=steps, sources=sources)

        remedy = "measure again: silent-gradients pace"
        return read_as(path, pace, "no measured pace", remedy) if path.exists() else cls(sources=sources)

    def to_json(self) -> str:
        """Return the content of the file."""
        steps = {key: asdict(times) for key, times in self.steps.items()}
        return as_json({key: getattr(self, key) for key in _PLAIN} | {"steps": steps})

    def _times(self, settings: RunSettings) -> Steps | None:
        return self.steps.get(architecture(settings)) if self.steps else None

    def training(self, settings: RunSettings) -> float | None:
        """Return the seconds of a run's training and its evaluations on the selection split; None if not measured."""
        times = self._times(settings)
        if times is None:
            return None
        train, selection, _ = self._images(settings)
        steps, left = max(1, train // settings.batch_size), epochs_by_phase(settings)
        trained = sum(steps * epochs * getattr(times, phase) for phase, epochs in left.items())
        evaluations = -(-sum(left.values()) // settings.evaluate_every)
        return trained + evaluations * selection * settings.evaluation_samples * times.evaluated

    def evaluation(self, settings: RunSettings, asked: EvaluationSettings) -> float | None:
        """Return the seconds of the evaluation of a selected run; None if not measured."""
        times = self._times(settings)
        if times is None:
            return None
        *_, report = self._images(settings)
        # A draw of the gradient variance costs about as much as a step of as many images.
        draws = len(settings.snapshot_epochs) * asked.variance_draws * asked.variance_images / settings.batch_size
        evaluated = report * (2 * asked.samples + asked.importance_samples)
        return evaluated * times.evaluated + draws * times.plain

    def pack(self, pack: PackSpec) -> float | None:
        """Return the seconds of a pack at most; None unless all of it was measured.

        Every run is counted in full: one whose trunk the store has already shares no epochs (``PackSpec.trunks``).
        """
        parts = [self.training(run) for run in pack.members]
        if pack.evaluation is not None:
            parts += [self.evaluation(run, pack.evaluation) for run in pack.members]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    def expected(self, run: RunSettings) -> float:
        """Return the seconds of a run's training, measured or estimated by its pixels, to compare runs."""
        source, measured = self.sources[run.data.name], self.training(run)
        estimated = run.epochs * source.train * math.prod(source.shape) / PIXELS_PER_SECOND
        return estimated if measured is None else measured

    def granted_minutes(self, pack: PackSpec) -> int:
        """Return the minutes that a scheduler should grant a pack."""
        seconds = self.pack(pack)
        # Half as much more, since the device may be shared; 5 minutes for the start of the process.
        return DEFAULT_MINUTES if seconds is None else math.ceil(1.5 * seconds / 60) + 5

    def granted_megabytes(self, pack: PackSpec) -> int:
        """Return the MiB of memory that a scheduler should grant a pack."""
        kinds = {architecture(run) for run in pack.members} if self.megabytes else set[str]()
        if not kinds or not kinds <= self.megabytes.keys():
            return DEFAULT_MEGABYTES
        # A quarter more, and 512 MiB for the last evaluation, which is not measured.
        return math.ceil(1.25 * max(self.megabytes[kind] for kind in kinds)) + 512

    def _images(self, settings: RunSettings) -> tuple[int, int, int]:
        """Return the numbers of images that train, select and report."""
        source, data = self.sources[settings.data.name], settings.data
        if data.protocol == "paper":
            return source.train, source.test, source.test
        return source.train - data.holdout, data.holdout, source.test
