"""A stored run evaluated once more, by the workflow's own code, without a trace in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from silent_study.data.batches import RunData
from silent_study.data.prepared import PreparedData
from silent_study.evaluation.selected import split_metrics
from silent_study.settings import SettingsError
from silent_study.store.runs import WEIGHTS, open_run, snapshot_file, without_weights
from silent_study.training.build import load_snapshot

if TYPE_CHECKING:
    from rich.table import Table

Split = Literal["test", "holdout", "train"]

DEFAULT_SAMPLES = 16
"""Latent samples per image where a run keeps no evaluation that says how many."""


@dataclass(frozen=True)
class Evaluation:
    """What a run's weights come to on one split.

    Attributes:
        run: Name of the run.
        metrics: As ``Metrics.to_json``, with those of the importance-weighted bound where it was asked for.
        kept: The same of the evaluation that the store keeps; None where it keeps none of this split and epoch.
        epoch: The snapshot's; None for the final weights.
    """

    run: str
    metrics: Mapping[str, Any]
    kept: Mapping[str, Any] | None
    epoch: int | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
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
    """Evaluate a run's weights; with the kept evaluation's numbers of samples, the numbers are the kept ones.

    Args:
        folder: Folder of the run in a store.
        data: Folder of its prepared data set; None is its place in ``data/prepared``.
        split: The images: all test images, those set aside, or as many training images as there are test images.
        samples: Latent samples per image; None takes those of the kept evaluation, else ``DEFAULT_SAMPLES``.
        importance_samples: Those of the importance-weighted bound; 0 is none, None as for ``samples``.
        device: Where to evaluate.
        epoch: The snapshot of this epoch is evaluated; None evaluates the final weights.

    Raises:
        SettingsError: The run's protocol sets no images aside, or there is no snapshot of the epoch.
        StoreError: The folder is no finished run, or was altered, or keeps no weights.
        DataError: The data set cannot be read.
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
    prepared = PreparedData.open(data or Path("data/prepared") / settings.data.name, settings.data.sha256)
    loaded = RunData.load(prepared, settings, device)
    images = {"test": loaded.report, "holdout": loaded.selection, "train": loaded.train}[split]
    weights = run.folder / (WEIGHTS if epoch is None else snapshot_file(epoch))
    vae, _ = load_snapshot(settings, loaded.mean, loaded.deviation, weights, device)
    metrics = split_metrics(vae, images, settings.data.levels, split, samples, importance_samples)
    return Evaluation(run.name, metrics, kept if epoch is None else None, epoch)


_ROWS = {
    "bpd": "bits/dim",
    "bpd_mc_error": "  its Monte Carlo error",
    "bpd_median_image": "  median over images",
    "importance_weighted_bpd": "importance-weighted bits/dim",
    "importance_weighted_mc_error": "  its Monte Carlo error",
    "importance_samples": "  samples per image",
    "effective_samples": "  effective samples",
    "kl": "KL, nats per image",
    "mse_mean_decoded": "MSE at the posterior mean",
    "mse_sampled": "MSE of samples",
    "mse_sampled_clamped": "  clamped to [0, 1]",
    "active_units": "active latent variables",
    "saturated_fraction": "saturated bits",
    "samples": "samples per image",
    "images": "images",
}


def as_table(evaluation: Evaluation) -> Table:
    """An evaluation for people, beside the kept one where there is one; squared errors are summed over dimensions."""
    from rich.table import Table

    columns = [evaluation.metrics] if evaluation.kept is None else [evaluation.metrics, evaluation.kept]
    table = Table(box=None, padding=(0, 2, 0, 0))
    at = "" if evaluation.epoch is None else f", epoch {evaluation.epoch}"
    table.add_column(f"on {evaluation.metrics['split']}{at}")
    for heading in ("now", "in the store")[: len(columns)]:
        table.add_column(heading, justify="right", no_wrap=True)
    for key, words in _ROWS.items():
        if any(column.get(key) is not None for column in columns):
            table.add_row(words, *(_number(column.get(key)) for column in columns))
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.5g}"
