"""Runs of other source code: found, refused by jobs, accepted with a reason, or removed so that they are made again."""

import json

import pytest
from tests.tiny import pack_of, train_arguments

from silent_study import cli
from silent_study.evaluation import runs as evaluations
from silent_study.jobs import pack as jobs
from silent_study.settings import EvaluationSettings
from silent_study.store import stale
from silent_study.store.evaluations import read_evaluation
from silent_study.store.files import write_text_atomically
from silent_study.store.runs import ACCEPTED, CODE, EVALUATION, RECORD, RunStore, StoreError, write_json
from silent_study.training.loop import Interrupted

ASKED = EvaluationSettings(samples=2, variance_images=4, variance_draws=2, reconstructions=2)
FILES = {"silent_gradients/vae.py": "1", "silent_gradients/estimators/pathwise.py": "1"}


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "results" / "store")


@pytest.fixture
def edit(monkeypatch):
    """Give the present code of trainings, or of evaluations, another digest."""

    def apply(digest, part="training"):
        code = {"digest": digest, "files": FILES | {"silent_gradients/vae.py": digest}}
        for module in (stale, jobs, evaluations):
            monkeypatch.setattr(module, f"{part}_code", lambda _estimator: code, raising=False)

    apply("original")
    return apply


@pytest.fixture
def pack(tiny):
    return pack_of(*(tiny.settings(seed=seed, epochs=2) for seed in (0, 1)), evaluation=ASKED)


def found(store, pack):
    return {(each.run, each.part) for each in stale.stale_runs(store, [pack])}


def test_runs_of_another_code_are_found_until_it_is_accepted_and_again_after_the_next_edit(tiny, store, pack, edit):
    tiny.run(pack, store)
    assert found(store, pack) == set()
    edit("second")
    everything = {(run.name, "trained") for run in pack.members}
    assert found(store, pack) == everything
    with pytest.raises(StoreError, match="2 runs trained by other source code") as error:
        stale.check_code(store, [pack])
    assert "silent_gradients/vae.py" in str(error.value)
    assert "pathwise.py" not in str(error.value)  # unchanged
    assert "silent-gradients retrain" in str(error.value)
    assert "silent-gradients accept --reason" in str(error.value)

    edit("second", "evaluation")
    assert found(store, pack) == everything | {(run.name, "evaluated") for run in pack.members}
    with pytest.raises(StoreError, match=r"^2 runs trained by other source code"):
        stale.check_code(store, [pack])

    stale.accept(store, stale.stale_runs(store, [pack]), "a variable was renamed")
    assert found(store, pack) == set()
    trained = next(entry for entry in store.accepted() if "original" in entry["codes"])
    assert (trained["codes"], trained["reason"]) == (["original", "second"], "a variable was renamed")
    edit("third")
    assert found(store, pack) == everything
    edit("original")
    assert found(store, pack) == set()


def test_acceptances_chain(store):
    for codes in (("a", "b"), ("c", "d"), ("b", "c"), ("x", "y")):
        store.accept(codes, "same numbers")
    assert store.equal_codes("a") == {"a", "b", "c", "d"}
    assert store.equal_codes("y") == {"x", "y"}
    assert store.equal_codes("z") == {"z"}


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"accepted": [1]}'])
def test_a_damaged_list_of_acceptances_names_what_to_do(store, content):
    write_text_atomically(store.root / ACCEPTED, content)
    with pytest.raises(StoreError, match=r"accepted\.json: .*; delete it, then accept again: silent-gradients accept"):
        store.equal_codes("a")


def test_a_job_neither_takes_nor_continues_runs_of_another_code(tiny, store, pack, edit, cpu_command, capsys):
    steps = iter(range(1000))
    with pytest.raises(Interrupted):
        tiny.run(pack, store, stop=lambda: next(steps) > 2)
    edit("second")
    command = train_arguments(tiny, pack, store.root)
    assert cli.main(command) == 1
    assert "1 run trained by other source code" in capsys.readouterr().err
    stale.accept(store, stale.stale_runs(store, [pack]), "nothing changed")
    assert cli.main(command) == 0
    assert [run.code["digest"] for run in map(store.unverified, (run.name for run in pack.members))] == [
        "original",
        "second",
    ]


