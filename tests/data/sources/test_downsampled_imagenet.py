"""Batches of ImageNet at 32x32: what is in them, and what must not be."""

import collections
import dataclasses
import hashlib
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from silent_study.data.errors import DataError
from silent_study.data.prepare import download, prepare
from silent_study.data.raw import Form, RawFile, npz_digest
from silent_study.data.sources import SOURCES, downsampled_imagenet
from silent_study.data.sources.downsampled_imagenet import read_npz_batch, unpickle_batch

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
BATCH = {"data": PIXELS, "labels": [1, 2, 3, 1000], "mean": PIXELS.mean(axis=0)}

# As Python 2 wrote it: protocol 2, the array's state as text of one byte a character.
OLD_NAMES = pickle.dumps(BATCH, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.mark.parametrize(
    "content", [*(pickle.dumps(BATCH, protocol=protocol) for protocol in range(2, 6)), OLD_NAMES], ids=[*"2345", "old"]
)
def test_pickled_batches_of_all_protocols_are_read(tmp_path, content):
    path = tmp_path / "val_data"
    path.write_bytes(content)
    np.testing.assert_array_equal(unpickle_batch(path), PIXELS.reshape(4, 3, 32, 32))


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (Evil(), r"it needs (posix|nt)\.system, which no array needs"),
        ({"data": Evil()}, r"it needs (posix|nt)\.system"),
        (collections.OrderedDict(data=PIXELS), r"it needs collections\.OrderedDict"),
        (eval, r"it needs builtins\.eval"),
        (np.load, r"it needs numpy\.load"),
        ([1, 2], "data of uint8 .*, found none"),
        ({"labels": [1]}, "data of uint8 .*, found none"),
        ({"data": PIXELS.astype(float)}, r"found float64 \(4, 3072\)"),
        ({"data": PIXELS[:, :-1]}, r"found uint8 \(4, 3071\)"),
        ({"data": PIXELS[0]}, r"found uint8 \(3072,\)"),
    ],
)
def test_pickles_of_anything_else_are_refused(tmp_path, monkeypatch, thing, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "val_data"
    path.write_bytes(pickle.dumps(thing))
    with pytest.raises(DataError, match=f"val_data: expected .*{message}"):
        unpickle_batch(path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"no pickle", pickle.dumps(BATCH)[:-100]])
def test_a_damaged_pickle_is_named(tmp_path, content):
    path = tmp_path / "val_data"
    path.write_bytes(content)
    with pytest.raises(DataError, match="val_data: expected a pickled batch of images"):
        unpickle_batch(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": np.array([Evil()], dtype=object)}, r"val_data\.npz: expected an npz batch"),
        ({"labels": [1]}, r"val_data\.npz: expected data of uint8 .*, found none"),
    ],
)
def test_an_npz_without_images_is_refused(tmp_path, arrays, message):
    path = tmp_path / "val_data.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message):
        read_npz_batch(path.read_bytes(), path)


NAMES = [*(f"train_data_batch_{number}" for number in range(1, 11)), "val_data"]
SPLITS = {"train": NAMES[:-1], "val": NAMES[-1:]}
BATCHES = dict(zip(NAMES, np.random.default_rng(7).integers(0, 256, (11, 2, 3072), dtype=np.uint8), strict=True))
IMAGES = np.concatenate(list(BATCHES.values())).reshape(-1, 3, 32, 32)


@pytest.fixture
def small(monkeypatch):
    """The official source as if its batches had two images each."""
    source = dataclasses.replace(SOURCES["imagenet32"], train=20, test=2)
    monkeypatch.setitem(SOURCES, "imagenet32", source)
    return source


def _packed(folder):
    """The two archives as published, the batches in a folder inside them."""
    folder.mkdir(parents=True)
    for split, names in SPLITS.items():
        with zipfile.ZipFile(folder / f"Imagenet32_{split}_npz.zip", "w") as archive:
            for name in names:
                buffer = io.BytesIO()
                np.savez(buffer, data=BATCHES[name], labels=[1, 2])
                archive.writestr(f"Imagenet32_{split}_npz/{name}.npz", buffer.getvalue())


