"""A full disk and an altered checkpoint, met by the training command as a job runs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny import damage, pack_of, terminate_in_training, train_arguments

from silent_study import cli
from silent_study.store.runs import RunStore
from silent_study.training import checkpoint

# Checkpoints are not to be rarer where the machine is slow.
PROGRAM = """
import math, sys
from silent_study.cli import main
from silent_study.training import loop
loop.LONG_CHECKPOINT = math.inf
sys.exit(main())
"""
NUMBERS = ("curve.jsonl", "result.json", "settings.json")


@pytest.fixture
def pack(tiny):
    return pack_of(tiny.settings("learnable/reinforce+silent", epochs=40, evaluate_every=20, snapshot_epochs=()))


@pytest.fixture
def train(tiny, monkeypatch, pack, cpu_command):
    """The command that trains the pack into a store, by its folder."""
    monkeypatch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[2]))
    options = ["--checkpoint-seconds=0.000001"]
    return lambda store: [sys.executable, "-c", PROGRAM, *train_arguments(tiny, pack, store), *options]


@pytest.fixture
def undisturbed(train, tmp_path, pack):
    store = tmp_path / "undisturbed"
    subprocess.run(train(store), check=True, capture_output=True)
    return numbers(store, pack)


def numbers(store, pack):
    (settings,) = pack.members
    return {name: (store / settings.name / name).read_bytes() for name in NUMBERS}


def stopped(train, store, pack):
    """A training that was terminated in its midst; returns its folder."""
    working = RunStore(store).working_folder(pack.members[0].name)
    terminate_in_training(train(store), working)
    return working


@pytest.mark.parametrize("damaged", [(checkpoint.CURRENT,), (checkpoint.CURRENT, checkpoint.PREVIOUS)])
def test_an_altered_checkpoint_is_named_and_passed_over(train, tmp_path, pack, undisturbed, damaged):
    store = tmp_path / "altered"
    working = stopped(train, store, pack)
    for name in damaged:
        damage(working / name)

    again = subprocess.run(train(store), check=True, capture_output=True, text=True)

    for name in damaged:
        assert f"{working / name}: damaged" in again.stderr
    assert numbers(store, pack) == undisturbed


def _may_mount():
    probe = ["unshare", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    return (
        shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.slow
@pytest.mark.skipif(not _may_mount(), reason="the system lets this user mount nothing")
def test_a_full_disk_loses_no_checkpoint(train, tmp_path, pack, undisturbed):
    """A file system of its own with room for one checkpoint and not for two, which is then made larger."""
    size = (stopped(train, tmp_path / "measured", pack) / checkpoint.CURRENT).stat().st_size
    store = tmp_path / "full"
    store.mkdir()
    script = """
mount -t tmpfs -o size="$2" none "$1"; shift 2
"$@"; echo "first: $?" >&2
find "$STORE" -name 'checkpoint*' >&2
mount -o remount,size=64m "$STORE"
"$@"; echo "second: $?" >&2
cp -r "$STORE" "$STORE-after"
"""
    room = size * 7 // 4  # what else a run writes is less than the rest
    run = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", store, str(room), *train(store)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"STORE": str(store)},
    )

    first, _, second = run.stderr.partition("first: 1\n")
    assert "No space left on device" in first
    assert "Traceback" not in first
    kept, succeeded, _ = second.partition("second: 0\n")
    (left,) = kept.split()
    assert Path(left).name == checkpoint.PREVIOUS
    assert succeeded
    assert numbers(Path(f"{store}-after"), pack) == undisturbed
