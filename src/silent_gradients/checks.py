"""Checks of arguments: errors with argument, value and fix."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor


class ShapeError(ValueError):
    """A tensor has another shape than expected."""


class NonFiniteError(ValueError):
    """A tensor holds NaN or infinity."""


Range = Literal[
    "a finite number", "a positive number", "a number of 0 or more", "a number in [0, 1)", "a weight in [0, 1]"
]

_RANGES: dict[Range, Callable[[float], bool]] = {
    "a finite number": math.isfinite,
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


def sizes(argument: str, values: Any, count: int) -> None:
    """Raise ``ValueError`` for what is no sequence of ``count`` whole numbers of 1 or more."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
        raise ValueError(f"{argument}: expected a tuple of whole numbers of length {count}, got {values!r}")
    for value in values:
        whole(argument, value)


def number(argument: str, value: object, expected: Range, error: type[ValueError] = ValueError) -> float:
    """Return a number of a range, which a tensor of one element may hold; raise ``error`` for anything else."""
    one = isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)
    found = float(value) if one else math.nan  # type: ignore[arg-type]
    if not _RANGES[expected](found):
        raise error(f"{argument}: expected {expected}, got {value!r}")
    return found


def floats(argument: str, value: Any, fix: str = "convert them with .float()") -> Tensor:
    """Return a tensor [...] of floating-point numbers; raise ``TypeError`` with the ``fix`` for anything else."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{argument}: expected a tensor, got {type(value).__name__}; torch.as_tensor makes one")
    if not value.is_floating_point():
        raise TypeError(f"{argument}: expected floating-point numbers, got {value.dtype}; {fix}")
    return value


def shaped(argument: str, value: Any, *shape: int | str, device: torch.device | None = None) -> Tensor:
    """Return a tensor of floating-point numbers of a shape, in which a name is any size.

    Raises:
        ShapeError: It has another shape.
        TypeError: It is no tensor of floating-point numbers.
        ValueError: It is on another device than ``device``, if that is not None.
    """
    found = floats(argument, value).shape
    if len(found) != len(shape) or any(
        not isinstance(size, str) and size != own for size, own in zip(shape, found, strict=True)
    ):
        raise ShapeError(f"{argument}: expected shape [{', '.join(map(str, shape))}], got {list(found)}")
    if device is not None and value.device != device:
        raise ValueError(f"{argument}: expected a tensor on {device}, got {value.device}; move it with .to")
    return value


def instance(argument: str, value: object, kind: type, hint: str = "") -> None:
    """Raise ``TypeError``, with a hint on how to make one, for what is no instance of a class."""
    if not isinstance(value, kind):
        raise TypeError(f"{argument}: expected an instance of {kind.__name__}, got {value!r}{hint and f'; {hint}'}")


Check = Callable[[Any, Any], Any]
"""Function of an instance and an argument of its method; it returns the argument to use, or raises an error."""


class Guarded:
    """Base of a contract whose methods check their arguments, by name, before they run; those of subclasses as well.

    ``class Contract(Guarded, arguments=...)`` makes a contract, with the check of each argument.
    """

    _contract: ClassVar[type]
    _arguments: ClassVar[Mapping[str, Check]]

    def __init_subclass__(cls, *, arguments: Mapping[str, Check] | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if arguments is not None:
            cls._contract, cls._arguments = cls, arguments
        for name in vars(cls).keys() & vars(cls._contract).keys():
            method = vars(cls)[name]
            function = method.__func__ if isinstance(method, classmethod) else method
            if cls is not cls._contract and method is vars(cls._contract)[name]:
                continue
            if inspect.isfunction(function) and cls._arguments.keys() & inspect.signature(function).parameters.keys():
                guarded = _guarded(function, cls._arguments)
                setattr(cls, name, guarded if function is method else classmethod(guarded))


def _guarded(method: Callable[..., Any], checks: Mapping[str, Check]) -> Callable[..., Any]:
    _, *names = inspect.signature(method).parameters

    def checked(own: Any, name: str, value: Any) -> Any:
        return checks[name](own, value) if name in checks else value

    @functools.wraps(method)
    def guarded(own: Any, *given: Any, **named: Any) -> Any:
        positional = [checked(own, name, value) for name, value in zip(names, given, strict=False)]
        keywords = {name: checked(own, name, value) for name, value in named.items()}
        # Python itself refuses an argument that is given twice, or too many.
        return method(own, *positional, *given[len(names) :], **keywords)

    return guarded
