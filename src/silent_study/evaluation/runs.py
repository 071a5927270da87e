"""Evaluate stored runs."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from silent_gradients.estimators.contract import State
from silent_gradients.evaluation.gradient_variance import gradient_variance
from silent_gradients.evaluation.importance_weighted import importance_weighted
from silent_gradients.evaluation.latents import reconstruct
from silent_gradients.evaluation.limits import pca_limit
from silent_gradients.evaluation.metrics import evaluate
from silent_gradients.vae import VAE
from silent_study.data.batches import RunData
from silent_study.data.errors import DataError
from silent_study.data.prepared import MANIFEST, PreparedData
from silent_study.settings import EXPERIMENTS, EvaluationSettings, RunSettings, SettingsError
from silent_study.store import documents
from silent_study.store.code import evaluation_code
from silent_study.store.evaluations import kept_evaluation, write_evaluation
from silent_study.store.runs import WEIGHTS, StoredRun, StoreError, open_run, snapshot_file, without_weights
from silent_study.training.build import load_snapshot
from silent_study.training.seeds import generator

Split = Literal["test", "holdout", "train"]

DEFAULT_SAMPLES = 16
"""Latent samples per image where the store keeps no evaluation of the run."""


@dataclass(frozen=True)
class OpenRun:
    """A verified run with its settings, its prepared data set and the splits of that on the device that evaluates."""

    run: StoredRun
    settings: RunSettings
    prepared: PreparedData
    data: RunData
    device: torch.device

    @classmethod
    def load(cls, run: StoredRun, settings: RunSettings, data: Path | None, device: torch.device) -> OpenRun:
        """Load a run's data onto a device, from a folder of its prepared data set (None: the one in ``data/prepared``).

        Raises:
            DataError: The data set cannot be read, or is another one.
        """
        name = settings.data.name
        folder = data or Path("data/prepared") / name
        if data is not None and not (folder / MANIFEST).is_file():
            fix = f"silent-gradients prepare {name} --folder {folder}, then dequantize {name} --folder {folder}"
            raise DataError(f"{folder}: expected {name}, found no prepared data set; make it: {fix}")
        prepared = PreparedData.open(folder, settings.data.sha256)
        return cls(run, settings, prepared, RunData.load(prepared, settings, device), device)

    def model(self, epoch: int | None = None) -> tuple[VAE, State]:
        """Load the snapshot of an epoch, or the final weights: the VAE and its estimator's state."""
        file = self.run.folder / (WEIGHTS if epoch is None else snapshot_file(epoch))
        return load_snapshot(self.settings, self.data.mean, self.data.deviation, file, self.device)

    def metrics(self, vae: VAE, split: Split, samples: int, importance_samples: int = 0) -> documents.Metrics:
        """Return all metrics of a model on one split; every call draws the same random numbers.

        The split is all test images, those set aside, or as many training images as there are test images. Both numbers
        are latent samples per image; 0 leaves out the importance-weighted bound.
        """
        images = {"test": self.data.report, "holdout": self.data.selection, "train": self.data.train}[split]
        levels, source = self.settings.data.levels, generator(0, "evaluation", self.device)
        metrics = evaluate(vae, images, levels, split, samples, source).to_json()
        if importance_samples:
            source = generator(0, "evaluation", self.device)
            metrics |= importance_weighted(vae, images, levels, importance_samples, source).to_json()
        return cast("documents.Metrics", metrics)


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a run's weights on one split."""

    run: str
    metrics: Mapping[str, Any]
    """As ``Metrics.to_json``, with those of the importance-weighted bound where it was asked for."""
    kept: Mapping[str, Any] | None
    """The same of the evaluation that the store keeps; None if it keeps none of this split and epoch."""
    epoch: int | None = None
    """Epoch of the snapshot; None for the final weights."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {"run": self.run, "epoch": self.epoch, **self.metrics}


def evaluate_again(
    folder: Path,
    data: Path | None,
    split: Split,
    samples: int | None,
    importance_samples: int | None,
    device: torch.device,
    epoch: int | None = None,
) -> Evaluation:
    """Evaluate a run's weights, without writing to the store.

    With the numbers of samples of the kept evaluation, the metrics equal the kept ones.

    Args:
        folder: Folder of the run in a store.
        data: See ``OpenRun.load``.
        split: See ``OpenRun.metrics``.
        samples: Latent samples per image; None takes those of the kept evaluation, else ``DEFAULT_SAMPLES``.
        importance_samples: Those of the importance-weighted bound; 0 leaves it out, None as for ``samples``.
        device: Device that evaluates.
        epoch: Epoch of the snapshot to evaluate; None evaluates the final weights.

    Raises:
        SettingsError: The run's protocol sets no images aside, or there is no snapshot of the epoch.
        StoreError: The folder holds no finished run, or a file was altered, or the run keeps no weights.
        DataError: The data set cannot be read, or is another one.
    """
    run, settings = open_run(folder)
    if not run.has_weights:
        raise without_weights(run)
    if split == "holdout" and settings.data.protocol == "paper":
        raise SettingsError("--split holdout: this run's protocol 'paper' sets no images aside; use test")
    if epoch is not None and epoch not in settings.snapshot_epochs:
        there = ", ".join(map(str, settings.snapshot_epochs)) or "none"
        raise SettingsError(f"--epoch {epoch}: this run has no snapshot of it; there are: {there}")
    asked = {} if run.evaluation is None else run.evaluation["settings"]
    kept = None if split == "holdout" else run.metrics("report" if split == "test" else "train") or None
    if samples is None:
        samples = int(asked.get("samples", DEFAULT_SAMPLES))
    if importance_samples is None:
        importance_samples = int(asked.get("importance_samples", 0)) if split == "test" else 0
    opened = OpenRun.load(run, settings, data, device)
    vae, _ = opened.model(epoch)
    metrics = opened.metrics(vae, split, samples, importance_samples)
    return Evaluation(run.name, metrics, kept if epoch is None else None, epoch)


def evaluate_selected(opened: OpenRun, evaluation: EvaluationSettings) -> documents.Evaluation:
    """Write ``evaluation.json`` and ``reconstructions.npz`` of a selected run into its folder; return the former.

    Does nothing if the same evaluation of the same weights is there already, unaltered. A diverged run has no weights
    and is recorded as such.
    """
    run, settings, data = opened.run, opened.settings, opened.data
    try:
        found = kept_evaluation(run, evaluation)
    except StoreError as error:
        print(f"{error}; evaluating this run again", file=sys.stderr, flush=True)
        found = None
    if found is not None:
        return found
    measured: documents.Measured = {
        "report": None,
        "train": None,
        "limit": None,
        "gradient_variance": [],
        "code": evaluation_code(settings.estimator),
    }
    reconstructions = None
    traits = EXPERIMENTS[settings.experiment]
    if traits.fixed_variance and settings.variance is not None:
        splits, levels = opened.prepared.split(settings.data.protocol, settings.data.holdout), settings.data.levels
        limit = pca_limit(splits.train, splits.report, levels, settings.latent_dim, settings.variance)
        measured["limit"] = asdict(limit)
    if run.has_weights:
        vae, _ = opened.model()
        measured["report"] = opened.metrics(vae, "test", evaluation.samples, evaluation.importance_samples)
        measured["train"] = opened.metrics(vae, "train", evaluation.samples)
        pictures = reconstruct(
            vae,
            data.report[: evaluation.reconstructions],
            with_deviation=not traits.constant_variance,
            generator=generator(0, "evaluation", opened.device),
        )
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **pictures)  # type: ignore[arg-type]
        reconstructions = buffer.getvalue()
        if vae.estimator is not None:
            images = data.selection[: evaluation.variance_images]
            measured["gradient_variance"] = [
                _variance_at(opened, epoch, images, evaluation.variance_draws) for epoch in settings.snapshot_epochs
            ]
    return write_evaluation(run, evaluation, measured, reconstructions)


def _variance_at(opened: OpenRun, epoch: int, images: Tensor, draws: int) -> documents.GradientVariance:
    settings = opened.settings
    vae, state = opened.model(epoch)
    assert vae.estimator is not None
    source = generator(settings.seed, "gradient-variance", opened.device)
    found = gradient_variance(vae, vae.estimator, images, state, draws, source)
    variances = {"batch_mean": found.batch_mean, "per_image_mean": found.per_image_mean}
    estimators = {settings.estimator: variances}
    return {"epoch": epoch, "images": found.images, "draws": found.draws, "estimators": estimators}
