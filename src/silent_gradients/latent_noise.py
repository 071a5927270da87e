"""The noise of latent samples: drawn from a generator, or drawn beforehand.

A step of many runs at once (``training/stack.py``) draws the noise of each from its own generator beforehand, so that a
run sees the same noise as it would alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["normal", "uniform"]


@dataclass(frozen=True)
class Request:
    """Noise that was asked for: N(0, 1), or uniform on [0, 1)."""

    kind: Kind
    shape: tuple[int, ...]
    dtype: torch.dtype

    def draw(self, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """The noise, of shape [*shape], from ``generator`` (None: PyTorch's own)."""
        draw = torch.randn if self.kind == "normal" else torch.rand
        return draw(self.shape, generator=generator, dtype=self.dtype, device=device)


@dataclass
class RecordedNoise:
    """Notes what is asked for and hands out constants: what a step will need, without drawing anything."""

    requests: list[Request] = field(default_factory=list)

    def take(self, request: Request, device: torch.device) -> Tensor:
        """A constant of shape [*request.shape] in the place of the noise."""
        self.requests.append(request)
        return torch.full(request.shape, 0.5, dtype=request.dtype, device=device)


class PreparedNoise:
    """Hands out noise that was drawn beforehand, in the order in which it is asked for.

    Args:
        requests: What will be asked for.
        noise: The noise, one tensor [*request.shape] for each.
    """

    def __init__(self, requests: Sequence[Request], noise: Iterable[Tensor]) -> None:
        self._left = list(zip(requests, noise, strict=True))

    def take(self, request: Request, device: torch.device) -> Tensor:
        """The next of the noise, [*request.shape].

        Raises:
            ValueError: Something else was expected to be asked for.
        """
        expected, noise = self._left.pop(0) if self._left else (None, torch.empty(0))
        if request != expected:
            raise ValueError(f"noise: prepared for {expected}, asked for {request}")
        return noise


NoiseSource = torch.Generator | RecordedNoise | PreparedNoise
"""Where latent noise comes from."""


def normal(shape: tuple[int, ...], like: Tensor, source: NoiseSource | None) -> Tensor:
    """N(0, 1) noise.

    Args:
        shape: Its shape; the samples [S] first in a posterior's.
        like: Tensor [...] whose type and device the noise gets.
        source: Where it comes from; None is PyTorch's own generator.

    Returns:
        A tensor [*shape].
    """
    return _noise(Request("normal", shape, like.dtype), like.device, source)


def uniform(shape: tuple[int, ...], like: Tensor, source: NoiseSource | None) -> Tensor:
    """Uniform noise on [0, 1), a tensor [*shape]; arguments as those of ``normal``."""
    return _noise(Request("uniform", shape, like.dtype), like.device, source)


def poisson(rate: Tensor, source: NoiseSource | None) -> Tensor:
    """Poisson numbers of the rates ``rate`` [...], in their shape: no noise of a law that is known before they are.

    Raises:
        ValueError: They were to be drawn beforehand.
    """
    if source is not None and not isinstance(source, torch.Generator):
        raise ValueError(f"noise: Poisson samples need a generator, got {type(source).__name__}")
    return torch.poisson(rate, generator=source)


def _noise(request: Request, device: torch.device, source: NoiseSource | None) -> Tensor:
    if source is None or isinstance(source, torch.Generator):
        return request.draw(source, device)
    return source.take(request, device)
