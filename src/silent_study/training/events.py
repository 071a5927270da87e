"""Curves as TensorBoard events. The module needs the package tensorboard; it is imported where events are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from silent_study.settings import SettingsError
from silent_study.training.loop import Trainer

try:
    from torch.utils.tensorboard import SummaryWriter
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

_FLUSH_SECONDS = 10


class CurveEvents:
    """Writes the curve of a run in training as TensorBoard events.

    A training that resumes replaces the earlier events by the whole curve. So a kill neither loses the points that had
    not reached the disk nor repeats those after the checkpoint.

    Args:
        folder: Folder of this run's events.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        # Makes a running TensorBoard forget the earlier events.
        self._writer = SummaryWriter(str(folder), purge_step=0, flush_secs=_FLUSH_SECONDS)
        self._written = 0

    def __call__(self, trainer: Trainer) -> None:
        """Write the new entries of the curve."""
        entries: Sequence[Mapping[str, Any]] = trainer.curve[self._written :]
        for entry in entries:
            for key, tag in SCALARS.items():
                if entry[key] is not None:
                    self._writer.add_scalar(tag, entry[key], entry["epoch"])
        self._written = len(trainer.curve)

    def close(self) -> None:
        """Flush the events to the disk."""
        self._writer.close()
