"""Locks between processes: exclusive, given back by the kernel, and looked at without a trace."""

import errno
import fcntl
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from silent_study.store import locks

HOLDER = """
import sys
from pathlib import Path
from silent_study.store.locks import locked
with locked(Path(sys.argv[1]), "waiting for it"):
    print("locked", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


@pytest.mark.parametrize("end", ["given back", "killed"])
def test_a_second_process_waits_with_a_notice_until_the_lock_is_free(path, end):
    def holder():
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        environment = os.environ | {"PYTHONPATH": str(Path(locks.__file__).parents[2])}
        return subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], **pipes, text=True, env=environment)

    assert not locks.is_locked(path)
    with holder() as first:
        assert first.stdout.readline() == "locked\n"
        assert locks.is_locked(path)
        with holder() as second:
            assert second.stderr.readline() == "waiting for it\n"
            assert select.select([second.stdout], [], [], 0.2)[0] == []
            if end == "killed":
                first.kill()
            else:
                first.stdin.write("\n")
                first.stdin.flush()
            assert second.stdout.readline() == "locked\n"
            second.stdin.write("\n")


def test_trying_does_not_wait_even_for_this_process(path, capsys):
    descriptor = locks.try_lock(path)
    assert descriptor is not None
    assert locks.try_lock(path) is None
    assert locks.is_locked(path)
    os.close(descriptor)
    assert not locks.is_locked(path)
    with locks.locked(path, "waiting"):
        assert locks.try_lock(path) is None
        with locks.locked(path.with_name("another"), "waiting"):
            pass
    assert capsys.readouterr() == ("", "")


def test_a_look_writes_nothing(path):
    assert not locks.is_locked(path)
    assert not path.exists()
    path.touch()
    path.chmod(0o444)
    before = path.stat()
    assert not locks.is_locked(path)
    assert path.stat() == before


def test_a_lock_that_cannot_be_had_is_named(path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        locks.try_lock(path / "nowhere" / "lock")
    path.symlink_to("elsewhere")
    with pytest.raises(OSError, match=str(path)):
        locks.try_lock(path)
    path.unlink()

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    open_before = set(Path("/proc/self/fd").iterdir())
    for attempt in (lambda: locks.try_lock(path), lambda: locks.locked(path, "waiting").__enter__()):
        with pytest.raises(
            OSError, match=r"no file locks \(No locks available\); use a folder on another disk, or mount it with locks"
        ) as caught:
            attempt()
        assert (caught.value.errno, caught.value.filename) == (errno.ENOLCK, str(path))
    assert set(Path("/proc/self/fd").iterdir()) == open_before
