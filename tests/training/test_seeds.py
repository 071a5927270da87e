"""Random streams: the same for the same seed and purpose, and independent otherwise."""

import itertools
from typing import get_args

import numpy as np
import torch
from scipy import stats

from silent_study.training.seeds import Purpose, derived_seed, generator

CPU = torch.device("cpu")
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


def test_a_derived_seed_is_the_documented_hash():
    # printf order/0 | sha256sum: the first 8 bytes as an integer, halved
    assert derived_seed(0, "order") == 0x923F3A31482D36CB >> 1
    assert derived_seed(7, "latent") == 0x35A201A2919321D3 >> 1


def test_seeds_and_purposes_give_different_seeds():
    seeds = {derived_seed(seed, purpose) for seed, purpose in itertools.product(range(300), PURPOSES)}
    assert len(seeds) == 300 * len(PURPOSES)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_generator_starts_anew_each_time():
    one, other = (torch.rand(5, generator=generator(3, "latent", CPU)) for _ in range(2))
    assert torch.equal(one, other)


def test_streams_of_neighbouring_seeds_and_purposes_are_uncorrelated():
    count = 4000
    draws = np.stack(
        [
            torch.randn(count, generator=generator(seed, purpose, CPU)).numpy()
            for seed, purpose in itertools.product(range(4), PURPOSES)
        ]
    )
    correlations = np.corrcoef(draws)[np.triu_indices(len(draws), 1)]
    # Fisher: correlations of independent normal samples are normal with deviation 1/sqrt(n); Bonferroni over all pairs.
    smallest = 2 * stats.norm.sf(np.abs(correlations).max() * np.sqrt(count)) * len(correlations)
    assert smallest > 1e-3
