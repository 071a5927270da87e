"""The ids of every preset's runs, packs, selections and plan: a change of code must not change them unnoticed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from silent_study.params import load
from silent_study.plan.plan import GRID_ROUNDS, ROUNDS, Plan

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden_ids.json"
"""Written by ``python -m tests.plan.test_golden_ids``."""
PRESETS = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))


def first_points(plan: Plan) -> dict[str, Mapping[str, Any]]:
    """Selections as if the first point of every grid had been the best."""
    found: dict[str, Mapping[str, Any]] = {}
    for round_ in GRID_ROUNDS:
        for cell in plan.cells_of(round_):
            found[cell.name] = {"status": "selected", "point": plan.points(cell, found)[0]}
    return found


def ids(preset: str, folder: Path) -> dict[str, Any]:
    """The plan's id, the first run's name, the number of runs, a digest of all ids of runs, packs and selections."""
    params = folder / "params.yaml"
    params.write_text(f"preset: {preset}\n")
    plan = Plan(load(params, ROOT / "presets"))
    selections = first_points(plan)
    names: list[Any] = []
    for group in plan.groups():
        for round_ in plan.rounds(group):
            packs = plan.packs(round_, selections, group)
            selection = plan.selection_id(round_, group, selections) if round_ in GRID_ROUNDS else None
            names.append([selection, *([pack.id, *(run.id for run in pack.members)] for pack in packs)])
    runs = [run for round_ in ROUNDS for pack in plan.packs(round_, selections) for run in pack.members]
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
    return {"plan": plan.id(selections), "first": runs[0].name, "runs": len(runs), "ids": digest}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_ids_of_a_preset_are_those_of_before(preset, tmp_path):
    assert ids(preset, tmp_path) == json.loads(GOLDEN.read_text())[preset]


def test_no_preset_is_left_out():
    assert sorted(json.loads(GOLDEN.read_text())) == PRESETS


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps({preset: ids(preset, Path(folder)) for preset in PRESETS}, indent=1) + "\n")
