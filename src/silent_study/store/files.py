"""Atomic writes and digests.

Every error of the disk names its file: the system leaves the name out where writing, flushing or closing fails.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from silent_study.store.locks import claimed


@contextmanager
def named_errors(path: Path, size: int | None = None) -> Iterator[None]:
    """Name ``path`` in every OSError of the block that names no file; for a full disk also how much room there is.

    ``size`` is the number of bytes to be written, if known.
    """
    try:
        yield
    except OSError as error:
        reason, full = error.strerror or str(error), error.errno in (errno.ENOSPC, errno.EDQUOT)
        if error.filename is not None and (not full or "bytes free" in reason):
            raise
        if full:
            needed = "" if size is None else f"{size} bytes needed, "
            there = next(each for each in path.absolute().parents if each.exists())
            reason = f"{reason} ({needed}{shutil.disk_usage(there).free} bytes free)"
        raise OSError(error.errno, reason, str(path)) from error


@contextmanager
def atomic_file(path: Path, *, size: int | None = None, lasting: bool = True) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` when the block ends: readers see the old file or the new one, never a part.

    Missing parent folders are made. The new file keeps the mode of the one it replaces, or gets the usual one of the
    process's umask. If the block raises, the old file is untouched and nothing is left beside it. What killed processes
    left in the folder is removed at the first call for it. The ``name`` of the open file is its path until then.

    Args:
        path: The file.
        size: Bytes to be written, if known, for the error on a full disk.
        lasting: Flush the file to the disk, so that it outlives a power cut.

    Raises:
        OSError: The folder cannot be written to, or the disk is full; it names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    _remove_leftovers_once(path.parent.absolute())
    with named_errors(path, size), _locked_beside(path) as temporary:
        try:
            # By name, not by descriptor: a caller may read the file back before it is renamed.
            with temporary.open("wb") as file:
                yield file
                file.flush()
                if lasting:
                    os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise
        if lasting:
            _sync_folder(path.parent)


_SUFFIX = ".silent.tmp"
"""Of no other program's temporary files, which stay."""


@contextmanager
def _locked_beside(path: Path) -> Iterator[Path]:
    """Make a file beside another one, locked for ``remove_leftovers`` until the block ends."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=_SUFFIX)
        try:
            with suppress(OSError):  # a disk without file locks, on which nothing is taken for a leftover
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if Path(name).exists():  # not taken for a leftover before it was locked
                yield Path(name)
                return
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder, which may be missing, of writes with ``atomic_file``.

    The file of a living process stays: it is locked. So does one of another user, or on a disk without file locks.
    """
    for path in folder.glob(f".*.{'?' * 8}{_SUFFIX}"):
        with suppress(OSError), claimed(path) as dead:
            if dead:
                path.unlink(missing_ok=True)


# Listing a folder of thousands of files at each of their writes would take longer than the writes.
_remove_leftovers_once = cache(remove_leftovers)


def write_bytes_atomically(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Write ``data`` to ``path``; see ``atomic_file``."""
    with atomic_file(path, size=len(data), lasting=lasting) as file:
        file.write(data)


def write_text_atomically(path: Path, text: str, *, lasting: bool = True) -> None:
    """Write ``text`` as UTF-8, its line ends as they are, to ``path``; see ``atomic_file``."""
    write_bytes_atomically(path, text.encode("utf-8"), lasting=lasting)


def append_text(path: Path, text: str) -> None:
    """Append ``text`` as UTF-8 to a file; an OSError names it."""
    data = text.encode("utf-8")
    with named_errors(path, len(data)), path.open("ab") as file:
        file.write(data)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (64 hexadecimal digits) of a file's content, which is read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_unaltered(path: Path, sha256: str, since: int = 0) -> bool:
    """Return True if a file exists and has a digest; one that was not touched after ``since`` (ns) is not read."""
    return path.is_file() and (touched(path) <= since or sha256_of(path) == sha256)


def last_touched(folder: Path) -> int:
    """Return when a folder or anything in it was last touched, in ns; the loss of a file touches its folder."""
    with os.scandir(folder) as entries:
        return max(map(touched, [folder, *entries]))


def touched(path: Path | os.DirEntry[str]) -> int:
    """Return when a file was last written, replaced or renamed, in ns: setting its time back does not hide that."""
    status = path.stat()
    return max(status.st_mtime_ns, status.st_ctime_ns)


def mend_times(folders: Iterable[Path]) -> int:
    """Give every file below some folders that is dated in the future the present time; return the number of files.

    Snakemake fails every job with such an input, after the job: its output is older.
    """
    mended, now = 0, time.time()
    for path in (path for folder in folders for path in folder.rglob("*")):
        with suppress(FileNotFoundError):  # a link to nothing, or a file that another process has just removed
            if path.stat().st_mtime > now:
                os.utime(path)
                mended += 1
    return mended


def _umask() -> int:
    # The only portable way to read the umask is to set it; mkstemp would otherwise leave every file private.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    # A rename survives a power cut only once its folder is on disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # File systems that cannot sync a folder (Lustre, CIFS, some FUSE) reject it; they keep renames by themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)