@pytest.mark.parametrize("content", [None, "{", "{}", "[]", '{"digest": 1, "files": {}}', "[" * 100_000])
def test_a_run_without_a_code_is_stale_and_a_damaged_one_is_left_to_its_verification(tiny, store, pack, content):
    tiny.run(pack, store)
    first, second = (store.folder(run.name) for run in pack.members)
    (first / CODE).unlink()
    record = json.loads((first / RECORD).read_text())
    del record["files"][CODE]
    (first / RECORD).write_text(json.dumps(record))
    if content is None:
        (second / CODE).unlink()
    else:
        (second / CODE).write_text(content)
    assert found(store, pack) == {(pack.members[0].name, "trained")}
    assert "which these runs do not name" in stale.stale_message(stale.stale_runs(store, [pack]))
    with pytest.raises(StoreError, match=CODE):
        store.verified(pack.members[1].name, pack.members[1].id)


def test_an_evaluation_without_its_code_is_none(tiny, store, pack):
    tiny.run(pack, store)
    folder = store.folder(pack.members[0].name)
    document = json.loads((folder / EVALUATION).read_text())
    assert read_evaluation(folder) == document
    codes: list[object] = [{}, [], {"digest": "a", "files": []}]
    for code in codes:
        write_json(folder / EVALUATION, document | {"code": code})
        assert read_evaluation(folder) is None


def test_an_edit_of_evaluations_alone_removes_evaluations_alone(tiny, store, pack, edit):
    manifests = store.root.parent / "packs" / "seeds" / pack.group
    write_json(manifests / f"{pack.id}.json", tiny.run(pack, store))
    curves = {path: path.stat().st_mtime_ns for path in store.root.rglob("curve.jsonl")}
    evaluations = {path: path.read_bytes() for path in store.root.rglob(EVALUATION)}
    edit("another", "evaluation")
    assert found(store, pack) == {(run.name, "evaluated") for run in pack.members}
    assert stale.remove(store.root.parent, stale.stale_runs(store, [pack])) == []
    assert list(manifests.iterdir()) == list(store.root.rglob(EVALUATION)) == []
    tiny.run(pack, store)
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("curve.jsonl")} == curves
    for path, content in evaluations.items():
        before, after = json.loads(content), json.loads(path.read_bytes())
        assert before["report"] == after["report"]
    assert found(store, pack) == set()


def test_removing_takes_manifests_and_selections_along_but_no_run_in_training(tiny, store, pack, edit):
    results, other = store.root.parent, pack_of(tiny.settings(seed=7, epochs=2))
    for each in (pack, other):
        write_json(results / "packs" / each.round / f"{each.id}.json", tiny.run(each, store))
    write_json(results / "selections" / "one.json", {"cells": {"cell": {"run": pack.members[0].name}}})
    write_json(results / "selections" / "two.json", {"cells": {"cell": {"run": other.members[0].name}}})
    edit("second")
    runs = stale.stale_runs(store, [pack])
    with store.locked(pack.members[1].name):
        assert stale.remove(results, runs) == [pack.members[1].name]
    assert not store.folder(pack.members[0].name).exists()
    assert store.is_finished(pack.members[1].name)
    assert sorted(path.stem for path in results.glob("*/**/*.json") if "store" not in path.parts) == sorted(
        [other.id, "two"]
    )
    (store.root / ".locks" / "0.partial").mkdir()  # of a removal that was killed
    assert stale.remove(results, stale.stale_runs(store, [pack])) == []
    assert store.names() == [other.members[0].name]
    assert list(store.root.rglob("*.partial")) == []
