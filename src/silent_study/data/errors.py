"""Errors of the data; the check for disk space."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DataError(RuntimeError):
    """Missing, damaged or unexpected data; the message holds what was expected, what was found and how to fix it."""


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def enough_space(folder: Path, needed: int = 0) -> Iterator[None]:
    """Guard a block that writes ``needed`` bytes, as far as known, to a folder, which may not exist yet.

    Raises:
        DataError: The disk is full, or has less than ``needed`` left.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    remedy = "free some, then the same command goes on"
    if needed > (free := shutil.disk_usage(existing).free):
        sizes = f"{needed / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB are free"
        raise DataError(f"{folder}: {sizes} on its disk; {remedy}")
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        where = Path(error.filename).parent if error.filename else folder  # of a temporary file, another disk
        raise DataError(f"{where}: its disk is full ({error.strerror}); {remedy}") from error
