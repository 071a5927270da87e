"""Requests to stop: signals and the time limit."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

PROGRAM = "silent-gradients"
FORWARDED = signal.SIGUSR1
"""The signal with which Snakemake's process asks its jobs to stop: they may have had the user's own signal already."""


def _requests() -> Iterator[signal.Signals]:
    """Yield the signals that request a stop.

    Started in the background of a script, a process ignores SIGINT; sent on purpose, it counts all the same. SIGHUP is
    ignored after ``nohup``, which asks to outlive the terminal.
    """
    yield from (signal.SIGTERM, signal.SIGINT)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        yield signal.SIGHUP


class StopSignal:
    """Turns signals into a request to stop at the next checkpoint; SIGINT after such a request stops at once."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the signal that came
        self._nothing_to_save = False
        for number in (*_requests(), FORWARDED):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        again = number == signal.SIGINT and self.number not in (None, FORWARDED)
        if self.number in (None, FORWARDED):
            self.number = number
        if again or self._nothing_to_save:
            raise KeyboardInterrupt

    def __call__(self) -> bool:
        """Return True if a signal has come."""
        return self.number is not None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise KeyboardInterrupt at a signal inside the block, which has nothing to save."""
        self._nothing_to_save = True
        try:
            yield
        finally:
            self._nothing_to_save = False


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Have signals raise KeyboardInterrupt with their number inside the block, so that no part of a file is left."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    with ExitStack() as undone:
        if threading.current_thread() is threading.main_thread():
            for number in [*_requests(), FORWARDED]:
                undone.callback(signal.signal, number, signal.signal(number, interrupt))
        yield


def exit_on_signals() -> None:
    """Have signals raise SystemExit in this process, Snakemake's, so that it releases its lock."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        for number in _requests():
            signal.signal(number, end)


def stop_jobs_on_signals() -> None:
    """Have signals stop this process, Snakemake's, and its jobs, which it would wait for.

    To be called once Snakemake handles SIGTERM: it then starts no other job, waits for those that run, counts what they
    did and releases its lock. A DVC that dies does not tell its Snakemake, which looks after it.
    """
    graceful: Any = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        graceful(number, frame)
        while jobs := _running_jobs():
            for job in jobs:
                job.send_signal(FORWARDED)
            time.sleep(1)

    def handle(number: int, frame: FrameType | None) -> None:
        # In a thread: Snakemake's handler waits for a lock that the interrupted code may hold.
        threading.Thread(target=stop, args=(number, frame), daemon=True).start()

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        stop(signal.SIGTERM, None)

    for number in list(_requests()):
        signal.signal(number, handle)
    if "DVC_STAGE" in os.environ:
        threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()


def _running_jobs() -> list[Any]:
    """Return the processes of this one's jobs, without the shells around them."""
    import psutil  # type: ignore[import-untyped]

    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any(Path(word).name == PROGRAM for word in process.cmdline()[:2]):
                found.append(process)
        except psutil.Error:  # it has just ended
            continue
    return found


class TimeLimit:
    """Requests a stop while there is still time to do once more whatever has taken longest between two calls.

    The limit of so many seconds is counted from now.
    """

    RESERVE = 10.0
    """Least number of seconds that is kept for saving a checkpoint."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.last: float | None = None  # no call yet: what is done once, at the start, need not be done again
        self.end = clock() + seconds
        self.longest = 0.0

    def left(self) -> float:
        """Return the seconds until the limit."""
        return self.end - self.clock()

    def __call__(self) -> bool:
        """Return True if it is time to stop."""
        now = self.clock()
        if self.last is not None:
            self.longest = max(self.longest, now - self.last)
        self.last = now
        return now + max(self.RESERVE, 1.5 * self.longest) > self.end
