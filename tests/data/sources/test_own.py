"""Own images: a folder or a file of arrays becomes a data set; what cannot be one is told in a line."""

import hashlib
import os
import re
import shutil
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from silent_study.data.errors import DataError
from silent_study.data.prepare import dequantize, download, outdated, prepare
from silent_study.data.prepared import PreparedData, arrays_digest
from silent_study.data.sources import own
from silent_study.data.sources.own import OwnImages, own_source

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (10, 6, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (10, 6, 5, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(folder, images, names=None, ending="png"):
    for number, image in enumerate(images):
        path = folder / (names[number] if names else f"{number:02}.{ending}")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def source(tmp_path, path="images", name="mine", **entry):
    return own_source(name, OwnImages(str(path), **entry), tmp_path / "raw", tmp_path / "prepared" / name)


def prepared(tmp_path, found):
    folder = tmp_path / "prepared" / found.name
    prepare(found, folder)
    dequantize(found, folder)
    return PreparedData.open(folder, found.sha256)


def refused(message, tmp_path, *arguments, **entry):
    """The images are refused in one line that names the data set."""
    with pytest.raises(DataError, match=rf"^data\.sets\.mine: .*{message}") as error:
        source(tmp_path, *arguments, **entry)
    assert "\n" not in str(error.value)


def test_a_folder_that_holds_the_study_is_refused(tmp_path, monkeypatch):
    write(tmp_path, GREY)
    (tmp_path / "study").mkdir()
    for place, path in ((tmp_path, "."), (tmp_path / "study", ".."), (tmp_path / "study", str(tmp_path))):
        monkeypatch.chdir(place)
        refused("the study lies in this folder", tmp_path, path)


def test_a_plan_keeps_no_record_of_what_it_reads(tmp_path):
    write(tmp_path / "images", GREY)
    before = sorted(tmp_path.rglob("*"))
    arguments = "mine", OwnImages("images"), tmp_path / "raw", tmp_path / "prepared"
    planned = own_source(*arguments, keep=False)
    assert sorted(tmp_path.rglob("*")) == before
    assert own_source(*arguments).sha256 == planned.sha256
    assert list((tmp_path / "raw").iterdir())


def rows(images):
    return sorted(image.tobytes() for image in images)


@pytest.mark.parametrize(("images", "shape"), [(GREY, (1, 6, 5)), (COLOUR, (3, 6, 5))], ids=["grey", "colour"])
def test_a_folder_becomes_a_data_set(tmp_path, images, shape):
    write(tmp_path / "images", images)
    found = source(tmp_path, test=0.2)
    data = prepared(tmp_path, found)
    assert (found.shape, found.train, found.test, found.levels, found.holdout) == (shape, 8, 2, 256, 1)
    assert found.sha256 == arrays_digest("mine", 256, data.train, data.test)
    # Every image once, with the pixels that were drawn.
    as_drawn = images[:, np.newaxis] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    assert rows([*data.train, *data.test]) == rows(np.ascontiguousarray(as_drawn))
    assert not np.array_equal(data.train, as_drawn[:8])  # in no order of their names
    assert data.noise.shape == (2, *shape)


def test_the_order_is_by_digests_of_the_names(tmp_path):
    write(tmp_path / "images", GREY)
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    order = sorted(range(10), key=lambda i: hashlib.sha256(f"3 {names[i]}".encode()).digest())
    data = prepared(tmp_path, source(tmp_path, seed=3))
    np.testing.assert_array_equal(data.train[:, 0], GREY[order[:9]])
    np.testing.assert_array_equal(data.test[:, 0], GREY[order[9:]])


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "TEST"), ("training", "Testing")])
def test_folders_train_and_test_are_the_split(tmp_path, train, test):
    names = [f"{train}/{'ab'[i % 2]}/{i}.png" for i in range(7)] + [f"{test}/{i}.png" for i in range(3)]
    write(tmp_path / "images", GREY, names)
    (tmp_path / "images" / "labels.csv").write_text("ignored")
    (tmp_path / "images" / train / "._0.png").write_bytes(b"of another system")
    data = prepared(tmp_path, source(tmp_path))
    assert rows(data.train[:, 0]) == rows(GREY[:7])
    np.testing.assert_array_equal(data.test[:, 0], GREY[7:])


