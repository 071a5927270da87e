"""Packs share out the runs of a round among jobs, each run once, and travel as JSON."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silent_study import params
from silent_study.plan.plan import Plan
from silent_study.settings import EvaluationSettings, SettingsError
from silent_study.store.packs import PackSpec

EVALUATION = EvaluationSettings(samples=16, variance_images=8, variance_draws=10, reconstructions=4)


def make_plan(presets, rates, workers, runs_per_pack):
    own = {
        "preset": "study",
        "execution": {"workers": workers, "runs_per_pack": runs_per_pack},
        "experiments": {"fixed": {"digits": {"grid": {"learning_rate": [0.001 * (n + 1) for n in range(rates)]}}}},
    }
    return Plan(params.resolve(own, presets))


@settings(deadline=None, max_examples=25)
@given(rates=st.integers(1, 12), workers=st.integers(1, 40), runs_per_pack=st.integers(1, 64))
def test_packs_are_a_partition(study, rates, workers, runs_per_pack):
    plan = make_plan(study, rates, workers, runs_per_pack)
    packs = plan.packs("baselines", {})
    expected = {run.name for cell in plan.cells_of("baselines") for _, run in plan.grid_runs(cell, {})}
    members = [run.name for pack in packs for run in pack.members]
    assert len(members) == len(set(members))
    assert set(members) == expected
    assert len({pack.id for pack in packs}) == len(packs)
    counts = {"digits/fixed": 5 * rates, "digits/learnable": 14}
    for group, runs in counts.items():
        sizes = [len(pack.members) for pack in packs if pack.group == group]
        assert sum(sizes) == runs
        assert max(sizes) <= runs_per_pack
        # Runs that share epochs are parted only where they are too many for a pack.
        homes: dict[str, list[str]] = {}
        for pack in packs:
            for run in pack.members if pack.group == group else ():
                homes.setdefault(run.without_cutoff.id, []).append(pack.id)
        assert len(sizes) >= max(-(-runs // runs_per_pack), min(workers, len(homes)))
        assert all(len(set(each)) == -(-len(each) // runs_per_pack) for each in homes.values())
    # Runs without a cut-off make packs of nearly equal length, one for each worker.
    sizes = [len(pack.members) for pack in packs if pack.group == "digits/fixed"]
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == max(-(-5 * rates // runs_per_pack), min(workers, 5 * rates))
    for pack in packs:
        assert {f"{run.data.name}/{run.experiment}" for run in pack.members} == {pack.group}


@pytest.fixture
def members(tiny):
    cells = ["learnable/reinforce", "learnable/reinforce+silent", "learnable/silent-bernoulli"]
    return tuple(tiny.settings(cell, seed=seed) for cell in cells for seed in (0, 1))


@pytest.mark.parametrize("evaluation", [None, EVALUATION])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_json_round_trip(members, evaluation, count):
    pack = PackSpec("seeds", "tiny/learnable", members[:count], evaluation)
    again = PackSpec.from_json(json.loads(json.dumps(pack.to_json())))
    assert again == pack
    assert again.id == pack.id
    assert [run.id for run in again.members] == [run.id for run in members[:count]]


def test_what_all_members_share_is_written_once(members):
    document = PackSpec("baselines", "tiny/learnable", members, None).to_json()
    assert set(document["shared"]) & {"data", "network", "epochs"} == {"data", "network", "epochs"}
    assert all(
        set(member) == {"method", "estimator", "estimator_options", "silent", "seed"} for member in document["members"]
    )
    alone = PackSpec("baselines", "tiny/learnable", members[:1], None).to_json()
    assert alone["members"] == [{}]
    del document["shared"]["epochs"]
    with pytest.raises(SettingsError, match=r"missing keys \['epochs'\]"):
        PackSpec.from_json(document)


def test_the_id_changes_with_what_is_asked_for(members):
    pack = PackSpec("seeds", "tiny/learnable", members, EVALUATION)
    changes: list[dict[str, Any]] = [
        {"round": "guided"},
        {"members": members[:-1]},
        {"members": members[::-1]},
        {"members": (*members[:-1], dataclasses.replace(members[-1], epochs=9))},
        {"evaluation": None},
        {"evaluation": dataclasses.replace(EVALUATION, samples=17)},
    ]
    ids = {each.id for each in (pack, *(dataclasses.replace(pack, **change) for change in changes))}
    assert len(ids) == 7
    assert all(len(each) == 10 and set(each) <= set("0123456789abcdef") for each in ids)
    assert PackSpec("seeds", "tiny/learnable", members, EVALUATION).id == pack.id
