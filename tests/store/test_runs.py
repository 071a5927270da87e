"""The run store: what is sealed is found again as it was, or what is wrong with it is named."""

import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from tests.tiny import kill, python

from silent_study.settings import NUMERICS_VERSION
from silent_study.store import runs as module
from silent_study.store.files import sha256_of
from silent_study.store.runs import (
    EVALUATION,
    RECONSTRUCTIONS,
    RECORD,
    WEIGHTS,
    RunStore,
    StoreError,
    read_json,
    snapshot_file,
    write_json,
)

CURVE = [
    {"epoch": epoch, "alpha": 1.0, "frozen": epoch > 1, "train_bpd": 3.0, "train_kl": 20.0, "guide_bpd": None}
    | {"selection_bpd": bpd, "selection_kl": None if bpd is None else 20.0}
    for epoch, bpd in enumerate([3.5, None, 3.25], 1)
]


def write_files(store, settings, bpd=3.0):
    """Fill a run's working folder as its training does."""
    working = store.working_folder(settings.name)
    working.mkdir(parents=True)
    write_json(working / "settings.json", settings.to_json())
    (working / "curve.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in CURVE))
    status = "finished" if math.isfinite(bpd) else "diverged"
    selection = {"bpd": bpd, "kl": 20.0} if math.isfinite(bpd) else None
    write_json(working / "result.json", {"status": status, "selection": selection})
    write_json(working / "provenance.json", {"seconds": 1.5})
    (working / WEIGHTS).write_bytes(bytes(range(256)))
    for epoch in settings.snapshot_epochs:
        (working / snapshot_file(epoch)).write_bytes(b"weights" * epoch)


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "store")


@pytest.fixture
def settings(tiny):
    return tiny.settings("learnable/reinforce+silent", snapshot_epochs=(2, 4))


@pytest.fixture
def run(store, settings):
    write_files(store, settings)
    return store.seal(settings)


def find(store, settings):
    return store.find(settings.name, settings.id)


def test_a_sealed_run_is_found(store, settings, run):
    assert not store.working_folder(settings.name).exists()
    assert run.folder == store.root / "tiny/learnable/reinforce+silent" / settings.name.rpartition("/")[2]
    found = find(store, settings)
    assert found == run == store.verified(settings.name, settings.id)
    assert (found.name, found.cell) == (settings.name, settings.cell)
    assert (found.dataset, found.experiment, found.method) == ("tiny", "learnable", "reinforce+silent")
    assert found.has_weights
    files = {"settings.json", "curve.jsonl", "result.json", "provenance.json", "weights.pt"}
    assert set(found.identity["files"]) == files | {"snapshot-2.pt", "snapshot-4.pt"}
    assert found.identity["replaces"] == []


@pytest.mark.parametrize("bpd", [3.0, math.inf])
def test_the_documents_of_a_run(store, settings, bpd):
    write_files(store, settings, bpd)
    run = store.seal(settings)
    assert run.settings == settings.to_json()
    assert (run.seed, run.provenance) == (settings.seed, {"seconds": 1.5})
    assert (run.final_bpd, run.diverged) == (bpd, math.isinf(bpd))
    assert run.metrics("selection").get("kl") == (None if run.diverged else 20.0)
    assert run.evaluation is None
    assert run.metrics("report") == {}
    write_json(run.folder / EVALUATION, {"report": {"bpd": 2.75}, "train": None})
    evaluated = store.verified(settings.name, settings.id)
    assert evaluated.evaluation["report"] == evaluated.metrics("report") == {"bpd": 2.75}
    assert evaluated.metrics("train") == {}


def test_the_curve_has_a_row_an_epoch_and_nan_for_null(run):
    assert run.curve_entries() == CURVE
    assert list(run.curve.columns) == list(CURVE[0])
    assert run.curve["epoch"].tolist() == [1, 2, 3]
    assert run.curve["frozen"].tolist() == [False, True, True]
    assert run.curve["selection_bpd"].isna().tolist() == [False, True, False]
    assert run.curve["guide_bpd"].isna().all()


def test_reconstructions_are_read_where_there_are_some(run):
    assert run.reconstructions() is None
    arrays: dict[str, Any] = {"originals": np.eye(2), "means": np.ones((2, 2))}
    np.savez(run.folder / RECONSTRUCTIONS, **arrays)
    found = run.reconstructions()
    assert set(found) == set(arrays)
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


