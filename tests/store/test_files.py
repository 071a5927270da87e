"""Atomic writes: whole or not there, and nothing left beside."""

import errno
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from pathlib import Path

import pytest
from tests.tiny import kill, python

from silent_study.store import files


def test_text_is_written_as_utf8_with_parents(tmp_path):
    path = tmp_path / "a" / "b" / "note.txt"
    files.write_text_atomically(path, "σ = 0.1\n")
    assert path.read_bytes() == "σ = 0.1\n".encode()


def test_replacing_keeps_the_mode_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("old")
    path.chmod(0o640)
    files.write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_a_new_file_gets_the_mode_that_open_would_give(tmp_path):
    previous = os.umask(0o027)
    try:
        files.write_bytes_atomically(tmp_path / "atomic", b"")
        (tmp_path / "plain").write_bytes(b"")
    finally:
        os.umask(previous)
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("step", [(os, "fsync"), (Path, "replace")])
def test_a_failure_before_the_rename_leaves_the_old_file_and_names_it(tmp_path, monkeypatch, step, code):
    path = tmp_path / "x"
    path.write_text("old")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(*step, fail)
    room = "" if code == errno.EIO else r" \(3 bytes needed, \d+ bytes free\)"
    with pytest.raises(OSError, match=f"{os.strerror(code)}{room}: '{path}'") as caught:
        files.write_text_atomically(path, "new")
    assert (caught.value.errno, caught.value.filename) == (code, str(path))
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_appended_text_names_its_file_too(tmp_path):
    path = tmp_path / "curve"
    for line in ("σ\n", "τ\n"):
        files.append_text(path, line)
    assert path.read_text("utf-8") == "σ\nτ\n"
    with pytest.raises(OSError, match=r"No space left on device \(4 bytes needed, \d+ bytes free\): '/dev/full'"):
        files.append_text(Path("/dev/full"), "full")


def test_files_dated_in_the_future_are_given_the_present_time(tmp_path):
    paths = [tmp_path / "a" / name for name in ("old", "ahead", "link")]
    paths[0].parent.mkdir()
    for path in paths[:2]:
        path.touch()
    paths[2].symlink_to("nowhere")
    os.utime(paths[0], (1e9, 1e9))
    ahead = time.time() + 1000
    os.utime(paths[1], (ahead, ahead))
    assert files.mend_times([tmp_path, tmp_path / "none"]) == 1
    assert (paths[0].stat().st_mtime, paths[1].stat().st_mtime < ahead - 900) == (1e9, True)
    assert files.mend_times([tmp_path]) == 0


def test_only_files_that_were_touched_since_are_read(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_text("whole")
    digest, since = files.sha256_of(path), files.touched(path)
    assert files.is_unaltered(path, digest)
    assert files.is_unaltered(path, "another digest", since)
    modified = path.stat().st_mtime_ns
    time.sleep(0.02)
    path.write_text("harm!")
    os.utime(path, ns=(modified, modified))  # as if nothing had happened
    assert not files.is_unaltered(path, digest, since)
    path.unlink()
    assert not files.is_unaltered(path, digest, since)


WRITER = """
import sys, time
from pathlib import Path
from silent_study.store import files
with files.atomic_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print(file.name, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_stays(tmp_path):
    path, other = tmp_path / "x[1].json", tmp_path / "y"
    with python(WRITER, path) as (killed, left), python(WRITER, path) as (_, living), python(WRITER, other) as last:
        kill(killed)
        kill(last[0])
        assert all(half.read_bytes() == b"half" for half in (left, living, last[1]))
        files.write_text_atomically(path, "whole")
        assert sorted(tmp_path.iterdir()) == sorted([path, living])
    files.remove_leftovers(tmp_path / "none")


def test_the_temporary_files_of_other_programs_stay(tmp_path):
    descriptor, name = tempfile.mkstemp(dir=tmp_path, prefix=".x.", suffix=".tmp")
    os.close(descriptor)
    files.write_text_atomically(tmp_path / "x", "whole")
    assert Path(name).exists()


def test_a_folder_is_listed_for_leftovers_at_the_first_of_its_writes_alone(tmp_path, monkeypatch):
    listed, glob = [], Path.glob

    def counted(folder, pattern):
        listed.append(folder)
        return glob(folder, pattern)

    monkeypatch.setattr(Path, "glob", counted)
    for name in ("x", "y", "x"):
        files.write_text_atomically(tmp_path / name, name)
    assert listed == [tmp_path]


def test_a_disk_without_locks_takes_files_and_keeps_leftovers(tmp_path, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    left = tmp_path / ".x.a1b2c3d4.silent.tmp"
    left.touch()
    files.write_text_atomically(tmp_path / "x", "whole")
    assert (sorted(tmp_path.iterdir()), (tmp_path / "x").read_text()) == ([left, tmp_path / "x"], "whole")


@pytest.mark.parametrize("change", [Path.unlink, Path.touch, lambda path: path.rename(f"{path}2"), None])
def test_a_folder_is_touched_when_a_file_in_it_is_written_renamed_or_lost(tmp_path, change):
    for name in ("a", "b"):
        (tmp_path / name).write_text("whole")
    since = max(map(files.touched, [tmp_path, *tmp_path.iterdir()]))
    time.sleep(0.02)
    if change is not None:
        change(tmp_path / "b")
    assert (files.last_touched(tmp_path) > since) == (change is not None)


def test_sha256_matches_hashlib(tmp_path):
    path = tmp_path / "x"
    data = os.urandom(3_000_001)
    path.write_bytes(data)
    assert files.sha256_of(path) == hashlib.sha256(data).hexdigest()
