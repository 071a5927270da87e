"""A tiny data set and runs on it: milliseconds of training, with everything that real runs have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from silent_study.data.batches import RunData
from silent_study.data.prepared import (
    NOISE,
    TEST,
    TRAIN,
    Description,
    Images,
    PreparedData,
    arrays_digest,
    evaluation_noise,
    write_manifest,
    write_noise_manifest,
)
from silent_study.methods import METHODS
from silent_study.settings import DataSettings, Experiment, NetworkSettings, RunSettings, SilentSettings

CPU = torch.device("cpu")
OPTIONS = {"temperature": 0.8, "decay": 0.9}
LEVELS = 17
CHANNELS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "plain": ((2, 3, 2), (2, 3, 2, 2, 3)),
    "strided": ((2, 3, 2, 4), (4, 3, 2, 2)),
}


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


def generated_images(count: int, shape: tuple[int, int, int], seed: int) -> Images:
    """Grey levels that three factors explain."""
    dimensions = int(np.prod(shape))
    mixing = np.random.default_rng(0).normal(size=(3, dimensions))
    factors = np.random.default_rng(seed).normal(size=(count, 3))
    return np.clip((2 * factors @ mixing + 8).round(), 0, LEVELS - 1).astype(np.uint8).reshape(count, *shape)


@dataclass(frozen=True)
class TinyStudy:
    """A prepared data set of generated images in a folder, and the settings of runs on it."""

    folder: Path
    architecture: str

    @classmethod
    def make(cls, folder: Path, shape: tuple[int, int, int], architecture: str, train: int, test: int) -> "TinyStudy":
        arrays = {TRAIN: generated_images(train, shape, 1), TEST: generated_images(test, shape, 2)}
        for file, images in arrays.items():
            np.save(folder / file, images)
        sha256 = arrays_digest("tiny", LEVELS, arrays[TRAIN], arrays[TEST])
        description: Description = {
            "name": "tiny",
            "title": "Tiny",
            "version": "generated",
            "levels": LEVELS,
            "shape": list(shape),
            "counts": {"train": train, "test": test},
            "sha256": sha256,
        }
        write_manifest(folder, description, sha256)
        (noise,) = evaluation_noise((test, *shape))
        np.save(folder / NOISE, noise)
        write_noise_manifest(folder, "tiny", noise.shape)
        return cls(folder, architecture)

    @property
    def prepared(self) -> PreparedData:
        return PreparedData.open(self.folder)

    def settings(self, cell: str = "learnable/reinforce", silent: Any = None, **changes: Any) -> RunSettings:
        """Settings of a run of ``experiment/method``; ``silent`` changes the guide's settings."""
        experiment: Experiment = cell.partition("/")[0]  # type: ignore[assignment]
        method = METHODS[experiment][cell.partition("/")[2]]
        prepared = self.prepared
        guide = {
            "role": method.guide,
            "sampled": method.sampled,
            "plateau_epochs": 0.0,
            "annealing_rate": 0.2 if method.guide == "annealed" else 0.0,
            "cutoff_epoch": None,
            "mean_rate": 2e-3,
            "precision_rate": 1e-3,
            "guide": "linear",
            "log_term": "taylor-square",
        }
        encoder, decoder = CHANNELS[self.architecture]
        linear = experiment != "learnable"
        values: dict[str, Any] = {
            "experiment": experiment,
            "method": method.name,
            "data": DataSettings("tiny", prepared.sha256, prepared.shape, LEVELS, "holdout", len(prepared.train) // 4),
            "posterior": method.posterior,
            "latent_dim": 3,
            "network": NetworkSettings(self.architecture, encoder, () if linear else decoder),  # type: ignore[arg-type]
            "initialization": "standardized",
            "precision": "float32",
            "estimator": method.estimator,
            "estimator_options": {
                **method.options,
                **{option: value for option, value in OPTIONS.items() if option in method.options},
            },
            "silent": None if method.guide == "none" else SilentSettings(**guide | (silent or {})),
            "variance": 0.02 if experiment == "fixed" else None,
            "seed": 0,
            "epochs": 5,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "mean_rate": 2e-3 if linear else None,
            "precision_rate": 5e-4 if experiment == "log-linear" else None,
            "betas": (0.9, 0.999),
            "weight_decay": 0.01,
            "gradient_clip": None,
            "evaluate_every": 2,
            "evaluation_samples": 2,
            "snapshot_epochs": (2,),
            "threshold_bpd": None,
        }
        return RunSettings(**values | changes)

    def load(self, settings: RunSettings) -> RunData:
        return RunData.load(self.prepared, settings, CPU)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """96 + 24 images of 1x4x4 pixels for the plain networks."""
    return TinyStudy.make(tmp_path_factory.mktemp("tiny"), (1, 4, 4), "plain", 96, 24)


@pytest.fixture(scope="session")
def strided(tmp_path_factory):
    """32 + 8 images of 3x32x32 pixels for the strided networks, which have BatchNorm."""
    return TinyStudy.make(tmp_path_factory.mktemp("strided"), (3, 32, 32), "strided", 32, 8)


STUDY = """
protocol: holdout
seeds: [0, 1, 2]
execution: {workers: 2, runs_per_pack: 64}
experiments:
  fixed:
    digits:
      methods: [silent-gaussian, reparameterization, silent-bernoulli, gumbel-softmax, reinforce]
      epochs: 60
      batch_size: 64
      latent_dim: 32
      network: {architecture: plain, encoder_channels: [4, 8, 8], decoder_channels: [8, 8, 8, 8, 8]}
      snapshot_epochs: [5, 20, 60]
      grid: {learning_rate: [0.001, 0.004], variance: [0.01]}
      shared_axes: [variance]
  learnable:
    digits:
      methods:
        - silent-gaussian
        - reparameterization
        - reparameterization+silent
        - silent-bernoulli
        - gumbel-softmax
        - gumbel-softmax+silent
        - reinforce
        - reinforce+silent
      epochs: 40
      batch_size: 64
      latent_dim: 32
      network: {architecture: plain, encoder_channels: [4, 8, 8], decoder_channels: [8, 8, 8, 8, 8]}
      gradient_clip: 50
      overrides:
        reinforce: {epochs: 60}
        reinforce+silent: {epochs: 60, plateau_epochs: 30, grid: {annealing_rate: [0.033]}}
      grid: {learning_rate: [0.001, 0.003], annealing_rate: [0.08], cutoff_epoch: [null, 30]}
"""
"""A preset with every method and a little of everything, which stays as it is while the presets are tuned."""


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A folder of presets that holds ``study.yaml``."""
    folder: Path = tmp_path_factory.mktemp("presets")
    (folder / "study.yaml").write_text(STUDY)
    return folder
