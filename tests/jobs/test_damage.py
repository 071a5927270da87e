"""A full disk and an altered checkpoint, met by the training command as a job runs it."""

import os
import re
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


@pytest.fixture(scope="module")
def pack(tiny):
    return pack_of(tiny.settings("learnable/reinforce+silent", epochs=40, evaluate_every=20, snapshot_epochs=(40,)))


@pytest.fixture(scope="module")
def train(tiny, pack, tmp_path_factory):
    """The command that trains the pack into a store, by its folder, on the CPU alone."""
    leases = f"SILENT_GRADIENTS_LEASES={tmp_path_factory.mktemp('leases')}"
    cpu = [
        "env",
        f"PYTHONPATH={Path(cli.__file__).parents[2]}",
        leases,
        "SILENT_GRADIENTS_DEVICES=",
        "CUDA_VISIBLE_DEVICES=",
    ]
    options = ["--checkpoint-seconds=0.000001"]
    return lambda store: [*cpu, sys.executable, "-c", PROGRAM, *train_arguments(tiny, pack, store), *options]


@pytest.fixture(scope="module")
def undisturbed(train, tmp_path_factory, pack):
    """The run's folder of a training that nothing disturbs."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    subprocess.run(train(store), check=True, capture_output=True)
    return store / pack.members[0].name


def numbers(folder):
    return {name: (folder / name).read_bytes() for name in NUMBERS}


def stopped(train, store, pack):
    """A training that was terminated in its midst; returns its folder."""
    working = RunStore(store).working_folder(pack.members[0].name)
    terminate_in_training(train(store), working)
    return working


def test_an_altered_checkpoint_is_named_and_passed_over(train, tmp_path, pack, undisturbed):
    working = stopped(train, tmp_path / "one", pack)
    damage(working / checkpoint.CURRENT)
    shutil.copytree(tmp_path / "one", tmp_path / "both")
    damage(tmp_path / "both" / working.relative_to(tmp_path / "one") / checkpoint.PREVIOUS)
    for store, damaged in (("one", [checkpoint.CURRENT]), ("both", [checkpoint.CURRENT, checkpoint.PREVIOUS])):
        again = subprocess.run(train(tmp_path / store), check=True, capture_output=True, text=True)
        for name in damaged:
            assert f"{tmp_path / store / working.relative_to(tmp_path / 'one') / name}: damaged" in again.stderr
        assert numbers(tmp_path / store / pack.members[0].name) == numbers(undisturbed)


def _may_mount():
    probe = ["unshare", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    return (
        shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.slow
@pytest.mark.skipif(not _may_mount(), reason="the system lets this user mount nothing")
@pytest.mark.parametrize("file", [checkpoint.CURRENT, "snapshot-40.pt", "weights.pt"])
def test_a_full_disk_loses_no_checkpoint(train, tmp_path, pack, undisturbed, file):
    """A file system of its own without room for one of the larger files, which is then made larger."""
    saved = (stopped(train, tmp_path / "measured", pack) / checkpoint.CURRENT).stat().st_size
    weights = (undisturbed / "weights.pt").stat().st_size
    # In the first case, what else a run writes is less than the rest; in the others it is about ten pages.
    room = {checkpoint.CURRENT: saved * 7 // 4, "snapshot-40.pt": weights + 3 * 4096, "weights.pt": weights + 8 * 4096}
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
    # Without checkpoints the other files are the first that do not fit.
    command = [*train(store), *([] if file == checkpoint.CURRENT else ["--checkpoint-seconds=1000"])]
    run = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", store, str(room[file]), *command],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"STORE": str(store)},
    )

    first, _, second = run.stderr.partition("first: 1\n")
    assert re.search(rf"/{file}: No space left on device \(\d+ bytes needed, \d+ bytes free\); make room", first)
    assert "Traceback" not in first
    kept, succeeded, _ = second.partition("second: 0\n")
    assert [Path(left).name for left in kept.split()] == [checkpoint.PREVIOUS] * (file == checkpoint.CURRENT)
    assert succeeded
    assert numbers(Path(f"{store}-after") / pack.members[0].name) == numbers(undisturbed)


SHIM = """
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static int lacks(const char *what) { const char *all = getenv("LACKS"); return all && strstr(all, what); }
int flock(int fd, int op) { if (lacks("flock")) { errno = ENOSYS; return -1; } return syscall(SYS_flock, fd, op); }
int fsync(int fd) {
    struct stat is;
    if (lacks("fsync") && fstat(fd, &is) == 0 && S_ISDIR(is.st_mode)) { errno = EINVAL; return -1; }
    return syscall(SYS_fsync, fd);
}
"""


@pytest.fixture
def on_a_disk_without(tmp_path, monkeypatch):
    """A function after which programs find a disk that lacks ``flock`` or ``fsync`` of folders, as Lustre or CIFS."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    (tmp_path / "shim.c").write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "shim.so", tmp_path / "shim.c"], check=True)
    return lambda what: os.environ | {"LD_PRELOAD": str(tmp_path / "shim.so"), "LACKS": what}


def test_a_disk_that_cannot_sync_folders_will_do(train, tmp_path, pack, undisturbed, on_a_disk_without):
    store = tmp_path / "no-fsync"
    subprocess.run(train(store), check=True, env=on_a_disk_without("fsync"))
    assert numbers(store / pack.members[0].name) == numbers(undisturbed)


def test_a_disk_without_locks_is_named_with_what_to_do(train, tmp_path, on_a_disk_without):
    run = subprocess.run(train(tmp_path / "no-lock"), env=on_a_disk_without("flock"), capture_output=True, text=True)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"silent-gradients train: {tmp_path}/no-lock/.locks/")
    assert "this disk has no file locks (Function not implemented); use a folder on another disk" in line