def test_the_store_loads_no_heavy_library():
    code = (
        "import sys, silent_study.store.manifests;"
        "print(sorted({'pandas', 'numpy', 'matplotlib', 'seaborn', 'scipy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_run(store, settings):
    assert find(store, settings) is None
    with pytest.raises(StoreError, match=r"no finished run"):
        store.verified(settings.name, settings.id)
    write_files(store, settings)  # in training, not sealed
    assert find(store, settings) is None


def test_the_digest_is_that_of_the_result_alone(store, settings):
    digests = {}
    for name, change in {"same": {}, "faster": {"provenance.json": "{}"}, "other": {"curve.jsonl": "{}\n"}}.items():
        other = RunStore(store.root.parent / name)
        write_files(other, settings)
        for file, content in change.items():
            (other.working_folder(settings.name) / file).write_text(content)
        digests[name] = other.seal(settings).digest
    assert digests["same"] == digests["faster"] != digests["other"]


FILES = ["settings.json", "curve.jsonl", "result.json", "provenance.json", "weights.pt", "snapshot-2.pt"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", ["flipped", "longer", "empty", "missing", "folder"])
def test_an_altered_file_is_named(store, settings, run, file, how):
    path = run.folder / file
    content = path.read_bytes()
    path.unlink()
    altered = {"flipped": bytes([content[0] ^ 1]) + content[1:], "longer": content + b"\n", "empty": b""}
    if how in altered:
        path.write_bytes(altered[how])
    elif how == "folder":
        path.mkdir()
    expected = "no file" if how in ("missing", "folder") else "found [0-9a-f]{64}"
    for search in (store.find, store.verified):
        with pytest.raises(StoreError, match=rf"{file}: expected sha256 [0-9a-f]{{64}}, found.*") as caught:
            search(settings.name, settings.id)
        assert str(path) in str(caught.value)
        assert caught.match(expected)


def test_every_altered_byte_of_the_record_is_found(store, settings, run):
    path = run.folder / RECORD
    content = path.read_bytes()
    original = json.loads(content)
    rng = np.random.default_rng(0)
    unnoticed = []
    for position in range(len(content)):
        altered = bytearray(content)
        altered[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)
        try:
            found = store.verified(settings.name, settings.id)
        except StoreError as error:
            assert str(run.folder) in str(error)  # noqa: PT017 (most of a thousand positions, in one test)
        else:
            if found.identity != original:  # only its white space is another
                unnoticed.append((position, bytes(altered)))
    # A run may have lost its weights on purpose; that its entry is named otherwise is found, and nothing else is open.
    assert unnoticed == []


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"id": 3}', "\xff"])
def test_a_record_that_is_none(store, settings, run, content):
    (run.folder / RECORD).write_text(content)
    with pytest.raises(StoreError, match=r"record\.json"):
        find(store, settings)


def test_a_run_under_another_name_is_refused(store, settings, run):
    foreign = dataclasses.replace(settings, seed=1)
    shutil.copytree(run.folder, store.folder(foreign.name))
    with pytest.raises(StoreError, match=f"expected run {foreign.id}, found {settings.id}"):
        find(store, foreign)
    other = store.root / "tiny/learnable/reinforce"
    other.mkdir()
    run.folder.rename(other / run.folder.name)
    name = f"tiny/learnable/reinforce/{run.folder.name}"
    with pytest.raises(StoreError, match="contradict"):
        store.verified(name, settings.id)
    write_json(store.folder(name) / RECORD, run.identity | {"name": name})
    with pytest.raises(StoreError, match=f"recorded as {re.escape(name)}, .* belong to {re.escape(settings.name)}"):
        store.verified(name, settings.id)


def test_settings_that_were_altered_with_their_digest_are_found(store, settings, run):
    altered = dataclasses.replace(settings, epochs=99)
    path = run.folder / "settings.json"
    write_json(path, altered.to_json())
    files = {**run.identity["files"], "settings.json": sha256_of(path)}
    write_json(run.folder / RECORD, module._identity(settings.name, settings.id, files, []))
    with pytest.raises(StoreError, match=f"not those of run {settings.id}"):
        find(store, settings)


def test_a_run_of_other_numerics_is_another_run(store, settings, run, monkeypatch):
    monkeypatch.setattr("silent_study.settings.NUMERICS_VERSION", NUMERICS_VERSION + 1)
    monkeypatch.setattr(module, "NUMERICS_VERSION", NUMERICS_VERSION + 1)
    assert find(store, dataclasses.replace(settings)) is None


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", [(Path, "rename"), (shutil, "rmtree")], ids=["renaming", "removing"])
def test_killed_between_sealing_and_renaming(store, settings, run, monkeypatch, where):
    """The new run is complete, and takes the place of the old one, half removed or not."""
    write_files(store, settings, bpd=2.5)
    with monkeypatch.context() as patch:
        patch.setattr(*where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.seal(settings, replaces=run)
    if where[0] is shutil:
        (run.folder / "curve.jsonl").unlink()
    found = find(store, settings)
    assert found.result["selection"]["bpd"] == 2.5
    assert not store.working_folder(settings.name).exists()
    assert found.identity["replaces"] == [run.digest]


def test_a_run_answers_to_those_that_it_replaced(store, settings, run):
    runs = [run]
    for bpd in (2.5, 2.25):
        write_files(store, settings, bpd)
        runs.append(store.seal(settings, replaces=runs[-1]))
    assert len({each.digest for each in runs}) == 3
    last = find(store, settings)
    assert last == runs[-1]
    assert [last.answers_to(each.digest) for each in runs] == [True] * 3
    assert [run.answers_to(each.digest) for each in runs] == [True, False, False]
    assert not last.answers_to("0" * 64)


def test_dropped_weights_are_dropped_and_the_rest_stays(store, settings, run):
    dropped = store.drop_weights(run)
    found = find(store, settings)
    assert found == dropped
    assert not found.has_weights
    assert found.digest == run.digest
    assert sorted(path.name for path in run.folder.iterdir()) == sorted(
        ["settings.json", "curve.jsonl", "result.json", "provenance.json", RECORD]
    )
    assert store.drop_weights(found) == found


def test_killed_while_dropping_weights(store, settings, run, monkeypatch):
    """The record goes first: what lies about afterwards is not part of the run."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.drop_weights(run)
    assert not find(store, settings).has_weights


def test_read_json_names_the_file(tmp_path):
    (tmp_path / "x.json").write_text("{")
    for name in ("x.json", "y.json"):
        with pytest.raises(StoreError, match=rf"{name}: cannot be read"):
            read_json(tmp_path / name)


def test_runs_and_packs_are_locked_by_name(store, settings, capsys):
    assert not store.is_locked(settings.name)
    assert not store.root.exists()  # looking makes no folder
    waiting = Thread(target=lambda: store.locked(settings.name).__enter__())
    with store.locked(settings.name), store.locked(settings.name + "x"):
        assert store.is_locked(settings.name)
        assert not store.is_locked("another")
        waiting.start()
        while not (notice := capsys.readouterr().err):
            time.sleep(0.01)
        assert notice == f"{settings.name}: another process is training it; waiting for it\n"
        assert waiting.is_alive()
    waiting.join()


def test_finished_and_unfinished_runs_are_listed_with_their_sizes(store, settings, run):
    assert RunStore(store.root / "nowhere").names() == []
    size = store.size(run.name)
    assert size == sum(path.stat().st_size for path in run.folder.iterdir()) > 256
    write_files(store, settings)  # in training again
    other = dataclasses.replace(settings, seed=1)
    write_files(store, other)
    with store.locked(settings.name):  # locks are no runs
        assert store.names() == sorted([settings.name, other.name])
    assert store.is_finished(settings.name)
    assert not store.is_finished(other.name)
    assert size < store.size(settings.name) < 2 * size  # no record yet
    assert store.size(f"{settings.cell}/none") == 0


def test_a_run_is_removed_finished_or_not_but_not_in_training(store, settings, run):
    with store.locked(settings.name):
        assert not store.remove(settings.name)
    assert find(store, settings) == run
    write_files(store, settings)
    for _ in range(2):
        assert store.remove(settings.name)
        assert list(store.folder(settings.cell).iterdir()) == []


TAKER = """
import sys, time
from pathlib import Path
from silent_study.store.runs import RunStore
with RunStore(Path(sys.argv[1])).aside(sys.argv[2]) as folder:
    (folder / "a" / "b" / "c" / "half").mkdir(parents=True)
    print(folder, flush=True)
    time.sleep(600)
"""
REMOVER = """
import shutil, sys, time
from pathlib import Path
from silent_study.store import runs
def half_removed(folder, **options):
    if folder.exists():
        next(folder.rglob("curve.jsonl")).unlink()
        print(folder, flush=True)
        time.sleep(600)
runs.shutil.rmtree = half_removed
runs.RunStore(Path(sys.argv[1])).remove(sys.argv[2])
"""


@pytest.mark.parametrize("finished", [True, False])
def test_a_removal_that_was_killed_leaves_no_run_and_the_next_one_nothing(store, settings, run, finished):
    """Neither a run that passes for finished nor one that is resumed; what a living process is removing stays."""
    if not finished:
        run.folder.rename(store.working_folder(settings.name))  # as if killed between sealing and renaming
    with python(REMOVER, store.root, settings.name) as (killed, left), python(TAKER, store.root, "a/b/c/d") as (_, at):
        assert not store.remove(settings.name)
        kill(killed)
        assert find(store, settings) is None
        assert store.names() == []
        assert any(left.iterdir())
        store.remove_leftovers()
        assert sorted(store.root.rglob("*.partial")) == [at]
    assert store.remove("a/b/c/d")
    assert list(store.root.rglob("*.partial")) == []


def test_what_another_process_sweeps_at_the_same_time_is_no_error(store, monkeypatch):
    left = store.root / ".locks" / "0123.partial"
    left.mkdir(parents=True)

    @contextmanager
    def claimed_late(lock):
        left.rmdir()  # as its own process did between the listing and the claim
        yield True

    monkeypatch.setattr("silent_study.store.runs.claimed", claimed_late)
    store.remove_leftovers()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second disk at /dev/shm")
def test_a_run_is_removed_where_the_folder_of_its_data_set_is_on_another_disk(store, settings, run):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        folder = store.root / settings.cell.split("/")[0]
        shutil.move(folder, other)
        folder.symlink_to(Path(other) / folder.name)
        assert find(store, settings) == run
        assert store.remove(settings.name)
        assert store.names() == []
    assert list(store.root.rglob("*.partial")) == []
