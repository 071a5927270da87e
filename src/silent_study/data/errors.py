"""Errors of the data; the check for disk space."""

from __future__ import annotations

import shutil
from pathlib import Path


class DataError(RuntimeError):
    """Missing, damaged or unexpected data; the message holds what was expected, what was found and how to fix it."""


def require_space(folder: Path, needed: int) -> None:
    """Raise ``DataError`` if the disk of a folder, which may not exist yet, has less than ``needed`` bytes left."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if needed > (free := shutil.disk_usage(existing).free):
        sizes = f"{needed / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB are free"
        raise DataError(f"{folder}: {sizes} on its disk; free some, then the same command goes on")
