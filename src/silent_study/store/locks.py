"""Locks between processes.

Not the library ``filelock``: it cannot look at a lock without taking it, and so without writing a file; it asks again
every few milliseconds where the kernel can wait; and on a disk without file locks it falls back, differently from
version to version, to files that outlive a killed holder.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def try_lock(path: Path) -> int | None:
    """Lock a file, which is made if missing; raises OSError for a symbolic link, or on a disk without file locks.

    Returns:
        A descriptor that holds the lock until it is closed; None where the lock is held, be it by this process.
    """
    descriptor = _open(path)
    taken = False
    try:
        taken = _flock(descriptor, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        if not taken:
            os.close(descriptor)
    return descriptor if taken else None


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold a file's lock inside the block and yield True; yield False, without a wait, where somebody holds it."""
    descriptor = try_lock(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def locked(path: Path, notice: str) -> Iterator[None]:
    """Hold a file's lock, as ``try_lock``, inside the block; print ``notice`` to standard error before any wait."""
    descriptor = _open(path)
    try:
        if not _flock(descriptor, path, fcntl.LOCK_EX | fcntl.LOCK_NB):
            print(notice, file=sys.stderr, flush=True)
            _flock(descriptor, path, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Return True while a process, on whichever machine, holds the lock of a file; read-only.

    A process that asks for the lock at this very moment may find it taken, and then gets it at once.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _flock(descriptor, path, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    # O_NOFOLLOW: in a folder that others can write to, a link of this name is an accident or a trap.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    # Some systems clear old files out of temporary folders; a lock in use must not look old.
    os.utime(descriptor)
    return descriptor


def _flock(descriptor: int, path: Path, operation: int) -> bool:
    """Return False where another descriptor holds the lock."""
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        reason = f"this disk has no file locks ({error.strerror}); use a folder on another disk, or mount it with locks"
        raise OSError(error.errno, f"{reason} (Lustre: -o flock)", str(path)) from error
    return True
