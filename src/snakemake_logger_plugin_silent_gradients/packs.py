"""What is worth saying of a pack: rule ``train_pack`` trains runs of one experiment and writes a manifest of them."""

import json
import os
from pathlib import Path

RULE = "train_pack"

# A line of a training is a few hundred bytes.
_TAIL_BYTES = 8192


def title(manifest: Path) -> str:
    """Round and group of a pack, from the path ``<results>/packs/<round>/<data set>/<experiment>/<pack id>.json``."""
    round_, *group = _below_packs(manifest)
    return f"{round_} {'/'.join(group)}"


def describe(manifest: Path) -> str:
    """What came of a finished pack: its runs, those that diverged, and the best bound on the selection split.

    Raises:
        OSError: The manifest or the result of a member cannot be read.
        ValueError: One of them is no JSON.
        KeyError: One of them lacks what a manifest or a result has.
    """
    members = json.loads(manifest.read_text())["members"]
    store = _results(manifest) / "store"
    results = [json.loads((store / member["name"] / "result.json").read_text()) for member in members]
    parts = [f"{len(results)} run" + "s" * (len(results) != 1)]
    if diverged := sum(result["status"] == "diverged" for result in results):
        parts.append(f"{diverged} diverged")
    bounds = [result["selection"]["bpd"] for result in results if result["status"] != "diverged"]
    if bounds:
        parts.append(f"best {min(bounds):.3f} bits/dim")
    return ", ".join(parts)


def newest_line(log: Path) -> str:
    """The last whole line of a job's log, which a training adds to as it goes on; "" as long as there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            whole_lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return ""
    return whole_lines[-1].decode(errors="replace") if whole_lines else ""


def _below_packs(manifest: Path) -> tuple[str, ...]:
    return manifest.parts[manifest.parts.index("packs") + 1 : -1]


def _results(manifest: Path) -> Path:
    return Path(*manifest.parts[: manifest.parts.index("packs")])
