"""The settings of studies, as they are laid over params.yaml."""

from pathlib import Path

import pytest

from silent_study import params
from silent_study.params.overlay import laid_over, read_yaml
from silent_study.plan.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "studies").glob("*.yaml"))


def plan_of(*names: str) -> Plan:
    own = read_yaml(ROOT / "params.yaml")
    for name in names:
        own = laid_over(own, read_yaml(ROOT / "studies" / name), removing=False)
    return Plan(params.resolve(own, ROOT / "presets"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_guided_and_unguided_runs_of_a_study_share_everything_but_the_guide(file):
    plan = plan_of(*["digits-ladder.yaml"] * file.stem.startswith("digits-ladder-"), file.name)
    (group,) = plan.groups()
    chosen = plan.foreseen(group)
    assert chosen is not None, "a study has one point per method, so that no reported seed selects"
    runs = [run for pack in plan.packs("seeds", chosen, group) for run in pack.members]
    own = {
        name: {key: value for key, value in run.to_json().items() if key not in ("silent", "method")}
        for run in runs
        if (name := (run.method, run.seed))
    }
    for (method, seed), settings in own.items():
        assert settings == own[(method.removesuffix("+silent"), seed)]
    for run in runs:
        assert run.cooldown_epochs == run.epochs / 2
        assert run.silent is None or run.silent.annealing_rate == 4 / run.epochs
