"""Checkpoints are whole or refused, and the last but one is there when the last is not."""

import os
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import assert_same, damage

from silent_study.training import checkpoint
from silent_study.training.checkpoint import CURRENT, PREVIOUS, CheckpointError


def state(number):
    return {
        "epoch": number,
        "curve": '[{"epoch": 1}]',
        "vae": {"weight": torch.arange(6.0).view(2, 3) * number, "count": torch.tensor(number)},
        "state": {},
        "optimizers": {"encoder": {"param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}]}},
        "generators": {"order": torch.Generator().manual_seed(number).get_state()},
    }


def test_what_was_saved_is_read_back(tmp_path):
    checkpoint.save(tmp_path, state(3))
    assert_same(checkpoint.read(tmp_path / CURRENT), state(3))
    assert_same(checkpoint.newest(tmp_path), state(3))


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert checkpoint.newest(tmp_path) is None


def test_the_last_two_are_kept(tmp_path):
    for number in (1, 2, 3):
        checkpoint.save(tmp_path, state(number))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([CURRENT, PREVIOUS])
    assert checkpoint.read(tmp_path / CURRENT)["epoch"] == 3
    assert checkpoint.read(tmp_path / PREVIOUS)["epoch"] == 2


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    checkpoint.save(folder, state(1))
    return folder, (folder / CURRENT).read_bytes()


@settings(deadline=None, max_examples=60)
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_altered_byte_is_found(saved, position, flip):
    folder, content = saved
    altered = bytearray(content)
    altered[int(position * len(content))] ^= flip
    path = folder / "altered.pt"
    path.write_bytes(altered)
    with pytest.raises(CheckpointError, match=r"altered\.pt: damaged"):
        checkpoint.read(path)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, -1])
def test_a_file_cut_short_is_found(saved, length):
    folder, content = saved
    path = folder / "short.pt"
    path.write_bytes(content[:length])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read(path)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path):
    for number in (1, 2):
        checkpoint.save(tmp_path, state(number))
    damage(tmp_path / CURRENT)
    with pytest.warns(UserWarning, match=CURRENT):
        assert_same(checkpoint.newest(tmp_path), state(1))
    damage(tmp_path / PREVIOUS)
    with pytest.warns(UserWarning, match="damaged") as seen:
        assert checkpoint.newest(tmp_path) is None
    assert len(seen) == 2


def test_a_sound_checkpoint_is_read_in_silence(tmp_path):
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2))
    damage(tmp_path / PREVIOUS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(checkpoint.newest(tmp_path), state(2))


def test_a_full_disk_loses_no_state(tmp_path, monkeypatch):
    for number in (1, 2):
        checkpoint.save(tmp_path, state(number))

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, state(3))
    assert_same(checkpoint.newest(tmp_path), state(2))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    checkpoint.save(tmp_path, {"epoch": pytest.approx(1)})
    with pytest.raises(Exception, match=r"weights_only|Unsupported|not an allowed"):
        checkpoint.read(tmp_path / CURRENT)
