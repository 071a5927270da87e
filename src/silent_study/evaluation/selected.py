"""The evaluation of a selected run: the report split read once, gradient variance, limit and reconstructions."""

from __future__ import annotations

import io
import sys
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from silent_gradients.evaluation.gradient_variance import gradient_variance
from silent_gradients.evaluation.importance_weighted import importance_weighted
from silent_gradients.evaluation.limits import pca_limit
from silent_gradients.evaluation.metrics import evaluate
from silent_gradients.evaluation.reconstructions import reconstruct
from silent_gradients.vae import VAE
from silent_study.data.batches import RunData
from silent_study.data.prepared import PreparedData
from silent_study.settings import EvaluationSettings, RunSettings
from silent_study.store.documents import Evaluation, Metrics
from silent_study.store.files import sha256_of, write_bytes_atomically
from silent_study.store.manifests import evaluation_digest, evaluation_id, kept_evaluation
from silent_study.store.runs import (
    EVALUATION,
    RECONSTRUCTIONS,
    WEIGHTS,
    StoredRun,
    StoreError,
    snapshot_file,
    write_json,
)
from silent_study.training.build import load_snapshot
from silent_study.training.seeds import generator


def evaluate_selected(
    run: StoredRun,
    settings: RunSettings,
    evaluation: EvaluationSettings,
    prepared: PreparedData,
    data: RunData,
    device: torch.device,
) -> Evaluation:
    """Evaluate a finished run and write ``evaluation.json`` and ``reconstructions.npz`` into its folder.

    Does nothing where the same evaluation of the same weights is there already, unaltered.

    Args:
        run: A verified run with its weights (a diverged run has none, and is recorded as such).
        settings: Its settings.
        evaluation: How to evaluate.
        prepared: The data set, for the closed-form limit.
        data: The data set on the device.
        device: Device that evaluates.

    Returns:
        The content of ``evaluation.json``.
    """
    try:
        found = kept_evaluation(run, evaluation)
    except StoreError as error:
        print(f"{error}; evaluating this run again", file=sys.stderr, flush=True)
        found = None
    if found is not None:
        return found
    document: Evaluation = {
        "asked": evaluation_id(run, evaluation),
        "settings": asdict(evaluation),
        "report": None,
        "train": None,
        "limit": _limit(settings, prepared),
        "gradient_variance": [],
        "reconstructions_sha256": None,
        "sha256": "",
    }
    if run.has_weights:
        model = (settings, data.mean, data.deviation)
        vae, _ = load_snapshot(*model, run.folder / WEIGHTS, device)
        levels, samples = settings.data.levels, evaluation.samples
        weighted = evaluation.importance_samples
        document["report"] = split_metrics(vae, data.report, levels, "test", samples, weighted)
        document["train"] = split_metrics(vae, data.train, levels, "train", samples)
        pictures = reconstruct(
            vae,
            data.report[: evaluation.reconstructions],
            with_deviation=settings.variance is None,
            generator=generator(0, "evaluation", device),
        )
        write_bytes_atomically(run.folder / RECONSTRUCTIONS, _npz(pictures))
        document["reconstructions_sha256"] = sha256_of(run.folder / RECONSTRUCTIONS)
        for epoch in settings.snapshot_epochs:
            vae, state = load_snapshot(*model, run.folder / snapshot_file(epoch), device)
            if vae.estimator is None:
                continue
            measured = gradient_variance(
                vae,
                vae.estimator,
                data.selection[: evaluation.variance_images],
                state,
                evaluation.variance_draws,
                generator(settings.seed, "gradient-variance", device),
            )
            estimators = {
                settings.estimator: {
                    "batch_mean": measured.batch_mean,
                    "per_image_mean": measured.per_image_mean,
                }
            }
            document["gradient_variance"].append(
                {"epoch": epoch, "images": measured.images, "draws": measured.draws, "estimators": estimators}
            )
    document["sha256"] = evaluation_digest(document)
    write_json(run.folder / EVALUATION, document)
    return document


def split_metrics(
    vae: VAE, images: Tensor, levels: int, split: str, samples: int, importance_samples: int = 0
) -> Metrics:
    """Every metric of a model on one split, from the streams that all evaluations draw from.

    Args:
        vae: The model.
        images: Dequantized images [N, C, H, W], on its device.
        levels: Number of grey levels.
        split: Name of the split.
        samples: Latent samples per image.
        importance_samples: Those of the importance-weighted bound; 0 is none.
    """
    metrics = evaluate(vae, images, levels, split, samples, generator(0, "evaluation", images.device)).to_json()
    if importance_samples:
        latent = generator(0, "evaluation", images.device)
        metrics |= importance_weighted(vae, images, levels, importance_samples, latent).to_json()
    return cast("Metrics", metrics)


def _limit(settings: RunSettings, prepared: PreparedData) -> dict[str, Any] | None:
    if settings.variance is None:
        return None
    splits = prepared.split(settings.data.protocol, settings.data.holdout)
    limit = pca_limit(splits.train, splits.report, prepared.levels, settings.latent_dim, settings.variance)
    return asdict(limit)


def _npz(arrays: dict[str, NDArray[np.float32]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