def test_npz_batches_are_read_inside_their_archives_or_named(small, tmp_path):
    _packed(tmp_path / "imagenet32")
    read = small.forms[1].read
    train, test = (np.concatenate(list(read(tmp_path, split))) for split in ("train", "test"))
    np.testing.assert_array_equal(np.concatenate([train, test]), IMAGES)
    with zipfile.ZipFile(tmp_path / "imagenet32" / "Imagenet32_val_npz.zip", "w"):
        pass
    with pytest.raises(DataError, match=r"Imagenet32_val_npz\.zip: expected val_data\.npz in it, found none"):
        list(small.forms[1].read(tmp_path, "test"))


def test_pickled_batches_are_prepared_one_by_one(small, tmp_path, monkeypatch):
    """From the archives in a mirror to the arrays, with the digests of the batches made here."""
    pickles = {name: pickle.dumps({"data": data, "labels": [1, 2]}) for name, data in BATCHES.items()}
    mirror = tmp_path / "mirror" / "imagenet32"
    mirror.mkdir(parents=True)
    for split, names in SPLITS.items():
        with zipfile.ZipFile(mirror / f"Imagenet32_{split}.zip", "w") as archive:
            for name in names:
                archive.writestr(name, pickles[name])
    form = small.forms[0]
    files = tuple(
        RawFile(f"imagenet32/{name}", f"md5:{hashlib.md5(content).hexdigest()}") for name, content in pickles.items()
    )
    monkeypatch.setitem(
        SOURCES, "imagenet32", dataclasses.replace(small, forms=(Form(form.read, files, form.archives),))
    )
    manifest = prepare("imagenet32", tmp_path / "prepared", str(tmp_path / "mirror"), tmp_path / "raw")
    np.testing.assert_array_equal(np.load(tmp_path / "prepared" / "train.npy"), IMAGES[:20])
    np.testing.assert_array_equal(np.load(tmp_path / "prepared" / "test.npy"), IMAGES[20:])
    assert manifest["sha256"] == SOURCES["imagenet32"].sha256


@pytest.fixture
def offline(monkeypatch):
    """Nothing answers, at once."""
    import requests

    def refuse(*_arguments, **_options):
        raise requests.exceptions.ConnectionError

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr("time.sleep", lambda _: None)


def _stand_in(folder):
    folder.mkdir(parents=True)
    for name in NAMES:
        np.savez(folder / f"{name}.npz", data=PIXELS, labels=[1, 2, 3, 4])


def test_the_official_set_is_not_taken_from_the_stand_ins_folder(tmp_path, offline):
    _stand_in(tmp_path / "mirror" / "tiny_imagenet32")
    with pytest.raises(DataError, match=r"tiny_imagenet32 is a stand-in and another data set; .*data\.substitute"):
        download("imagenet32", tmp_path / "raw", str(tmp_path / "mirror"))


def test_the_stand_in_in_the_official_sets_place_is_recognized(tmp_path, offline, monkeypatch):
    folder = tmp_path / "mirror" / "imagenet32"
    _stand_in(folder)
    with pytest.raises(DataError, match="no digests of unpacked npz batches"):
        download("imagenet32", tmp_path / "raw", str(tmp_path / "mirror"))
    digests = {"train_data_batch_1": npz_digest(folder / "train_data_batch_1.npz")}
    monkeypatch.setattr(downsampled_imagenet, "_STAND_IN_ARRAYS", digests)
    with pytest.raises(DataError, match=r"train_data_batch_1\.npz is of tiny_imagenet32, a stand-in"):
        download("imagenet32", tmp_path / "raw", str(tmp_path / "mirror"))


def test_other_images_in_the_stand_ins_place_are_refused(tmp_path):
    _stand_in(tmp_path / "mirror" / "tiny_imagenet32")
    with pytest.raises(DataError, match=r"train_data_batch_1\.npz: expected arrays 3079ba.*, found [0-9a-f]{64}"):
        download("tiny_imagenet32", tmp_path / "raw", str(tmp_path / "mirror"))
