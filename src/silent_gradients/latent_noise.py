"""The noise of latent samples, drawn or given.

A step of many runs at once under ``torch.vmap`` draws each run's noise from the run's own generator beforehand, so that
a run gets the same noise as it would alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from silent_gradients import checks

Law = Literal["normal", "uniform"]


@dataclass(frozen=True)
class Request:
    """A request for noise: N(0, 1), or uniform on [0, 1)."""

    law: Law
    shape: tuple[int, ...]
    dtype: torch.dtype

    def draw(self, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Return the noise, of shape [*shape], from ``generator`` (None: PyTorch's own)."""
        draw = torch.randn if self.law == "normal" else torch.rand
        return draw(self.shape, generator=generator, dtype=self.dtype, device=device)


@dataclass
class RecordedNoise:
    """Source that records the requests of a step and returns constants, without drawing anything."""

    requests: list[Request] = field(default_factory=list)

    def take(self, request: Request, device: torch.device) -> Tensor:
        """Record the request and return a constant of shape [*request.shape] in the place of the noise."""
        self.requests.append(request)
        return torch.full(request.shape, 0.5, dtype=request.dtype, device=device)


class PreparedNoise:
    """Source that returns noise drawn beforehand, [*request.shape] for each of the requests to come, in their order."""

    def __init__(self, requests: Sequence[Request], noise: Iterable[Tensor]) -> None:
        self._left = list(zip(requests, noise, strict=True))

    def take(self, request: Request, device: torch.device) -> Tensor:
        """Return the next noise, [*request.shape].

        Raises:
            ValueError: Another request was expected.
        """
        expected, noise = self._left.pop(0) if self._left else (None, torch.empty(0))
        if request != expected:
            raise ValueError(f"noise: prepared for {expected}, got {request}")
        return noise


NoiseSource = torch.Generator | RecordedNoise | PreparedNoise
"""Source of latent noise."""


def normal(shape: tuple[int, ...], like: Tensor, source: NoiseSource | None) -> Tensor:
    """Return N(0, 1) noise [*shape] in type and on the device of ``like`` [...]; None is PyTorch's own generator."""
    return _noise("normal", shape, like, source)


def uniform(shape: tuple[int, ...], like: Tensor, source: NoiseSource | None) -> Tensor:
    """Return uniform noise on [0, 1), [*shape]; see ``normal``."""
    return _noise("uniform", shape, like, source)


def poisson(rate: Tensor, source: NoiseSource | None) -> Tensor:
    """Return Poisson samples of the rates ``rate`` [...], which cannot be drawn before the rates are known.

    Raises:
        ValueError: The source is not a generator.
    """
    if source is not None and not isinstance(source, torch.Generator):
        raise ValueError(f"noise: Poisson samples need a generator, got {type(source).__name__}")
    return torch.poisson(checks.floats("rate", rate), generator=source)


def _noise(law: Law, shape: tuple[int, ...], like: Tensor, source: NoiseSource | None) -> Tensor:
    request, device = Request(law, shape, checks.floats("like", like).dtype), like.device
    for size in shape:
        checks.whole("shape", size, 0)
    if source is None or isinstance(source, torch.Generator):
        return request.draw(source, device)
    if not isinstance(source, RecordedNoise | PreparedNoise):
        raise TypeError(f"generator: expected a torch.Generator or None, got {source!r}; seed one with manual_seed")
    return source.take(request, device)
