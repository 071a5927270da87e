import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.data.conftest import PIXELS
from tests.tiny import damage, kill, python

from silent_study.cli import main
from silent_study.data.errors import DataError
from silent_study.data.prepare import dequantize, outdated, prepare
from silent_study.data.prepared import EVALUATION_NOISE_SEED, PreparedData, evaluation_noise
from silent_study.data.raw import Form
from silent_study.data.sources import SOURCES
from silent_study.settings import digest
from silent_study.store.code import reading_code
from silent_study.store.files import sha256_of

STALLED = """
import time
from silent_study.cli import main
from silent_study.data import prepare
def write(file, *_):
    print(file.name, flush=True)
    time.sleep(600)
prepare._write = write
main(["prepare", "digits"])
"""


def test_the_same_command_removes_what_a_killed_one_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("data/prepared/digits")
    with python(STALLED, folder=tmp_path) as (stalled, _):
        assert main(["prepare", "digits"]) == 0  # meanwhile, in another process
        assert len(list(folder.glob(".*"))) == 2
        kill(stalled)
        assert main(["prepare", "digits"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "test.npy", "train.npy"]


def test_prepare_writes_the_arrays_and_says_what_they_are(tiny, tmp_path):
    folder = tmp_path / "prepared" / "tiny"
    manifest = prepare("tiny", folder)
    np.testing.assert_array_equal(np.load(folder / "train.npy"), PIXELS[:5])
    np.testing.assert_array_equal(np.load(folder / "test.npy"), PIXELS[5:])
    assert manifest == json.loads((folder / "manifest.json").read_text())
    seal = manifest.pop("seal")  # type: ignore[misc]
    assert manifest == {
        "name": "tiny",
        "title": "Tiny",
        "version": "made here",
        "levels": 4,
        "shape": [2, 2, 2],
        "counts": {"train": 5, "test": 3},
        "sha256": tiny.sha256,
        "arrays_sha256": tiny.arrays_sha256,
        "files": {file: sha256_of(folder / file) for file in ("train.npy", "test.npy")},
        "reader": reading_code()["digest"],
    }
    assert seal == digest(manifest)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "test.npy", "train.npy"]


