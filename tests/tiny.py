"""A tiny study: a generated data set, and runs of milliseconds on it with everything that real runs have."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from silent_study.data.batches import RunData
from silent_study.data.prepared import (
    EVALUATION_NOISE_SEED,
    MANIFEST,
    NOISE,
    NOISE_MANIFEST,
    TEST,
    TRAIN,
    Description,
    Images,
    PreparedData,
    arrays_digest,
    evaluation_noise,
    write_manifest,
)
from silent_study.jobs.pack import TrainingOptions, run_pack
from silent_study.methods import METHODS
from silent_study.settings import (
    DataSettings,
    EvaluationSettings,
    Experiment,
    NetworkSettings,
    RunSettings,
    SilentSettings,
)
from silent_study.store.documents import Manifest
from silent_study.store.packs import PackSpec
from silent_study.store.runs import RunStore, StoredRun
from silent_study.training import loop
from silent_study.training.loop import Trainer
from silent_study.training.steps import Stepper

CPU = torch.device("cpu")
OPTIONS = {"temperature": 0.8, "decay": 0.9}
LEVELS = 17
CHANNELS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "plain": ((2, 3, 2), (2, 3, 2, 2, 3)),
    "strided": ((2, 3, 2, 4), (4, 3, 2, 2)),
}


def never() -> bool:
    """A ``stop`` that lets a training run to its end."""
    return False


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
    def make(cls, folder: Path, shape: tuple[int, int, int], architecture: str, train: int, test: int) -> TinyStudy:
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
        write_manifest(folder / MANIFEST, **description, arrays_sha256=sha256)
        (noise,) = evaluation_noise((test, *shape))
        np.save(folder / NOISE, noise)
        seed = EVALUATION_NOISE_SEED
        write_manifest(folder / NOISE_MANIFEST, name="tiny", seed=seed, shape=list(noise.shape))
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
        exact, two_layer = experiment != "learnable", experiment == "two-layer"
        values: dict[str, Any] = {
            "experiment": experiment,
            "method": method.name,
            "data": DataSettings("tiny", prepared.sha256, prepared.shape, LEVELS, "holdout", len(prepared.train) // 4),
            "posterior": method.posterior,
            "latent_dim": 3,
            "network": NetworkSettings(self.architecture, encoder, () if exact else decoder),  # type: ignore[arg-type]
            "initialization": "standardized",
            "precision": "float32",
            "estimator": method.estimator,
            "estimator_options": {
                **method.options,
                **{option: value for option, value in OPTIONS.items() if option in method.options},
            },
            "silent": None if method.guide == "none" else SilentSettings(**guide | (silent or {})),
            "variance": 0.02 if experiment in ("fixed", "two-layer") else None,
            "seed": 0,
            "epochs": 5,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "mean_rate": 2e-3 if exact else None,
            "precision_rate": 5e-4 if experiment == "log-linear" else None,
            "betas": (0.9, 0.999),
            "weight_decay": 0.01,
            "gradient_clip": None,
            "evaluate_every": 2,
            "evaluation_samples": 2,
            "snapshot_epochs": (2,),
            "threshold_bpd": None,
            "activation": "square" if two_layer else None,
            "hidden_units": 4 if two_layer else None,
        }
        return RunSettings(**values | changes)

    def load(self, settings: RunSettings, device: torch.device = CPU) -> RunData:
        return RunData.load(self.prepared, settings, device)

    def trainer(self, settings: RunSettings, folder: Path, device: torch.device = CPU) -> Trainer:
        return Trainer(settings, self.load(settings, device), folder, device)

    def train_stored(
        self, store: RunStore, *runs: RunSettings, evaluation: EvaluationSettings | None = None
    ) -> list[StoredRun]:
        """Train runs in one pack: selected ones with an evaluation, else points of a grid."""
        self.run(pack_of(*runs, evaluation=evaluation), store)
        return [store.verified(run.name, run.id) for run in runs]

    def run(self, pack: PackSpec, store: RunStore, stop: Callable[[], bool] = never, **options: Any) -> Manifest:
        """Run a pack; the options are those of ``TrainingOptions``."""
        return run_pack(pack, store, self.folder, CPU, TrainingOptions(**options), stop)


def pack_of(*runs: RunSettings, evaluation: EvaluationSettings | None = None) -> PackSpec:
    """A pack of selected runs where there is an evaluation, else of points of a grid."""
    group = "/".join(runs[0].cell.split("/")[:2])
    return PackSpec("baselines" if evaluation is None else "seeds", group, runs, evaluation)


def train_arguments(study: TinyStudy, pack: PackSpec, store: Path) -> list[str]:
    """Arguments of the training command as a job has them; the pack and the manifest lie beside the store."""
    (store.parent / "pack.json").write_text(json.dumps(pack.to_json()))
    files = {"pack": store.parent / "pack.json", "data": study.folder, "store": store, "manifest": f"{store}.json"}
    return ["train", *(f"--{name}={path}" for name, path in files.items())]


def train(
    *trainers: Trainer, stop: Callable[[], bool] = never, checkpoint_seconds: float = math.inf, **steps: bool
) -> None:
    """Train as jobs do; without options of ``Stepper`` each run makes eager steps by itself: the reference."""
    loop.train(trainers, Stepper(**steps).advance, checkpoint_seconds, stop)


SMALL: dict[str, Any] = {
    "methods": ["silent-gaussian", "reparameterization"],
    "epochs": 2,
    "batch_size": 128,
    "latent_dim": 3,
    "network": {"architecture": "plain", "encoder_channels": [2, 2, 2], "decoder_channels": [2, 2, 2, 2, 2]},
    "grid": {"learning_rate": [0.001]},
}
"""A section of an experiment on the digits."""


def write_study(folder: Path, experiment: str = "fixed", preset: Any = None, **section: Any) -> None:
    """Write ``presets/small.yaml`` with one experiment, ``SMALL`` changed by ``section``, and a params.yaml of it."""
    (folder / "presets").mkdir()
    document = {"seeds": [0, 1], "experiments": {experiment: {"digits": SMALL | section}}} | (preset or {})
    (folder / "presets" / "small.yaml").write_text(json.dumps(document))  # JSON is YAML
    (folder / "params.yaml").write_text("preset: small\n")


def assert_same(one: Any, other: Any) -> None:
    """Two states (tensors, numbers, strings, lists, dictionaries) are equal bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for mine, yours in zip(one, other, strict=True):
            assert_same(mine, yours)
    else:
        assert one == other


def damage(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@contextmanager
def python(program: str, *arguments: Any, folder: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run a program of Python, which prints a path and is killed when the block ends at the latest."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process and wait for its end."""
    process.kill()
    process.wait()


def terminate_in_training(command: list[str], working: Path) -> str:
    """Start a training, terminate it once three epochs are done; return what it wrote to its standard error."""
    curve = working / "curve.jsonl"
    # Without a deadline but pytest's own: on a busy machine the start alone may take minutes.
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as job:
        while not curve.exists() or len(curve.read_text().splitlines()) < 3:
            assert job.poll() is None, job.communicate()
            time.sleep(0.002)
        job.send_signal(signal.SIGTERM)
        _, errors = job.communicate()
    assert job.returncode == 128 + signal.SIGTERM
    return errors
