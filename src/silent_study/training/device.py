"""Settings of torch, and memory of the process."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from silent_gradients.networks import tf32
from silent_study.settings import Precision
from silent_study.store.provenance import TF32_OVERRIDE

_BACKENDS: Any = torch.backends
_CUDNN = _BACKENDS.cudnn.conv
FLOAT32_BACKENDS = (
    *(_BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn),
    *(_BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv, _BACKENDS.mkldnn.rnn),
)
"""The parts of torch that can compute float32 in a shorter type."""
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def configure_torch(threads: int = 1) -> None:
    """Set torch's options for this process.

    Args:
        threads: Number of CPU threads.
    """
    torch.set_num_threads(threads)
    # Saturated posteriors are full of denormal numbers, which are several times slower.
    torch.set_flush_denormal(True)
    # ``RunSettings.precision`` decides. PyTorch's default is TF32 for convolutions, and for matrix products as well
    # where TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is set, as in NVIDIA's containers.
    torch.set_float32_matmul_precision("highest")
    for backend in FLOAT32_BACKENDS:
        backend.fp32_precision = "ieee"
    if TF32_OVERRIDE in os.environ:
        risk = "NVIDIA's libraries may use TF32 where a run's settings do not, or the reverse"
        fix = "unset it for the arithmetic that the settings name"
        print(f"{TF32_OVERRIDE}={os.environ[TF32_OVERRIDE]}: {risk}; {fix}", file=sys.stderr, flush=True)
    # A run's shapes never change, so that trying cuDNN's algorithms pays.
    torch.backends.cudnn.benchmark = True


def convolution_precision(precision: Precision) -> AbstractContextManager[None]:
    """Return a context manager in which convolutions use TF32 if ``precision`` is ``tf32``.

    The backward pass belongs inside as well.
    """
    return tf32(_CUDNN) if precision == "tf32" else nullcontext()


def resident_megabytes() -> float:
    """Return the MiB of memory that the process occupies now (Linux)."""
    return _status("VmRSS")


def peak_megabytes() -> float:
    """Return the most MiB that the process has occupied since ``reset_peak`` (Linux)."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Reset the peak of the process's memory to what it occupies now (Linux)."""
    _CLEAR.write_text("5")


def _status(name: str) -> float:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"{_STATUS}: no line {name}")
