"""Share of a preset's training that grid points take over from each other, by planning alone.

    python benchmarks/shared_epochs.py [--preset paper] [--json FILE]

Runs of a pack that differ in their cut-off alone share the epochs before it. Epochs count by the pixels that they read
and by the phase of their steps.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from measuring import preset_plan

from silent_study.jobs.pace import Pace, epochs_by_phase
from silent_study.plan.plan import GRID_ROUNDS, ROUNDS, Selections

COSTS = {"guided": 1.3, "plain": 1.0, "frozen": 0.5}
"""Assumed time of a step by phase, relative to a plain one's."""


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    options = parser.parse_args()
    plan = preset_plan(options.preset)
    selections: dict[str, Selections] = {}
    for round_ in GRID_ROUNDS:
        for cell in plan.cells_of(round_):
            selections[cell.name] = {"status": "selected", "point": plan.points(cell, selections)[0]}
    whole, shared, counted = Counter[str](), Counter[str](), set[str]()
    for pack in (pack for round_ in ROUNDS for pack in plan.packs(round_, selections)):
        for run in (run for run in pack.members if run.id not in counted):
            counted.add(run.id)
            epoch = Pace(sources=plan.params.sources).expected(run) / run.epochs
            seconds = {phase: epoch * COSTS[phase] * epochs for phase, epochs in epochs_by_phase(run).items()}
            whole[run.data.name] += sum(seconds.values())
            if pack.trunks[run.name] != run:
                shared[run.data.name] += seconds["guided"] + seconds["plain"]
    for dataset, seconds in whole.items():
        print(f"{dataset:24} {shared[dataset] / seconds:6.1%}")
    total = shared.total() / whole.total()
    print(f"{options.preset:24} {total:6.1%}")
    if options.json:
        options.json.write_text(json.dumps({"share": total}) + "\n")


if __name__ == "__main__":
    main()