def test_dequantize_writes_the_evaluations_noise(tiny, tmp_path):
    manifest = dequantize("tiny", tmp_path)
    (expected,) = evaluation_noise((3, 2, 2, 2))
    np.testing.assert_array_equal(np.load(tmp_path / "noise.npy"), expected)
    assert (manifest["name"], manifest["seed"], manifest["shape"]) == ("tiny", EVALUATION_NOISE_SEED, [3, 2, 2, 2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise.json", "noise.npy"]


def test_no_step_needs_to_come_before_the_other(tiny, tmp_path):
    for steps in ((prepare, dequantize), (dequantize, prepare)):
        folder = tmp_path / steps[0].__name__
        for step in steps:
            step("tiny", folder)
        assert len(PreparedData.open(folder, tiny.sha256).noise) == 3


def test_a_prepared_folder_is_left_alone(tiny, reader, tmp_path):
    made = prepare("tiny", tmp_path, raw=tmp_path / "raw"), dequantize("tiny", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert (prepare("tiny", tmp_path), dequantize("tiny", tmp_path)) == made
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert reader.roots == [tmp_path / "raw"] * 2  # read once, from where the raw files are


def _cut(path):
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("file", ["train.npy", "test.npy", "manifest.json", "noise.npy", "noise.json"])
@pytest.mark.parametrize("change", [Path.unlink, _cut, damage], ids=["missing", "truncated", "flipped"])
def test_a_damaged_folder_is_made_again(tiny, tmp_path, file, change):
    made = prepare("tiny", tmp_path), dequantize("tiny", tmp_path)
    change(tmp_path / file)
    with pytest.raises(DataError, match=r"again: silent-gradients (prepare|dequantize) "):
        PreparedData.open(tmp_path)
    assert (prepare("tiny", tmp_path), dequantize("tiny", tmp_path)) == made
    assert PreparedData.open(tmp_path, tiny.sha256).manifest == made[0]


def test_another_version_is_prepared_again(tiny, reader, tmp_path, monkeypatch):
    prepare("tiny", tmp_path)
    monkeypatch.setitem(SOURCES, "tiny", dataclasses.replace(tiny, version="worded anew"))
    assert prepare("tiny", tmp_path)["version"] == "worded anew"
    assert len(reader.roots) == 4


def test_what_other_code_prepared_is_out_of_date_and_prepared_again(tiny, reader, tmp_path, monkeypatch):
    prepare("tiny", tmp_path), dequantize("tiny", tmp_path)
    assert outdated(tmp_path, tiny) == []
    for module in ("prepare", "prepared"):
        monkeypatch.setattr(f"silent_study.data.{module}.reading_code", lambda: {"digest": "edited", "files": {}})
    assert outdated(tmp_path, tiny) == [tmp_path / "manifest.json", tmp_path / "noise.json"]
    prepare("tiny", tmp_path), dequantize("tiny", tmp_path)
    assert outdated(tmp_path, tiny) == []
    assert len(reader.roots) == 4
    reader.pixels[0] ^= 1  # as the edit would have it
    monkeypatch.setattr("silent_study.data.prepare.reading_code", lambda: {"digest": "again", "files": {}})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match="expected arrays with sha256"):
        prepare("tiny", tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_damaged_manifest_is_out_of_date_and_a_missing_one_is_not(tiny, tmp_path):
    prepare("tiny", tmp_path), dequantize("tiny", tmp_path)
    _cut(tmp_path / "manifest.json")
    (tmp_path / "noise.json").unlink()
    assert outdated(tmp_path, tiny) == [tmp_path / "manifest.json"]


def _floats(_root, _split):
    yield np.zeros((5, 2, 2, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 6}, r"tiny, train images: expected 6 images, found 5"),
        ({"test": 4}, r"tiny, test images: expected 4 images, found 3"),
        ({"shape": (1, 2, 4)}, r"expected uint8 images of \(1, 2, 4\), found uint8 \(2, 2, 2, 2\)"),
        ({"levels": 3}, r"tiny, train images: expected levels 0 to 2, found 3"),
        ({"arrays_sha256": "f" * 64}, r"expected arrays with sha256 f{64}, found [0-9a-f]{64}; .*pin the new digest"),
        ({"forms": (Form(_floats),)}, "expected uint8 images .*, found float64"),
    ],
)
def test_data_that_are_not_the_described_ones_are_refused(tiny, tmp_path, monkeypatch, change, message):
    prepare("tiny", tmp_path)
    (tmp_path / "manifest.json").unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setitem(SOURCES, "tiny", dataclasses.replace(tiny, **change))
    with pytest.raises(DataError, match=message):
        prepare("tiny", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_data_without_a_pinned_digest_are_known_by_their_raw_files(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "tiny", unpinned := dataclasses.replace(tiny, arrays_sha256=None))
    manifest = prepare("tiny", tmp_path)
    assert manifest["sha256"] == unpinned.sha256 != tiny.sha256
    assert manifest["arrays_sha256"] == tiny.arrays_sha256
    dequantize("tiny", tmp_path)
    assert PreparedData.open(tmp_path, unpinned.sha256).sha256 == unpinned.sha256
    with pytest.raises(DataError, match="expected tiny with sha256"):
        PreparedData.open(tmp_path, tiny.sha256)


def test_a_disk_that_is_too_small_is_told_before_the_work(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=30))
    with pytest.raises(DataError, match=r"tiny: 0\.0 MB are needed and 0\.0 MB are free on its disk; free some"):
        prepare("tiny", tmp_path / "tiny")
    with pytest.raises(DataError, match="are needed"):
        dequantize("tiny", tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


# A file system of 64 kB in a mount namespace of the process's own; the space looked ample when it was asked for.
FILL = """
import shutil, subprocess, sys
from types import SimpleNamespace
from pathlib import Path
folder = Path(sys.argv[1])
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True).returncode:
    raise SystemExit("no mount")
shutil.disk_usage = lambda _: SimpleNamespace(free=10**9)
from silent_study.data.prepare import dequantize, prepare
(folder / "train.npy").write_bytes(b"what was there before")
for step in (prepare, dequantize):
    try:
        step("digits", folder)
    except OSError as error:
        print(error)
print(sorted(path.name for path in folder.iterdir()), (folder / "train.npy").read_bytes())
"""


def test_a_disk_that_fills_up_is_told_and_leaves_what_was_there(tmp_path):
    pytest.importorskip("sklearn")
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare here, which gives a process a small disk of its own")
    command = [unshare, "--map-root-user", "--mount", sys.executable, "-c", FILL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "no mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("the system gives a process no disk of its own")
    assert done.returncode == 0, done.stderr
    *failures, left = done.stdout.splitlines()
    full = "[Errno 28] No space left on device (1000000000 bytes free): "
    assert failures == [f"{full}'{path}'" for path in (tmp_path, tmp_path / "noise.npy")]
    assert left == "['train.npy'] b'what was there before'"
