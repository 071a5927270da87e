"""The weight of the silent gradient over training (Eq. 8, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from silent_gradients import checks


def scale_gradient(tensor: Tensor, factor: float | Tensor) -> Tensor:
    """Return ``tensor`` [...] with the same value (bit for bit) and ``factor`` times its gradient."""
    constant = checks.floats("tensor", tensor).detach()
    if not isinstance(factor, Tensor):  # at 0 no backward pass is needed, at 1 no operation
        checks.number("factor", factor, "a finite number")
        if factor == 1.0:
            return tensor
        if factor == 0.0:
            return constant
    return constant + factor * (tensor - constant)


def check_weight(alpha: float | Tensor) -> None:
    """Raise ``ValueError`` if alpha is no number in [0, 1], and no tensor [], [1] or [B, 1], which is not read."""
    if not isinstance(alpha, Tensor):
        checks.number("alpha", alpha, "a weight in [0, 1]")
    elif alpha.numel() > 1 and (alpha.ndim != 2 or alpha.shape[1] != 1):
        raise ValueError(f"alpha: expected a number or one for each image, [B, 1], got shape {list(alpha.shape)}")


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
        if not self.only:
            checks.number("annealing_rate", self.annealing_rate, "a positive number")
        checks.number("plateau_epochs", self.plateau_epochs, "a number of 0 or more")
        if self.cutoff_epoch is not None:
            checks.whole("cutoff_epoch", self.cutoff_epoch)

    def weight(self, epochs_done: float) -> float:
        """Return alpha after ``epochs_done`` epochs (a fraction inside an epoch), in [0, 1]."""
        checks.number("epochs_done", epochs_done, "a number of 0 or more")
        if self.only:
            return 1.0
        return min(1.0, max(0.0, 1.0 - self.annealing_rate * (epochs_done - self.plateau_epochs)))

    def frozen(self, epochs_done: float) -> bool:
        """Return whether the encoder is frozen after ``epochs_done`` epochs."""
        checks.number("epochs_done", epochs_done, "a number of 0 or more")
        return self.cutoff_epoch is not None and epochs_done >= self.cutoff_epoch
