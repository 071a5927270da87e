"""Ends of files that a job is still writing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_RUN = re.compile(r"[\w-]+/[\w-]+/([\w+-]+)/(\S*?),?seed=(\d+)-[0-9a-f]+")
_TRAINED = re.compile(r"^\[\d+/\d+\] (?:already )?trained (\S+):", re.MULTILINE)

# Enough for the first or last lines of a log, and for the last ones of a curve.
_TAIL_BYTES = 8192


def without_run_names(line: str) -> str:
    """Replace names of runs by method and seed, as in ``reinforce+silent seed 2``."""
    return _RUN.sub(r"\1 seed \3", line)


def point_in(name: str) -> str:
    """Return the settings in the name of a run, as in ``lr=0.003,anneal=0.1``; "" if it has none."""
    return found[2] if (found := _RUN.match(name)) else ""


def tail(path: Path) -> list[str]:
    """Return the last complete lines of a file, the first perhaps cut; none if the file cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            return file.read().decode(errors="replace").split("\n")[:-1]
    except OSError:
        return []


def last_line(path: Path) -> str:
    """Return the last complete line of a file, or "" if there is none yet."""
    return next(reversed(tail(path)), "")


def trained_in(log: Path, start: int = 0) -> tuple[set[str], int]:
    """Return the names of the runs that a training finished after ``start`` bytes of its log, and where to go on.

    A log that is shorter has been begun again, and is read from its beginning.
    """
    try:
        with log.open("rb") as file:
            file.seek(start if start <= file.seek(0, 2) else 0)
            begun, lines = file.tell(), file.read().rpartition(b"\n")[0]
    except OSError:
        return set(), start
    return set(_TRAINED.findall(lines.decode(errors="replace"))), begun + len(lines)


def seconds_waited(log: Path) -> float | None:
    """Return the seconds that a training has waited for a device, by its log; None while it waits."""
    try:
        with log.open(errors="replace") as file:
            beginning = file.read(_TAIL_BYTES)
    except OSError:
        return 0.0
    if found := re.search(r"^waiting for .* ended after (\d+) s$", beginning, re.MULTILINE):
        return float(found[1])
    return None if last_line(log).startswith("waiting for ") else 0.0


def error_in(log: Sequence[str], verb: str) -> str:
    """Return the error in the log of ``silent-gradients <verb>``; "" if there is none."""
    for line in log:
        if line.startswith(f"silent-gradients {verb}: "):
            return line.strip()
    return log[-1].strip() if any(line.startswith("Traceback") for line in log) else ""
