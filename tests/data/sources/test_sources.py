import gzip
import os
import struct

import numpy as np
import pytest

from silent_study.data.errors import DataError
from silent_study.data.prepare import download
from silent_study.data.prepared import arrays_digest
from silent_study.data.sources import SOURCES, source_named

MIRROR = os.environ.get("SILENT_GRADIENTS_MIRROR")
real_data = pytest.mark.skipif(MIRROR is None, reason="SILENT_GRADIENTS_MIRROR names no mirror of the real data sets")


def read(name, split):
    """All images of a split, from wherever the raw files are."""
    source = source_named(name)
    obtained = download(name, mirror=MIRROR)
    images = np.concatenate(list(obtained.form.read(obtained.root, split)))
    assert images.dtype == np.uint8
    assert images.shape == (source.train if split == "train" else source.test, *source.shape)
    return images


def test_every_source_is_registered_once():
    assert len({source.title for source in SOURCES.values()}) == len({source.sha256 for source in SOURCES.values()}) > 1


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_has_its_name_and_downloads_are_encrypted_and_verified(name):
    source = SOURCES[name]
    assert source.name == name
    assert 0 < source.holdout < source.train
    for form in source.forms:
        for file in (*form.files, *form.archives):
            assert all(url.startswith("https://") for url in file.urls)
        # An archive without a digest is believed for its members alone, which then have theirs.
        assert all(file.digest is not None for file in form.files)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "imagenet32"])
def test_what_can_be_downloaded_is_to_be_had_from_two_places(name):
    form, *_ = source_named(name).forms
    for file in form.archives or form.files:
        assert len({url.split("/")[2] for url in file.urls}) >= 2


def test_the_stand_in_is_no_imagenet32():
    official, stand_in = source_named("imagenet32"), source_named("tiny_imagenet32")
    assert official.sha256 != stand_in.sha256
    assert "stand-in" in stand_in.version
    assert "Tiny" in stand_in.title


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(
        DataError, match=r"unknown data set 'digit' \(did you mean 'digits'\?\): expected one of .*digits"
    ):
        source_named("digit")


def test_digits_are_those_of_scikit_learn_each_once():
    datasets = pytest.importorskip("sklearn.datasets")
    source = source_named("digits")
    train, test = read("digits", "train"), read("digits", "test")
    assert arrays_digest(source.name, source.levels, train, test) == source.sha256

    expected = datasets.load_digits().data
    assert (expected.min(), expected.max()) == (0, source.levels - 1)
    found = np.concatenate([train, test]).reshape(-1, 64)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.astype(int).tolist()))


def test_digits_are_split_at_random():
    """Each tenth of the original order, hence each group of writers, gives about its share to the test set."""
    datasets = pytest.importorskip("sklearn.datasets")
    original = datasets.load_digits().images.astype(np.uint8)
    test = {image.tobytes() for image in read("digits", "test")}
    shares = [np.mean([image.tobytes() in test for image in tenth]) for tenth in np.array_split(original, 10)]
    assert np.mean(shares) == pytest.approx(360 / 1797, abs=0.005)
    assert max(abs(share - 0.2) for share in shares) < 4 * (0.2 * 0.8 / 180) ** 0.5


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_in_their_order(tmp_path, packed):
    """Written here by the format's description: a magic number, sizes, big-endian, then the pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    content = struct.pack(">IIII", 0x0803, *pixels.shape) + pixels.tobytes()
    forms = source_named("mnist").forms
    form = next(form for form in forms if form.files[1].path.endswith(".gz") == packed)
    path = tmp_path / form.files[1].path
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(content) if packed else content)
    (found,) = form.read(tmp_path, "test")
    np.testing.assert_array_equal(found, pixels[:, np.newaxis])


def test_a_gzip_file_that_cannot_be_unpacked_is_named(tmp_path):
    form = source_named("mnist").forms[0]
    path = tmp_path / form.files[1].path
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(b"0" * 100)[:-9])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: expected a gzip file that can be unpacked"):
        list(form.read(tmp_path, "test"))


def test_mnist_may_be_packed_in_part(tmp_path, monkeypatch):
    """Each of the four layouts is obtained from a mirror; the files are made here, and so are their digests."""
    monkeypatch.setattr("silent_study.data.raw.verify", lambda *_: None)
    for index, form in enumerate(source_named("mnist").forms):
        mirror = tmp_path / str(index)
        for file in form.files:
            (mirror / file.path).parent.mkdir(parents=True, exist_ok=True)
            (mirror / file.path).touch()
        obtained = download("mnist", tmp_path / "raw", str(mirror))
        assert (obtained.root, obtained.form) == (mirror, form)
    packed = {tuple(file.path.endswith(".gz") for file in form.files) for form in source_named("mnist").forms}
    assert packed == {(False, False), (False, True), (True, False), (True, True)}


@real_data
@pytest.mark.parametrize("name", ["mnist", "cifar10", "tiny_imagenet32"])
def test_real_data_are_the_pinned_ones(name):
    source = source_named(name)
    assert arrays_digest(name, source.levels, read(name, "train"), read(name, "test")) == source.sha256


@real_data
@pytest.mark.parametrize(
    ("name", "means", "deviations"),
    [("mnist", [0.1307], [0.3081]), ("cifar10", [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])],
)
def test_real_data_have_their_known_statistics(name, means, deviations):
    """The values that normalise each channel everywhere, of the training pixels in [0, 1]."""
    pixels = read(name, "train") / 255
    assert pixels.mean(axis=(0, 2, 3)) == pytest.approx(means, abs=5e-5)
    assert pixels.std(axis=(0, 2, 3)) == pytest.approx(deviations, abs=5e-5)
