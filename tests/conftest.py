"""Fixtures of all tests: the tiny studies, a preset of presets, and commands that run in this process."""

import signal
from pathlib import Path

import pytest
import torch
from tests.tiny import TinyStudy


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def denormal_numbers():
    """Undo what a command in this process sets: Hypothesis refuses to draw floats without them."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """96 + 24 images of 1x4x4 pixels for the plain networks."""
    return TinyStudy.make(tmp_path_factory.mktemp("tiny"), (1, 4, 4), "plain", 96, 24)


@pytest.fixture(scope="session")
def strided(tmp_path_factory):
    """32 + 8 images of 3x32x32 pixels for the strided networks, which have BatchNorm."""
    return TinyStudy.make(tmp_path_factory.mktemp("strided"), (3, 32, 32), "strided", 32, 8)


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture
def cpu_command(tmp_path, monkeypatch):
    """Let a command in this process see the CPU alone, and undo its settings of torch and its signal handlers."""
    monkeypatch.setenv("SILENT_GRADIENTS_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("SILENT_GRADIENTS_DEVICES", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


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
