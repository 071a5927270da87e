"""Checkpoints with their digest inside."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch

from silent_study.store.files import write_bytes_atomically
from silent_study.store.runs import CHECKPOINTS

CURRENT, PREVIOUS = CHECKPOINTS
_DIGEST_BYTES = 32


class CheckpointError(RuntimeError):
    """A checkpoint file is damaged; the message names the file."""


def serialized(state: dict[str, Any]) -> bytes:
    """Return ``state`` (tensors, numbers, strings, lists, dictionaries) as the content of a file of ``torch.save``.

    Files are written from memory: on a full disk ``torch.save`` into a file fails with an error of its archive.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def save(folder: Path, state: dict[str, Any]) -> None:
    """Save ``state`` as the folder's newest checkpoint; for its content see ``serialized``.

    The last checkpoint becomes the second last, where ``newest`` finds it if the disk is full.
    """
    payload = serialized(state)
    current = folder / CURRENT
    if current.exists():
        current.replace(folder / PREVIOUS)
    write_bytes_atomically(current, hashlib.sha256(payload).digest() + payload)


def read(path: Path) -> dict[str, Any]:
    """Read one checkpoint file onto the CPU.

    Raises:
        CheckpointError: The file was cut short or altered.
    """
    content = path.read_bytes()
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        raise CheckpointError(f"{path}: damaged ({len(content)} bytes, digest does not match its content)")
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)


def newest(folder: Path) -> dict[str, Any] | None:
    """Return the newest undamaged checkpoint of a folder, or None; warn of every damaged one."""
    for path in (folder / CURRENT, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            return read(path)
        except CheckpointError as error:
            warnings.warn(f"{error}; going on from the state before it", stacklevel=2)
    return None
