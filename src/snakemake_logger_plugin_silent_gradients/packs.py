"""What is worth saying of a pack: the rule ``train_pack`` trains runs of one cell and writes a manifest of them."""

import json
import os
from pathlib import Path
from typing import Any

RULE = "train_pack"

# A line of a curve is a few hundred bytes.
_TAIL_BYTES = 8192


def title(manifest: Path) -> str:
    """Round and cell of a pack, from the path ``<results>/packs/<round>/<cell>/<number>-<pack id>.json``."""
    round_, *cell = _below_packs(manifest)
    return f"{round_} {'/'.join(cell)}"


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


def newest_epoch(manifest: Path, since: float) -> str:
    """The latest news of a pack that is being trained: the last line of the curve of its cell that was last written to.

    Args:
        manifest: Where the pack's manifest will be.
        since: When the pack began, in seconds since the epoch of Unix; older curves are of other packs.

    Returns:
        Run, epoch and bits/dim, or "" as long as there is nothing to tell.
    """
    cell = _results(manifest).joinpath("store", *_below_packs(manifest)[1:])
    times = {path: time for path in cell.glob("*/curve.jsonl") if (time := _modified(path)) >= since}
    if not times:
        return ""
    curve = max(times, key=times.__getitem__)
    epoch = _last_line(curve)
    if epoch is None:
        return ""
    if epoch.get("selection_bpd") is not None:
        score = f"{epoch['selection_bpd']:.3f} bits/dim"
    elif epoch.get("train_bpd") is not None:
        score = f"objective {epoch['train_bpd']:.3f}"
    else:
        score = ""
    return f"{curve.parent.name}  epoch {epoch.get('epoch')}  {score}".rstrip()


def _below_packs(manifest: Path) -> tuple[str, ...]:
    return manifest.parts[manifest.parts.index("packs") + 1 : -1]


def _results(manifest: Path) -> Path:
    return Path(*manifest.parts[: manifest.parts.index("packs")])


def _modified(path: Path) -> float:
    # A run's folder is renamed when the run is finished.
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _last_line(path: Path) -> dict[str, Any] | None:
    """The last whole line of a file of JSON lines that is being written to; None while there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            whole_lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    if not whole_lines:
        return None
    line: dict[str, Any] = json.loads(whole_lines[-1])
    return line
