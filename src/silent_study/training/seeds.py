"""Random streams of one run, from its seed."""

from __future__ import annotations

import hashlib
from typing import Literal

import torch

Training = Literal["initialization", "order", "dequantization", "latent"]
Evaluation = Literal["evaluation", "gradient-variance", "gradient-reference", "gradient-settling"]
Purpose = Literal[Training, Evaluation]


def derived_seed(seed: int, purpose: Purpose) -> int:
    """Return a 63-bit seed for one purpose; methods with the same run seed share e.g. their data order."""
    return int.from_bytes(hashlib.sha256(f"{purpose}/{seed}".encode()).digest()[:8]) >> 1


def generator(seed: int, purpose: Purpose, device: torch.device) -> torch.Generator:
    """Return the run's generator for one purpose, on the device that draws from it."""
    return torch.Generator(device).manual_seed(derived_seed(seed, purpose))