def test_every_file_is_read_or_skipped_for_a_reason(tmp_path, capsys):
    folder = write(tmp_path / "images", GREY[:6], [f"cats/{i}.{'jpg' if i < 2 else 'PNG'}" for i in range(6)])
    # Of a folder that is a link, also twice, but not back to a folder above it; hidden folders hold copies.
    (folder / "dogs").symlink_to(write(tmp_path / "elsewhere", GREY[6:]))
    (tmp_path / "elsewhere" / "again").symlink_to(folder / "cats")
    (folder / "cats" / "loop").symlink_to(folder)
    write(folder / ".ipynb_checkpoints" / "deep", GREY[:2])
    (folder / "cats" / "._0.png").touch()
    for name in ("README", "labels.csv", "notes.csv"):
        (folder / name).touch()
    found = source(tmp_path)
    assert found.train + found.test == 6 + 4 + 6
    notes = capsys.readouterr().err.splitlines()
    assert notes[1:3] == [
        "mine: read 16 files (4 .jpg, 12 .png), skipped 1 without ending (no image format), 2 .csv (no image format), "
        "2 .png (hidden), 2 .png (in a hidden folder), 2 link (to a folder above it)",
        "mine: images of 1x6x5, levels 0 to 255 of 0 to 255",
    ]
    assert "test images equal a training image: " in notes[3]

    # Each is printed where the images are read; the record of a later call has them for the preparation.
    prepare(found, tmp_path / "prepared" / "mine")
    assert capsys.readouterr().err == ""
    prepare(source(tmp_path), tmp_path / "prepared" / "mine")
    assert capsys.readouterr().err.splitlines() == notes[1:]


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_test_images_that_equal_a_training_image_are_named(tmp_path, capsys, kind):
    path = write(tmp_path / "images", [*GREY[:4], GREY[2]], [f"train/{i}.png" for i in range(4)] + ["test/same.png"])
    if kind == "npz":
        np.savez(path := tmp_path / "images.npz", train=GREY[:4], test=GREY[2:3])
    source(tmp_path, path)
    pair = f"{path}/test/same.png ({path}/train/2.png)"
    pair = pair if kind == "folder" else f"image 0 of test in {path} (image 2 of train in {path})"
    assert f"mine: 1 test images equal a training image: {pair}" in capsys.readouterr().err.splitlines()


def test_images_are_turned_as_their_exif_orientation_says(tmp_path):
    clockwise = Image.Exif()
    clockwise[0x0112] = 6
    (tmp_path / "images").mkdir()
    for number, image in enumerate(GREY):
        turned = Image.fromarray(np.ascontiguousarray(np.rot90(image)))
        turned.save(tmp_path / "images" / f"{number}.png", exif=clockwise)
    # Damaged metadata, of which there is no orientation to be read.
    for number, exif in enumerate((b"damaged", b"MM\x00*\x00\x00\x00")):
        Image.fromarray(GREY[number]).save(tmp_path / "images" / f"{number}.png", exif=b"Exif\x00\x00" + exif)
    data = prepared(tmp_path, source(tmp_path))
    assert rows([*data.train, *data.test]) == rows(GREY)


def test_every_image_that_does_not_fit_is_named(tmp_path):
    folder = write(tmp_path / "images", GREY)
    (folder / "05.png").write_text("no image")
    for number in range(22):
        (folder / f"x{number:02}.png").touch()
    with pytest.raises(DataError) as error:
        source(tmp_path)
    assert str(error.value).count(".png") == 22  # one with its reason, that by the path twice, and 20 by their names
    assert str(error.value).endswith(" and 2 more")
    # None can be read: nothing to compare the others with.
    for path in folder.iterdir():
        path.write_text("no image")
    with pytest.raises(DataError, match=r"00\.png: no image that can be read .*; also images/01\.png, .* and 11 more"):
        source(tmp_path)


