"""What successive halving of learning rates would have selected, by the curves of grids that are trained in full.

    python benchmarks/halving.py results/store [STORE ...]

Runs that differ in their learning rates alone are a ladder. Of n rates, the half with the lower bits/dim on the
selection split goes on, at every halving of the epochs: 4 rates to a quarter, 2 to a half, 1 to the end. A cell's point
is the best of what reaches the end of its ladders; the regret is its final bits/dim over that of the full grid's point.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from silent_study.store.documents import CurveEntry
from silent_study.store.runs import RunStore, StoredRun

RATES = ("learning_rate", "mean_rate", "precision_rate")


def ladder(run: StoredRun) -> str:
    """Return what runs of a ladder have in common."""
    settings: dict[str, Any] = {key: value for key, value in run.settings.items() if key not in RATES}
    if settings["silent"] is not None:
        settings["silent"] = {key: value for key, value in settings["silent"].items() if key not in RATES}
    return repr(sorted(settings.items()))


def bound(curve: list[CurveEntry], epoch: int) -> float:
    """Return the newest bits/dim until an epoch; infinite after a divergence or without an evaluation."""
    found = [entry["selection_bpd"] for entry in curve[:epoch] if entry["selection_bpd"] is not None]
    return found[-1] if found and len(curve) >= epoch else math.inf


def halved(runs: list[StoredRun]) -> tuple[StoredRun, float]:
    """Return the run of a ladder that reaches the end, and the share of the ladder's epochs that are trained."""
    left, spent, before, total = runs, 0, 0, len(runs)
    epochs = int(runs[0].settings["epochs"])
    curves = {run.name: run.curve_entries() for run in runs}
    while len(left) > 1:
        epoch = epochs // 2 ** math.ceil(math.log2(len(left)))
        spent += len(left) * (epoch - before)
        left = sorted(left, key=lambda run: bound(curves[run.name], epoch))[: math.ceil(len(left) / 2)]
        before = epoch
    return left[0], (spent + epochs - before) / (total * epochs)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stores", type=Path, nargs="+", help="folders of runs")
    options = parser.parse_args()
    stores = map(RunStore, options.stores)
    found = {name: store.unverified(name) for store in stores for name in store.names() if store.is_finished(name)}
    ladders = defaultdict(list)
    for run in found.values():
        ladders[run.cell, run.seed, ladder(run)].append(run)
    cells = defaultdict(list)
    for (cell, seed, _), runs in ladders.items():
        if len(runs) > 1:
            cells[cell, seed].append(runs)
    groups = defaultdict(list)
    for (cell, _), parts in cells.items():
        best = min(run.final_bpd for runs in parts for run in runs)
        if not math.isfinite(best):  # every run diverged
            continue
        ends = [halved(runs) for runs in parts]
        regret = min(run.final_bpd for run, _ in ends) - best
        groups[cell.rpartition("/")[0], len(parts[0])].append((regret, statistics.mean(share for _, share in ends)))
    for (group, rates), members in sorted(groups.items()):
        regrets = [regret for regret, _ in members]
        print(
            f"{group}, {rates} rates: {len(members)} cells, another point in {sum(map(bool, regrets))}, "
            f"{statistics.mean(share for _, share in members):.0%} of the steps, "
            f"regret {statistics.mean(regrets):.4f} on average, {max(regrets):.4f} at most"
        )


if __name__ == "__main__":
    main()
