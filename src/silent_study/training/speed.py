"""How fast a run is being trained, as of the last minute."""

from __future__ import annotations

from collections import deque

WINDOW = 60.0
"""Seconds that an evaluation or a checkpoint is spread over."""


class Speed:
    """Images per second of wall time, from marks that are set as a training goes on."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def mark(self, now: float, images: int) -> None:
        """Note that so many images have been trained on by now (seconds of any clock)."""
        self._marks.append((now, images))
        while len(self._marks) > 2 and self._marks[1][0] <= now - WINDOW:
            self._marks.popleft()

    @property
    def images_per_second(self) -> float | None:
        """Images per second between the first and the last mark of the window; None before two of them."""
        if len(self._marks) < 2:
            return None
        (began, first), (ended, last) = self._marks[0], self._marks[-1]
        return (last - first) / (ended - began) if ended > began else None
