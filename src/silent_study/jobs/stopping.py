"""Requests to stop a training process: signals and the time limit."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType


class StopSignal:
    """Turns the first SIGTERM or SIGINT into a request to stop at the next checkpoint; the second stops at once.

    Attributes:
        number: Number of the signal that came; None before one does.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def __call__(self) -> bool:
        """Return True if a signal has come."""
        return self.number is not None


class TimeLimit:
    """Requests a stop while there is still time to do once more whatever has taken longest between two calls.

    Args:
        seconds: The limit, counted from now.
        clock: Returns the time in seconds.
    """

    RESERVE = 10.0
    """Least number of seconds that is kept for saving a checkpoint."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.last = clock()
        self.end = self.last + seconds
        self.longest = 0.0

    def __call__(self) -> bool:
        """Return True if it is time to stop."""
        now = self.clock()
        self.longest = max(self.longest, now - self.last)
        self.last = now
        return now + max(self.RESERVE, 1.5 * self.longest) > self.end
