"""Descriptions of packs: rule ``train_pack`` trains runs of one experiment and writes a manifest of them."""

import json
from pathlib import Path

from silent_study.progress.logs import tail
from silent_study.words import counted

RULE = "train_pack"


def title(manifest: Path) -> str:
    """Return round and group of a pack from ``<results>/packs/<round>/<data set>/<experiment>/<pack id>.json``."""
    round_, *group = manifest.parts[manifest.parts.index("packs") + 1 : -1]
    return f"{round_} {'/'.join(group)}"


def describe(manifest: Path) -> str:
    """Describe a finished pack: its runs, the diverged ones, and the best bound on the selection split.

    Raises:
        OSError: The manifest or the result of a member cannot be read.
        ValueError: One of them is not JSON.
        KeyError: One of them lacks a key.
    """
    members = json.loads(manifest.read_text())["members"]
    store = Path(*manifest.parts[: manifest.parts.index("packs")]) / "store"
    results = [json.loads((store / member["name"] / "result.json").read_text()) for member in members]
    parts = [counted(len(results), "run")]
    if diverged := sum(result["status"] == "diverged" for result in results):
        parts.append(f"{diverged} diverged")
    bounds = [result["selection"]["bpd"] for result in results if result["status"] != "diverged"]
    if bounds:
        parts.append(f"best {min(bounds):.3f} bits/dim")
    return ", ".join(parts)


def newest_line(log: Path) -> str:
    """Return the last complete line of a job's log, or "" if there is none yet."""
    return next(reversed(tail(log)), "")
