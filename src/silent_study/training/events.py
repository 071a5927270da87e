"""Curves as TensorBoard shows them. Nothing else imports this module, which needs the package tensorboard."""

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
"""Tags by what the curve calls them; the steps are epochs."""

_FLUSH_SECONDS = 10


class CurveEvents:
    """The curve of a run in training as TensorBoard's events.

    A training that begins writes all of the curve that it goes on from, in place of the events that were there: a kill
    neither loses a point, as those that had not reached the disk, nor leaves one twice, as those after the checkpoint.

    Args:
        folder: The run's own.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        # A TensorBoard that runs forgets what it has read of the earlier events.
        self._writer = SummaryWriter(str(folder), purge_step=0, flush_secs=_FLUSH_SECONDS)
        self._written = 0

    def __call__(self, trainer: Trainer) -> None:
        """Write what the curve has that is not written yet."""
        entries: Sequence[Mapping[str, Any]] = trainer.curve[self._written :]
        for entry in entries:
            for key, tag in SCALARS.items():
                if entry[key] is not None:
                    self._writer.add_scalar(tag, entry[key], entry["epoch"])
        self._written = len(trainer.curve)

    def close(self) -> None:
        """Bring everything to the disk."""
        self._writer.close()
