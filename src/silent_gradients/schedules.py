"""The weight of the silent gradient over training (paper, Eq. 8 and Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SilentSchedule:
    """Weight alpha of the silent gradient in the encoder's gradient, and the epoch that freezes the encoder.

    Attributes:
        only: Keep alpha at 1: the silent gradient alone trains the encoder.
        plateau_epochs: Epochs with alpha = 1 before the annealing begins.
        annealing_rate: Decrease of alpha per epoch after the plateau.
        cutoff_epoch: Epoch after which the encoder is frozen; None for never.

    Raises:
        ValueError: A number is negative, or the annealing rate is not positive.
    """

    only: bool = False
    plateau_epochs: float = 0.0
    annealing_rate: float = 1.0
    cutoff_epoch: int | None = None

    def __post_init__(self) -> None:
        if not self.only and not self.annealing_rate > 0:
            raise ValueError(f"annealing_rate: expected a positive number, got {self.annealing_rate}")
        if not self.plateau_epochs >= 0:
            raise ValueError(f"plateau_epochs: expected 0 or more, got {self.plateau_epochs}")
        if self.cutoff_epoch is not None and self.cutoff_epoch < 1:
            raise ValueError(f"cutoff_epoch: expected 1 or more, or null for never, got {self.cutoff_epoch}")

    def weight(self, epochs_done: float) -> float:
        """Return alpha after ``epochs_done`` epochs (a fraction inside an epoch), in [0, 1]."""
        if self.only:
            return 1.0
        return min(1.0, max(0.0, 1.0 - self.annealing_rate * (epochs_done - self.plateau_epochs)))

    def frozen(self, epochs_done: float) -> bool:
        """Return whether the encoder is frozen after ``epochs_done`` epochs."""
        return self.cutoff_epoch is not None and epochs_done >= self.cutoff_epoch
