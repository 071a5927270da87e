"""Memory of this process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_megabytes() -> float:
    """Memory that the process occupies now."""
    return _status("VmRSS")


def peak_megabytes() -> float:
    """The most that it has occupied since ``reset_peak``."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Let the peak begin anew."""
    _CLEAR.write_text("5")


def _status(name: str) -> float:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"{_STATUS}: no line {name}")
