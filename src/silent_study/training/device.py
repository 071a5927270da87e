"""How torch computes in training processes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from silent_gradients.networks import tf32
from silent_study.settings import Precision

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


def convolutions(precision: Precision) -> AbstractContextManager[None]:
    """Convolutions inside may use TF32, if ``precision`` says so; the backward pass belongs inside as well."""
    return tf32(_CUDNN) if precision == "tf32" else nullcontext()
