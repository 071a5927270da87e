"""Files that are either complete or absent: atomic writes and digests, with the standard library alone."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` when the block ends: readers see the old file or the new one, never a part.

    Missing parent folders are made. The new file keeps the mode of the one it replaces, or gets the usual one of the
    process's umask. If the block raises, the old file is untouched and nothing is left beside it.

    Yields:
        The open file, whose ``name`` is its path until then.

    Raises:
        OSError: The folder cannot be written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".tmp")
    temporary = Path(name)
    try:
        # By name, not by descriptor: a caller may read the file back before it is renamed.
        os.close(descriptor)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
    _sync_folder(path.parent)


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``; see ``atomic_file``."""
    with atomic_file(path) as file:
        file.write(data)


def write_text_atomically(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, its line ends as they are, to ``path``; see ``atomic_file``."""
    write_bytes_atomically(path, text.encode("utf-8"))


def sha256_of(path: Path) -> str:
    """SHA-256 (64 hexadecimal digits) of a file's content, read in pieces.

    Raises:
        OSError: The file cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    # The only portable way to read the umask is to set it; mkstemp would otherwise leave every file private.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    # A rename survives a power cut only once its folder is on disk; Windows has no folder descriptors to sync.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
