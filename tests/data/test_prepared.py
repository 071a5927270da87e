import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from silent_study.data.errors import DataError
from silent_study.data.prepared import (
    EVALUATION_NOISE_SEED,
    Images,
    PreparedData,
    arrays_digest,
    evaluation_noise,
    sealed,
)
from silent_study.store.files import sha256_of

PIXELS: Images = np.random.default_rng(2).integers(0, 17, (9, 1, 2, 3), dtype=np.uint8)
NOISE = np.random.default_rng(3).random((3, 1, 2, 3), dtype=np.float32)


@pytest.fixture
def folder(tmp_path):
    """A prepared data set of 6 + 3 images, written without the code under test."""
    path = tmp_path / "tiny"
    path.mkdir()
    np.save(path / "train.npy", PIXELS[:6])
    np.save(path / "test.npy", PIXELS[6:])
    sha256 = arrays_digest("tiny", 17, PIXELS[:6], PIXELS[6:])
    manifest = {"name": "tiny", "title": "Tiny", "version": "made here", "levels": 17, "shape": [1, 2, 3]}
    manifest |= {"counts": {"train": 6, "test": 3}, "sha256": sha256, "arrays_sha256": sha256, "reader": "0"}
    manifest |= {"files": {file: sha256_of(path / file) for file in ("train.npy", "test.npy")}}
    (path / "manifest.json").write_text(json.dumps(sealed(manifest)))
    np.save(path / "noise.npy", NOISE)
    noise = {"name": "tiny", "seed": 3, "shape": [3, 1, 2, 3], "reader": "0"}
    noise |= {"files": {"noise.npy": sha256_of(path / "noise.npy")}}
    (path / "noise.json").write_text(json.dumps(sealed(noise)))
    return path


def test_open_gives_what_was_written(folder):
    data = PreparedData.open(folder, arrays_digest("tiny", 17, PIXELS[:6], PIXELS[6:]))
    np.testing.assert_array_equal(data.train, PIXELS[:6])
    np.testing.assert_array_equal(data.test, PIXELS[6:])
    np.testing.assert_array_equal(data.noise, NOISE)
    assert (data.name, data.levels, data.shape) == ("tiny", 17, (1, 2, 3))
    assert data.sha256 == PreparedData.open(folder).sha256
    assert isinstance(data.train, np.memmap)
    assert not data.train.flags.writeable


ARRAY = r"{}: expected sha256 .*, found .*silent-gradients {} tiny"
FILES = {
    "train.npy": ARRAY.format("train.npy", "prepare"),
    "test.npy": ARRAY.format("test.npy", "prepare"),
    "noise.npy": ARRAY.format("noise.npy", "dequantize"),
    "manifest.json": r"manifest\.json: expected a manifest",
    "noise.json": r"noise\.json: expected a manifest",
}


@pytest.mark.parametrize("file", FILES)
def test_every_flipped_byte_is_found_and_its_file_named(folder, file):
    content = (folder / file).read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1
        (folder / file).write_bytes(damaged)
        with pytest.raises(DataError, match=FILES[file]):
            PreparedData.open(folder)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_or_truncated_file_is_named_with_the_remedy(folder, file):
    verb = "dequantize" if file.startswith("noise") else "prepare"
    path = folder / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{file}: expected .*again: silent-gradients {verb} tiny"):
        PreparedData.open(folder)
    path.unlink()
    with pytest.raises(DataError, match=rf"{file}: expected .*found none; {verb} it.*silent-gradients {verb} tiny"):
        PreparedData.open(folder)


@pytest.mark.parametrize("file", ["manifest.json", "noise.json"])
def test_a_sealed_manifest_of_other_arrays_is_refused(folder, file):
    path = folder / file
    manifest = json.loads(path.read_text())
    del manifest["seal"]
    manifest |= {"counts": {"train": 5, "test": 4}} if file == "manifest.json" else {"shape": [4, 1, 2, 3]}
    path.write_text(json.dumps(sealed(manifest)))
    with pytest.raises(DataError, match="it describes other "):
        PreparedData.open(folder)


