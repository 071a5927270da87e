"""Curves, settings and images as TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from silent_gradients.evaluation.latents import reconstruct
from silent_study.settings import SettingsError
from silent_study.training.loop import Trainer
from silent_study.training.seeds import generator

try:
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams
except ImportError as error:
    raise SettingsError(
        "execution.tensorboard: the package tensorboard is not installed; pip install 'silent-gradients[tensorboard]', "
        "or set it to null"
    ) from error

SCALARS = {
    "selection_bpd": "bits_per_dim/selection",
    "train_bpd": "bits_per_dim/train",
    "guide_bpd": "bits_per_dim/guide",
    "selection_kl": "kl/selection",
    "train_kl": "kl/train",
    "alpha": "schedule/silent_weight",
}
"""TensorBoard's tags by key of the curve's entries; the steps are epochs."""

LEARNING_RATE, IMAGES = "schedule/learning_rate", "reconstructions"
"""Tags of the encoder's learning rate after an epoch, and of images to select on above their reconstructions."""

_FLUSH_SECONDS, _SHOWN = 10, 8


class CurveEvents:
    """Writes the curve, the settings and the newest reconstructions of a run in training as TensorBoard events.

    A training that resumes replaces the earlier events by the whole curve. So a kill neither loses the points that had
    not reached the disk nor repeats those after the checkpoint. The ``folder`` is this run's.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        # Makes a running TensorBoard forget the earlier events.
        self._writer = SummaryWriter(str(folder), purge_step=0, flush_secs=_FLUSH_SECONDS)
        self._written = 0

    def __call__(self, trainer: Trainer) -> None:
        """Write the new entries of the curve, after the first the settings, after an evaluation the images."""
        entries: Sequence[Mapping[str, Any]] = trainer.curve[self._written :]
        for entry in entries:
            for key, tag in SCALARS.items():
                if entry[key] is not None:
                    self._writer.add_scalar(tag, entry[key], entry["epoch"])
            rate = trainer.settings.learning_rate * trainer.settings.rate_factor(entry["epoch"])
            self._writer.add_scalar(LEARNING_RATE, rate, entry["epoch"])
        if entries and entries[-1]["selection_bpd"] is not None:
            source = generator(trainer.settings.seed, "evaluation", trainer.device)
            images = reconstruct(trainer.vae, trainer.data.selection[:_SHOWN], with_deviation=False, generator=source)
            rows = [np.concatenate(list(images[name]), axis=2) for name in ("originals", "means")]
            self._writer.add_image(IMAGES, np.concatenate(rows, axis=1).clip(0, 1), trainer.epoch)
        if entries and not self._written:
            for summary in hparams(_flat(trainer.settings.to_json()), {"bits_per_dim/selection": 0.0}):
                self._writer._get_file_writer().add_summary(summary)
        self._written = len(trainer.curve)

    def close(self) -> None:
        """Flush the events to the disk."""
        self._writer.close()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by dotted name, as TensorBoard takes them: numbers, truth values and texts."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        nested = isinstance(value, Mapping)
        plain = isinstance(value, bool | int | float | str)
        found |= _flat(value, f"{prefix}{key}.") if nested else {prefix + key: value if plain else str(value)}
    return found