LAYOUTS = {
    "[n, h, w]": (GREY, (1, 6, 5)),
    "[n, c, h, w]": (COLOUR.transpose(0, 3, 1, 2), (3, 6, 5)),
    "[n, h, w, c]": (COLOUR, (3, 6, 5)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("names", [("train", "test"), ("x_train", "x_test")])
def test_an_npz_with_a_split(tmp_path, layout, names):
    images, shape = LAYOUTS[layout]
    labels = np.array(["a", None], dtype=object)  # which nobody reads
    arrays: dict[str, Any] = {names[0]: images[:7], names[1]: images[7:], "y_train": labels}
    np.savez(tmp_path / "cells.npz", **arrays)
    found = source(tmp_path, "cells.npz")
    data = prepared(tmp_path, found)
    assert found.shape == data.shape == shape
    as_drawn = np.ascontiguousarray(
        images[:, np.newaxis] if images.ndim == 3 else images if images.shape[1] == 3 else images.transpose(0, 3, 1, 2)
    )
    assert rows(data.train) == rows(as_drawn[:7])
    np.testing.assert_array_equal(data.test, as_drawn[7:])


def test_a_single_array_is_split(tmp_path):
    np.savez(tmp_path / "a.npz", GREY // 16)
    np.save(tmp_path / "a.npy", GREY // 16)
    (tmp_path / "a.npy").rename(tmp_path / "a.NPY")
    entry = {"test": 0.3, "levels": 16}
    first, second = (prepared(tmp_path, source(tmp_path, f"a.{ending}", ending, **entry)) for ending in ("npz", "NPY"))
    assert (len(first.train), len(first.test), first.levels) == (7, 3, 16)
    np.testing.assert_array_equal(first.train, second.train)
    assert rows([*first.train, *first.test]) == rows(GREY // 16)


def test_images_are_cropped_at_the_centre_and_averaged(tmp_path):
    wide = np.zeros((4, 8), dtype=np.uint8)
    wide[:, 2:6] = np.arange(16).reshape(4, 4) * 4
    write(tmp_path / "images", [wide, wide, wide[:, 2:6], wide])
    data = prepared(tmp_path, source(tmp_path, size=(2, 2), test=0.25))
    expected = wide[:, 2:6].reshape(2, 2, 2, 2).mean(axis=(1, 3))
    for image in (*data.train, *data.test):
        np.testing.assert_array_equal(image[0], expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA", "CMYK"])
def test_images_are_converted_where_asked(tmp_path, mode):
    ending = "tif" if mode == "CMYK" else "png"
    (tmp_path / "images").mkdir()
    for number, image in enumerate(COLOUR):
        Image.fromarray(image).convert(mode).save(tmp_path / "images" / f"{number}.{ending}")
    for channels in (1, 3):
        assert source(tmp_path, channels=channels).shape == (channels, 6, 5)


def test_the_version_says_what_was_done(tmp_path):
    write(tmp_path / "images", GREY)
    said = source(tmp_path, test=0.25, seed=7, size=(3, 2), channels=3, title="My images")
    assert said.title == "My images"
    assert download(said, tmp_path / "raw").form.files == ()
    assert said.version == (
        "own images of the folder images, of which 0.25 are the test set, in an order drawn with seed 7, "
        "cropped and resized to 3x2, converted to RGB"
    )
    assert source(tmp_path).title == "mine"


def test_a_change_of_the_images_is_noticed_and_nothing_else(tmp_path, monkeypatch):
    write(tmp_path / "images", GREY)
    before = source(tmp_path)
    folder = tmp_path / "prepared" / "mine"
    prepared(tmp_path, before)

    reads, read = [], own._pixels

    def counted(path, entry):
        reads.append(path)
        return read(path, entry)

    monkeypatch.setattr(own, "_pixels", counted)
    assert source(tmp_path).sha256 == before.sha256
    assert not reads  # the record is enough
    os.utime(tmp_path / "images" / "00.png", ns=(1, 1))
    assert source(tmp_path).sha256 == before.sha256
    assert reads  # read again, and found the same
    assert outdated(folder, before) == []

    Image.fromarray(255 - GREY[0]).save(tmp_path / "images" / "00.png")
    changed = source(tmp_path)
    assert changed.sha256 != before.sha256
    assert outdated(folder, changed) == [folder / "manifest.json"]
    for number in range(10, 25):
        Image.fromarray(GREY[0]).save(tmp_path / "images" / f"{number}.png")
    assert outdated(folder, source(tmp_path)) == [folder / "manifest.json", folder / "noise.json"]


def test_images_are_read_where_no_record_can_be_kept(tmp_path, capsys):
    write(tmp_path / "images", GREY)
    (tmp_path / "raw").touch()
    found = [source(tmp_path).sha256 for _ in range(2)]
    assert capsys.readouterr().err.count("mine: what was found is not kept: [Errno ") == 2
    (tmp_path / "raw").unlink()
    assert found == [source(tmp_path).sha256] * 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"fingerprint": 3, "seen": {}}'])
def test_a_damaged_record_is_made_again(tmp_path, content):
    write(tmp_path / "images", GREY)
    before = source(tmp_path)
    (record,) = (tmp_path / "raw").iterdir()
    record.write_bytes(content)
    assert source(tmp_path).sha256 == before.sha256


def test_images_are_read_again_by_other_code(tmp_path, monkeypatch):
    write(tmp_path / "images", COLOUR)
    before = source(tmp_path, channels=1)
    monkeypatch.setattr(own, "reading_code", lambda: {"digest": "edited"})
    monkeypatch.setattr(own, "_pixels", lambda path, _own: 255 - np.asarray(Image.open(path))[..., 0][np.newaxis])
    after = source(tmp_path, channels=1)
    assert after.sha256 != before.sha256
    assert prepared(tmp_path, after).sha256 == after.sha256


def test_classes_may_be_named_like_one_part_of_a_split(tmp_path):
    write(tmp_path / "images", GREY, [f"{'train_station' if i < 5 else 'airport'}/{i}.png" for i in range(10)])
    data = prepared(tmp_path, source(tmp_path))
    assert rows([*data.train[:, 0], *data.test[:, 0]]) == rows(GREY)


def test_images_that_changed_unseen_are_told_at_the_preparation(tmp_path):
    write(tmp_path / "images", GREY)
    path = tmp_path / "images" / "00.png"
    Image.fromarray(GREY[0]).save(path, compress_level=0)
    status = path.stat()
    found = source(tmp_path)
    Image.fromarray(GREY[1]).save(path, compress_level=0)
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match=r"found [0-9a-f]{64}; .*: touch one of them, then the same command goes on"):
        prepare(source(tmp_path), tmp_path / "prepared" / "mine")
    path.touch()
    prepare(source(tmp_path), tmp_path / "prepared" / "mine")
    assert source(tmp_path).sha256 != found.sha256


@pytest.mark.parametrize("kind", ["folder", "split folder", "npz"])
def test_prepared_images_need_their_folder_no_more(tmp_path, kind):
    if kind == "npz":
        np.savez(tmp_path / "images", train=GREY[:7], test=GREY[7:])
        (tmp_path / "images.npz").rename(tmp_path / "images")
        (tmp_path / "images").rename(path := tmp_path / "images.npz")
    else:
        names = [f"{'train' if i < 8 else 'test'}/{i}.png" for i in range(10)] if kind == "split folder" else None
        path = write(tmp_path / "images", GREY, names)
    before = source(tmp_path, path)
    prepared(tmp_path, before)
    path.unlink() if path.is_file() else shutil.rmtree(path)
    assert source(tmp_path, path).description == before.description
    assert prepared(tmp_path, source(tmp_path, path)).sha256 == before.sha256
    # Other settings ask for other data.
    with pytest.raises(DataError, match=re.escape(f"data.sets.mine: path '{path}': there is no such folder or file")):
        source(tmp_path, path, seed=1)


def _png_of_16_bits(path):
    Image.fromarray(GREY[0].astype(np.uint16) * 257).save(path)


def _truncated(path):
    path.write_bytes((path.parent / "00.png").read_bytes()[:-30])


def _bomb(path):
    # A header that promises 10^9 pixels.
    header, data = struct.pack(">IIBBBBB", 40000, 25000, 8, 0, 0, 0, 0), zlib.compress(b"")
    chunks = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", header), (b"IDAT", data))
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


ODD_IMAGES = {
    "another size": (
        lambda path: Image.fromarray(GREY[0, :4]).save(path),
        r"zz\.png: 4x5 pixels, but .*00\.png has 6x5; all images need one size: set size: \[6, 5\]",
    ),
    "colour among grey": (
        lambda path: Image.fromarray(COLOUR[0]).save(path),
        r"zz\.png: it is RGB, but .*00\.png is grey; set channels: 1 or channels: 3",
    ),
    "transparency": (
        lambda path: Image.fromarray(COLOUR[0]).convert("RGBA").save(path),
        r"zz\.png: its pixels are RGBA, and grey \(L\) or RGB is read; set channels: 1 or channels: 3",
    ),
    "palette": (lambda path: Image.fromarray(COLOUR[0]).convert("P").save(path), r"zz\.png: its pixels are P, "),
    "16 bits": (_png_of_16_bits, r"zz\.png: its pixels are I;16, more than 8 bits each; convert it to 8 bits"),
    "several images": (
        lambda path: Image.fromarray(GREY[0]).save(path, save_all=True, append_images=[Image.fromarray(GREY[1])]),
        r"zz\.png: 2 images in one file; save each as a file of its own",
    ),
    "text": (lambda path: path.write_text("no image"), r"zz\.png: no image that can be read"),
    "nothing": (lambda path: path.touch(), r"zz\.png: no image that can be read"),
    "truncated": (_truncated, r"zz\.png: no image that can be read \(.*\); remove or replace it"),
    "a bomb": (_bomb, r"zz\.png: no image that can be read \(Image size \(1000000000 pixels\)"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), r"zz\.png: cannot be read \(No such file"),
}


@pytest.mark.parametrize("kind", ODD_IMAGES)
def test_an_image_that_does_not_belong_is_named(tmp_path, kind):
    folder = write(tmp_path / "images", GREY)
    make, message = ODD_IMAGES[kind]
    make(folder / "zz.png")
    refused(message, tmp_path)
    if kind == "16 bits":  # which nobody converts
        refused(message, tmp_path, channels=1)


FOLDERS: dict[str, Any] = {
    "empty": ([], {}, r"there is no image in it; those are read that end in \.png, \.jpg"),
    "two images": (["0.png", "1.png"], {}, r"2 images, 1 of them to train on and 1 to test on: at least 2 and 1"),
    "nothing left to train on": (["0.png", "1.png", "2.png"], {"test": 0.9}, "3 images, 0 of them to train on"),
    "no test images": (
        ["train/0.png", "train/1.png"],
        {},
        "images has a folder train and no folder test; make that too, or rename train",
    ),
    "no training images": (["test/0.png", "test/1.png"], {}, "images has a folder test and no folder train"),
    "one beside": (["train/0.png", "test/1.png", "2.png"], {}, r"2\.png: beside the folders train and test"),
    "no image in test": (["train/0.png", "train/1.png", "test/"], {}, "test: there is no image in it, and beside it"),
    "no image in train": (["test/0.png", "test/1.png", "train/"], {}, "train: there is no image in it, and beside it"),
    "a split below": (
        [f"cells/{name}" for name in ("Train/0.png", "Train/1.png", "test/2.png")],
        {},
        "images/cells has the folders Train and test; if they are the split, call them train and test and name the",
    ),
    "a split by other names": (
        ["train_images/a/0.png", "train_images/b/1.png", "Testset/2.png"],
        {},
        "images has the folders train_images and Testset; if they are the split, call them train and test",
    ),
    "two training folders": (["train/0.png", "Train/1.png", "test/2.png"], {}, "has the folders Train and train; join"),
    "a split and a fraction": (
        ["train/0.png", "train/1.png", "test/2.png"],
        {"test": 0.5},
        "test 0.5: the images have a test set of their own; leave it out",
    ),
    "fewer levels": (["0.png", "1.png", "2.png"], {"levels": 100}, r"\.png: level \d+, but levels: 100 has 0 to 99"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_cannot_be_a_data_set_is_told(tmp_path, kind):
    names, entry, message = FOLDERS[kind]
    (tmp_path / "images").mkdir()
    files = [name for name in names if not name.endswith("/")]
    write(tmp_path / "images", GREY[: len(files)], files)
    for folder in {*names} - {*files}:
        (tmp_path / "images" / folder).mkdir()
    refused(message, tmp_path, **entry)


OBJECTS = np.array([GREY[0], "text"], dtype=object)
ARRAYS: dict[str, Any] = {
    "floats": ({"train": GREY / 255, "test": GREY}, r"array train: expected uint8, found float64; save grey levels"),
    "truth values": ({"a": GREY > 9}, "array a: expected uint8, found bool"),
    "objects": ({"a": OBJECTS}, "it holds Python objects, which could run code and are never loaded"),
    "vectors": ({"a": GREY.reshape(10, 30)}, r"array a: expected \[n, height, width\], .*, found \[10, 30\]"),
    "four channels": ({"a": np.zeros((4, 4, 6, 4), np.uint8)}, r"with 1 or 3 channels, found \[4, 4, 6, 4\]"),
    "other names": ({"x": GREY, "y": GREY}, "expected the arrays train and test or x_train and x_test, .* found x, y"),
    "no array": ({}, "expected the arrays .*, found none"),
    "one part of a split": (
        {"x_train": GREY},
        "expected the arrays .*, or a single one of another name, found x_train",
    ),
    "no test images": ({"train": GREY, "test": GREY[:0]}, "10 images, 10 of them to train on and 0 to test on"),
    "no pixels": ({"a": GREY[:, :0]}, r"array a: expected \[n, height, width\], .*, found \[10, 0, 5\]"),
    "other test images": ({"train": GREY, "test": GREY[:, 1:]}, r"training images of .* test images of \(1, 5, 5\)"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_cannot_be_a_data_set_are_told(tmp_path, kind):
    arrays, message = ARRAYS[kind]
    np.savez(tmp_path / "cells.npz", **arrays)
    refused(message, tmp_path, "cells.npz")


def test_files_that_are_no_arrays_are_told(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty.npz").touch()
    np.save(tmp_path / "objects.npy", OBJECTS)
    np.savez(tmp_path / "levels.npz", np.full_like(GREY, 16))
    np.savez(tmp_path / "whole.npz", GREY)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:100])
    (tmp_path / "images.tar").touch()
    for path, entry, message in (
        ("text.npz", {}, "expected a file of numpy arrays, but"),
        ("empty.npz", {}, "expected a file of numpy arrays, but"),
        ("cut.npz", {}, "expected a file of numpy arrays, but"),
        ("objects.npy", {}, "it holds Python objects, which could run code"),
        ("levels.npz", {"levels": 16}, "image 6 in levels.npz: level 16, but levels: 16 has 0 to 15; also image 4 in"),
        ("whole.npz", {"size": (2, 2)}, "size and channels are for folders of images"),
        ("images.tar", {}, "expected a folder of images, an npz or an npy file"),
        ("nowhere", {}, "path 'nowhere': there is no such folder or file"),
    ):
        refused(re.escape(message), tmp_path, path, **entry)
