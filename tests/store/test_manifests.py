"""Packs of which everything is there: their manifest without a device, and only then."""

import dataclasses
import json
import re
import time
from pathlib import Path

import pytest
from tests.tiny import damage, train_arguments

from silent_study import cli
from silent_study.settings import EvaluationSettings
from silent_study.store.manifests import is_damaged, manifest_if_done, seems_done, verified_runs
from silent_study.store.packs import PackSpec
from silent_study.store.runs import (
    EVALUATION,
    RECONSTRUCTIONS,
    RECORD,
    RESULT,
    WEIGHTS,
    RunStore,
    StoreError,
    write_json,
)

ASKED = EvaluationSettings(samples=2, variance_images=4, variance_draws=2, reconstructions=2)
RATES = (1e-3, 3e-3, 1e18)  # the last one diverges


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "store")


@pytest.fixture
def grid(tiny):
    members = tuple(tiny.settings("learnable/reinforce", learning_rate=rate, epochs=2) for rate in RATES)
    return PackSpec("baselines", "tiny/learnable", members, None)


@pytest.fixture
def train(tiny, store):
    return lambda pack: tiny.run(pack, store)


def seeds_of(grid, **changes):
    return dataclasses.replace(grid, round="seeds", evaluation=dataclasses.replace(ASKED, **changes))


@pytest.mark.parametrize("pack_of", [lambda grid: grid, seeds_of], ids=["grid", "seeds"])
def test_a_pack_that_is_done_has_the_manifest_that_training_it_gave(store, grid, train, capsys, pack_of):
    pack = pack_of(grid)
    assert not seems_done(store, pack)
    assert manifest_if_done(store, pack) is None
    given = train(pack)
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    capsys.readouterr()

    assert seems_done(store, pack)
    assert manifest_if_done(store, pack) == given == train(pack)

    assert {path: path.read_bytes() for path in before} == before
    told = [line for line in capsys.readouterr().out.splitlines() if "already trained" in line]
    assert told[:3] == told[3:]
    assert "diverged" in told[2]


def test_a_grid_that_is_done_keeps_its_bests_weights_alone(store, grid, train):
    # One after another, each was the best of its pack.
    for settings in grid.members:
        train(dataclasses.replace(grid, members=(settings,)))
    together = manifest_if_done(store, grid)
    kept = [(store.folder(settings.name) / WEIGHTS).exists() for settings in grid.members]
    assert sorted(kept) == [False, False, True]
    assert together == train(grid)


@pytest.mark.parametrize("other", [None, {"samples": 3}, {"reconstructions": 1}])
def test_a_grid_and_an_evaluation_by_other_settings_are_work(store, grid, train, other):
    train(grid if other is None else seeds_of(grid, **other))
    assert not seems_done(store, seeds_of(grid))
    assert manifest_if_done(store, seeds_of(grid)) is None


@pytest.mark.parametrize("file", [EVALUATION, WEIGHTS, RECONSTRUCTIONS, RESULT, RECORD, "snapshot-2.pt"])
@pytest.mark.parametrize("change", [Path.unlink, damage], ids=["lost", "altered"])
def test_damage_is_found_and_trust_is_by_time_alone(store, grid, train, tmp_path, file, change):
    pack = seeds_of(dataclasses.replace(grid, members=(dataclasses.replace(grid.members[0], snapshot_epochs=(2,)),)))
    write_json(path := tmp_path / "manifest.json", given := train(pack))
    assert not is_damaged(store, pack, path)
    time.sleep(0.02)
    change(store.folder(pack.members[0].name) / file)
    assert is_damaged(store, pack, path)
    assert manifest_if_done(store, pack) is None
    named = {EVALUATION: "not the evaluation that its", RECONSTRUCTIONS: "not those that evaluation.json names"}
    with pytest.raises(StoreError, match=named.get(file, re.escape(pack.members[0].name))):
        verified_runs(store, [pack], lambda _pack: path)
    if change is damage and file in (WEIGHTS, "snapshot-2.pt"):  # altered before the manifest was written: not read
        time.sleep(0.02)
        path.touch()
        assert not is_damaged(store, pack, path)
    assert train(pack) == given
    assert manifest_if_done(store, pack) == given


def test_no_altered_byte_of_a_manifest_is_an_error_of_its_own(store, grid, train, tmp_path):
    write_json(path := tmp_path / "manifest.json", train(grid))
    content, found = path.read_bytes(), []
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        found.append(is_damaged(store, grid, path))
    assert sum(found) > 0.6 * len(found)  # the rest are white space, the status, the round and the group
    for text in ("{}", "[]", '{"members": [1]}', '{"members": [{}], "pack": 3}'):
        path.write_text(text)
        assert is_damaged(store, grid, path)


def test_the_training_command_asks_for_a_device_only_where_it_needs_one(
    tiny, store, grid, train, tmp_path, monkeypatch
):
    asked = []

    def acquire():
        asked.append("a device")
        raise SystemExit(3)

    monkeypatch.setattr("silent_study.jobs.lease.acquire", acquire)
    pack, manifest = seeds_of(grid), tmp_path / "store.json"
    arguments = train_arguments(tiny, pack, store.root)
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert asked == ["a device"]
    assert not manifest.exists()
    given = train(pack)
    assert cli.main(arguments) == 0
    assert asked == ["a device"]
    assert json.loads(manifest.read_text()) == given
