"""Checks of arguments: errors with argument, value and fix."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, Literal

from torch import Tensor

Range = Literal["a positive number", "a number of 0 or more", "a number in [0, 1)", "a weight in [0, 1]"]

_RANGES = {
    "a positive number": lambda value: 0 < value < math.inf,
    "a number of 0 or more": lambda value: 0 <= value < math.inf,
    "a number in [0, 1)": lambda value: 0 <= value < 1,
    "a weight in [0, 1]": lambda value: 0 <= value <= 1,
}


def whole(argument: str, value: object, least: int = 1, error: type[ValueError] = ValueError) -> int:
    """Return a whole number of ``least`` or more; raise ``error`` for anything else."""
    if type(value) is bool or not isinstance(value, Integral) or value < least:
        raise error(f"{argument}: expected a whole number of {least} or more, got {value!r}")
    return int(value)


def number(argument: str, value: object, expected: Range, error: type[ValueError] = ValueError) -> float:
    """Return a number of a range, which a tensor of one element may hold; raise ``error`` for anything else."""
    one = isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)
    found = float(value) if one else math.nan  # type: ignore[arg-type]
    if not _RANGES[expected](found):
        raise error(f"{argument}: expected {expected}, got {value}")
    return found


def floats(argument: str, value: Any, fix: str = "convert them with .float()") -> Tensor:
    """Return a tensor [...] of floating-point numbers; raise ``TypeError`` with the ``fix`` for anything else."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{argument}: expected a tensor, got {type(value).__name__}; torch.as_tensor makes one")
    if not value.is_floating_point():
        raise TypeError(f"{argument}: expected floating-point numbers, got {value.dtype}; {fix}")
    return value


def instance(argument: str, value: object, kind: type, hint: str = "") -> None:
    """Raise ``TypeError``, with a hint on how to make one, for what is no instance of a class."""
    if not isinstance(value, kind):
        raise TypeError(f"{argument}: expected an instance of {kind.__name__}, got {value!r}{hint and f'; {hint}'}")
