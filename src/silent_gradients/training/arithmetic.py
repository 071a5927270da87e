"""How torch computes in training processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from silent_gradients.settings import Precision

_CUDNN = torch.backends.cudnn.conv  # type: ignore[attr-defined]


def settle(threads: int = 1) -> None:
    """Set what holds for a whole process.

    Args:
        threads: Threads of the CPU.
    """
    torch.set_num_threads(threads)
    # Saturated posteriors are full of denormal numbers, which are several times slower.
    torch.set_flush_denormal(True)
    # PyTorch lets convolutions use TF32 unless it is told otherwise; here a setting says so.
    _CUDNN.fp32_precision = "ieee"
    # A run's shapes never change, so that trying cuDNN's algorithms pays.
    torch.backends.cudnn.benchmark = True


@contextmanager
def convolutions(precision: Precision) -> Iterator[None]:
    """Convolutions inside may use TF32, if ``precision`` says so; the backward pass belongs inside as well."""
    if precision != "tf32":
        yield
        return
    before = _CUDNN.fp32_precision
    _CUDNN.fp32_precision = "tf32"
    try:
        yield
    finally:
        _CUDNN.fp32_precision = before
