import dataclasses
import json

import numpy as np
import pytest

from silent_gradients.data.arrays import arrays_digest
from silent_gradients.data.errors import DataError
from silent_gradients.data.prepare import prepare
from silent_gradients.data.prepared import PreparedData
from silent_gradients.data.sources import SOURCES
from silent_gradients.data.sources.source import Source
from silent_gradients.files import sha256_of


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Source:
    """A registered source of 5 + 3 images that counts how often it is loaded."""
    pixels = np.random.default_rng(1).integers(0, 4, (8, 2, 2, 2), dtype=np.uint8)
    loads = []

    def load(mirror):
        loads.append(mirror)
        return pixels[:5], pixels[5:]

    digest = arrays_digest("tiny", 4, pixels[:5], pixels[5:])
    source = Source("tiny", "made here", 4, (2, 2, 2), 5, 3, 2, digest, load)
    monkeypatch.setitem(SOURCES, "tiny", source)
    load.loads = loads  # type: ignore[attr-defined]
    return source


def test_prepare_writes_the_arrays_and_says_what_they_are(tiny, tmp_path):
    folder = tmp_path / "prepared" / "tiny"
    manifest = prepare("tiny", folder)
    train, test = tiny.load(None)
    np.testing.assert_array_equal(np.load(folder / "train.npy"), train)
    np.testing.assert_array_equal(np.load(folder / "test.npy"), test)
    assert manifest == json.loads((folder / "manifest.json").read_text())
    assert manifest == {
        "name": "tiny",
        "version": "made here",
        "levels": 4,
        "shape": [2, 2, 2],
        "counts": {"train": 5, "test": 3},
        "sha256": tiny.sha256,
        "files": {file: sha256_of(folder / file) for file in ("train.npy", "test.npy")},
    }
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "test.npy", "train.npy"]


def test_the_mirror_reaches_the_source(tiny, tmp_path):
    prepare("tiny", tmp_path / "tiny", str(tmp_path))
    assert tiny.load.loads == [tmp_path]


def test_a_prepared_folder_is_left_alone(tiny, tmp_path):
    first = prepare("tiny", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert prepare("tiny", tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert len(tiny.load.loads) == 1


@pytest.mark.parametrize("file", ["train.npy", "test.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_a_damaged_folder_is_prepared_again(tiny, tmp_path, file, damage):
    first = prepare("tiny", tmp_path)
    path = tmp_path / file
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-9])
    else:
        content[-9] ^= 1
        path.write_bytes(content)
    assert prepare("tiny", tmp_path) == first
    assert len(tiny.load.loads) == 2
    assert PreparedData.open(tmp_path, tiny.sha256).manifest == first


def test_another_version_is_prepared_again(tiny, tmp_path, monkeypatch):
    prepare("tiny", tmp_path)
    monkeypatch.setitem(SOURCES, "tiny", dataclasses.replace(tiny, version="worded anew"))
    assert prepare("tiny", tmp_path)["version"] == "worded anew"
    assert len(tiny.load.loads) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 6}, r"tiny, train images: expected uint8 \(6, 2, 2, 2\), found uint8 \(5, 2, 2, 2\)"),
        ({"test": 4}, r"tiny, test images: expected uint8 \(4, 2, 2, 2\)"),
        ({"shape": (1, 2, 4)}, r"expected uint8 \(5, 1, 2, 4\)"),
        ({"levels": 3}, r"tiny, train images: expected levels 0 to 2, found 3"),
        ({"sha256": "f" * 64}, r"expected arrays with sha256 f{64}, found [0-9a-f]{64}; .*pin the new digest"),
        ({"load": lambda _: (np.zeros((5, 2, 2, 2)), np.zeros((3, 2, 2, 2)))}, "expected uint8 .*, found float64"),
    ],
)
def test_data_that_are_not_the_described_ones_are_refused(tiny, tmp_path, monkeypatch, change, message):
    monkeypatch.setitem(SOURCES, "tiny", dataclasses.replace(tiny, **change))
    with pytest.raises(DataError, match=message):
        prepare("tiny", tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_digits_are_prepared_without_a_network(tmp_path):
    pytest.importorskip("sklearn")
    manifest = prepare("digits", tmp_path)
    data = PreparedData.open(tmp_path, SOURCES["digits"].sha256)
    assert manifest["counts"] == {"train": 1437, "test": 360}
    assert len(data.split("holdout", SOURCES["digits"].holdout).train) == 1200
