"""What changes over training: the weight of the silent gradient (paper, Eq. 8 and Algorithm 1), and the rates."""

from __future__ import annotations

from dataclasses import dataclass

from silent_study.settings import SilentSettings


@dataclass(frozen=True)
class SilentSchedule:
    """Weight alpha of the silent gradient in the encoder's gradient, and when the encoder is frozen.

    Attributes:
        only: alpha stays 1 (the silent gradient alone trains the encoder).
        plateau_epochs: Epochs with alpha = 1 before the annealing begins.
        annealing_rate: Decrease of alpha per epoch after that.
        cutoff_epoch: Epoch after which the encoder is frozen; None is never.

    Raises:
        ValueError: A number is negative, or the annealing would never begin to fall.
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

    @classmethod
    def of(cls, settings: SilentSettings | None) -> SilentSchedule | None:
        """The schedule that a run's settings ask for; None for a run whose encoder no guide steers."""
        if settings is None or settings.role == "control":
            return None
        return cls(settings.role == "only", settings.plateau_epochs, settings.annealing_rate, settings.cutoff_epoch)

    def weight(self, epochs_done: float) -> float:
        """Alpha after ``epochs_done`` epochs (a fraction inside an epoch), in [0, 1]."""
        if self.only:
            return 1.0
        return min(1.0, max(0.0, 1.0 - self.annealing_rate * (epochs_done - self.plateau_epochs)))

    def frozen(self, epochs_done: float) -> bool:
        """Whether the encoder is frozen once ``epochs_done`` epochs are done."""
        return self.cutoff_epoch is not None and epochs_done >= self.cutoff_epoch


def rate_factor(epochs_left: float, cooldown_epochs: float) -> float:
    """Factor of every learning rate: 1, and in the last ``cooldown_epochs`` (positive) a line to 0 at the end."""
    return min(1.0, epochs_left / cooldown_epochs)
