"""The settings of studies, as they are laid over params.yaml."""

from pathlib import Path

import pytest
from tests.plan.test_golden_ids import first_points

from silent_study import params
from silent_study.params.overlay import laid_over, read_yaml
from silent_study.plan.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "studies").glob("*.yaml"))
LENGTHS = {"mnist-two-layer": (0.0, 0.0), "mnist-sequential": (3 / 4, 1 / 3)}
"""Shares of the epochs in which the learning rate and the guide's weight fall, as the protocol has them."""


def plan_of(*names: str) -> Plan:
    own = read_yaml(ROOT / "params.yaml")
    for name in names:
        own = laid_over(own, read_yaml(ROOT / "studies" / name), removing=False)
    return Plan(params.resolve(own, ROOT / "presets"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_guided_and_unguided_runs_of_a_study_share_everything_but_the_guide(file):
    plan = plan_of(*["digits-ladder.yaml"] * file.stem.startswith("digits-ladder-"), file.name)
    one_point = all(len(plan.points(cell, first_points(plan))) == 1 for cell in plan.cells())
    assert one_point or plan.grid_seed not in plan.params.seeds, "no reported seed selects"
    chosen = first_points(plan)
    runs = [run for group in plan.groups() for pack in plan.packs("seeds", chosen, group) for run in pack.members]
    own = {
        (run.cell, run.seed): {key: value for key, value in run.to_json().items() if key not in ("silent", "method")}
        for run in runs
    }
    for (cell, seed), settings in own.items():
        assert settings == own[(cell.removesuffix("+silent"), seed)]
    cooldown, guided = LENGTHS.get(file.stem, (1 / 2, 1 / 4))
    assert {run.cooldown_epochs / run.epochs for run in runs} == {cooldown}
    for run in runs:
        assert run.silent is None or not one_point or run.silent.annealing_rate == 1 / (guided * run.epochs)
