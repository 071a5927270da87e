import hashlib

import numpy as np
import torch
from scipy import stats

from silent_study.data.prepared import EVALUATION_NOISE_SEED, evaluation_noise

SHAPE = (50, 2, 3, 4)


def test_it_is_what_torch_draws_from_the_documented_seed():
    expected = torch.rand(SHAPE, generator=torch.Generator().manual_seed(EVALUATION_NOISE_SEED))
    (noise,) = evaluation_noise(SHAPE)
    assert noise.dtype == np.float32
    np.testing.assert_array_equal(noise, expected.numpy())


def test_its_bytes_are_those_of_every_version():
    (noise,) = evaluation_noise(SHAPE)
    digest = hashlib.sha256(noise.astype("<f4").tobytes()).hexdigest()
    assert digest == "dc651b2c5943ed6b6348d6e6df995e67fab33df51d49536e9e4629e9257a3ca1"


def test_it_is_fixed_per_image_whatever_follows_and_however_it_is_cut():
    (whole,) = evaluation_noise(SHAPE)
    pieces = list(evaluation_noise(SHAPE, images_at_once=8))
    assert [len(piece) for piece in pieces] == [8] * 6 + [2]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    (fewer,) = evaluation_noise((7, *SHAPE[1:]))
    np.testing.assert_array_equal(fewer, whole[:7])


def test_another_seed_is_other_noise():
    (one,), (other,) = (evaluation_noise(SHAPE, seed=seed) for seed in (1, 2))
    assert not np.array_equal(one, other)


def test_it_is_uniform():
    (noise,) = evaluation_noise((2000, 1, 10, 10), images_at_once=2000)
    assert 0 <= noise.min() <= noise.max() < 1
    assert stats.kstest(noise.reshape(-1), "uniform").pvalue > 1e-3