def test_the_noise_of_another_data_set_is_refused(folder):
    np.save(folder / "noise.npy", NOISE.reshape(3, 2, 1, 3))
    manifest = {"name": "other", "seed": 3, "shape": [3, 2, 1, 3]}
    manifest |= {"files": {"noise.npy": sha256_of(folder / "noise.npy")}, "reader": "0"}
    (folder / "noise.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(DataError, match="expected the noise of tiny, found that of other"):
        PreparedData.open(folder)


def test_the_noise_begins_anew_past_its_end(folder):
    noise = PreparedData.open(folder).noise_of(8)
    np.testing.assert_array_equal(noise, np.concatenate([NOISE, NOISE, NOISE[:2]]))
    assert noise.flags.writeable


@pytest.mark.parametrize("text", ["5", "[]", "[1, []]", "{}", "null", '{"name": "tiny"}', "\x00"])
def test_a_manifest_of_another_form_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json: expected a manifest"):
        PreparedData.open(folder)


def test_other_data_than_the_expected_are_refused(folder):
    with pytest.raises(DataError, match=r"expected tiny with sha256 f{64}, found [0-9a-f]{64}; prepare it again"):
        PreparedData.open(folder, "f" * 64)


@pytest.mark.parametrize(
    ("protocol", "train", "selection"), [("holdout", PIXELS[:4], PIXELS[4:6]), ("paper", PIXELS[:6], PIXELS[6:])]
)
def test_a_protocol_trains_and_selects_on_its_images_and_reports_on_the_test_images(folder, protocol, train, selection):
    splits = PreparedData.open(folder).split(protocol, 2)
    np.testing.assert_array_equal(splits.train, train)
    np.testing.assert_array_equal(splits.selection, selection)
    np.testing.assert_array_equal(splits.report, PIXELS[6:])


@pytest.mark.parametrize("holdout", [-1, 0, 6, 7])
def test_a_holdout_that_leaves_nothing_and_an_unknown_protocol_are_refused(folder, holdout):
    data = PreparedData.open(folder)
    with pytest.raises(DataError, match=f"expected a holdout of 1 to 5 training images, found {holdout}"):
        data.split("holdout", holdout)
    with pytest.raises(DataError, match="unknown protocol 'test'"):
        data.split("test", holdout)  # type: ignore[arg-type]


def test_training_needs_no_library_of_the_preparation():
    program = (
        "import sys, silent_study.data.prepared, silent_study.data.batches\n"
        "assert not {'sklearn', 'torchvision', 'pandas', 'pydantic'} & set(sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def levels_from(count: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + count * 6, dtype=np.uint8).reshape(count, 1, 2, 3)


def test_the_digest_is_that_of_the_documented_bytes():
    written = (
        b'{"levels":17,"name":"tiny","test":[2,1,2,3],"train":[3,1,2,3]}\n' + bytes(range(18)) + bytes(range(18, 30))
    )
    assert arrays_digest("tiny", 17, levels_from(3), levels_from(2, 18)) == hashlib.sha256(written).hexdigest()


def test_the_digest_changes_with_everything_that_it_covers_and_not_with_the_layout_in_memory():
    train, test = levels_from(3), levels_from(2, 18)
    digests = [
        arrays_digest("tiny", 17, train, test),
        arrays_digest("other", 17, train, test),
        arrays_digest("tiny", 256, train, test),
        arrays_digest("tiny", 17, levels_from(3, 1), test),
        arrays_digest("tiny", 17, train, levels_from(2, 19)),
        arrays_digest("tiny", 17, levels_from(4), levels_from(1, 24)),
        arrays_digest("tiny", 17, train.reshape(3, 1, 3, 2), test.reshape(2, 1, 3, 2)),
    ]
    assert len(set(digests)) == len(digests)
    assert arrays_digest("tiny", 17, np.asfortranarray(train), np.asfortranarray(test)) == digests[0]


SHAPE = (50, 2, 3, 4)


def test_the_evaluation_noise_is_what_torch_draws_from_the_documented_seed_in_every_version():
    expected = torch.rand(SHAPE, generator=torch.Generator().manual_seed(EVALUATION_NOISE_SEED))
    (noise,) = evaluation_noise(SHAPE)
    assert noise.dtype == np.float32
    np.testing.assert_array_equal(noise, expected.numpy())
    digest = hashlib.sha256(noise.astype("<f4").tobytes()).hexdigest()
    assert digest == "dc651b2c5943ed6b6348d6e6df995e67fab33df51d49536e9e4629e9257a3ca1"


def test_the_evaluation_noise_is_fixed_per_image_whatever_follows_and_however_it_is_cut():
    (whole,) = evaluation_noise(SHAPE)
    pieces = list(evaluation_noise(SHAPE, images_at_once=8))
    assert [len(piece) for piece in pieces] == [8] * 6 + [2]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    (fewer,) = evaluation_noise((7, *SHAPE[1:]))
    np.testing.assert_array_equal(fewer, whole[:7])
    (other,) = evaluation_noise(SHAPE, seed=2)
    assert not np.array_equal(whole, other)


def test_the_evaluation_noise_is_uniform():
    (noise,) = evaluation_noise((2000, 1, 10, 10), images_at_once=2000)
    assert 0 <= noise.min() <= noise.max() < 1
    assert stats.kstest(noise.reshape(-1), "uniform").pvalue > 1e-3
