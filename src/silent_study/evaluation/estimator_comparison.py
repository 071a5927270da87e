"""Compare estimators at the snapshots of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from silent_gradients.estimators.contract import REGISTRY, Estimator, EstimatorError, create
from silent_gradients.evaluation.gradient_variance import assess, reference_gradient, settled_state
from silent_gradients.vae import VAE
from silent_study.evaluation.runs import OpenRun
from silent_study.settings import RunSettings, SettingsError
from silent_study.store.runs import StoredRun, open_run, snapshot_file, without_weights
from silent_study.training.seeds import generator

FEWEST_DRAWS = 4


@dataclass(frozen=True)
class Point:
    """An estimator at one snapshot."""

    epoch: int
    estimator: str
    """Name with options, as given."""
    batch_mean: float
    """Variance of the batch mean's gradient with respect to the encoder."""
    per_image_mean: float
    """Mean variance of an image's gradient."""
    bias: float
    """Norm of the bias over that of the expected gradient, with respect to the posterior's parameters."""
    bias_z: float
    """z-score of the bias; above about 4 the bias is certain."""
    reference: str
    """The estimator that gave the expected gradient."""


@dataclass(frozen=True)
class Comparison:
    """Estimators along one run's training, on a fixed batch of ``images``."""

    run: str
    images: int
    draws: int
    """Latent draws of each estimator at each snapshot."""
    reference_draws: int
    """Latent draws of the reference, if it is not exact."""
    points: tuple[Point, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self)


def compare_estimators(
    folder: Path,
    data: Path | None,
    asked: Sequence[str] | None,
    *,
    draws: int,
    reference_draws: int,
    images: int,
    device: torch.device,
) -> Comparison:
    """Measure estimators at every snapshot of a run and at its final weights.

    The run's own estimator has its state of the training; any other estimator with a state first takes
    ``SETTLING_STEPS`` steps on the fixed batch. All draw the same random numbers as the run's evaluation, so that with
    equal draws and images the variance of the run's own estimator equals the kept one.

    Args:
        folder: Folder of the run in a store.
        data: See ``OpenRun.load``.
        asked: Estimators, each a name or ``name:option=value:..``; None takes every one that fits the run.
        draws: Latent draws of each estimator, at least 4.
        reference_draws: Latent draws of the reference, if the exact gradient is not known; at least 4.
        images: Number of images of the selection split to measure on; at most all of them.
        device: Device that measures.

    Raises:
        SettingsError: An estimator is unknown or does not fit this run, or a number is impossible.
        StoreError: The folder holds no finished run, or a file was altered, or the run keeps no weights.
        DataError: The data set cannot be read, or is another one.
    """
    limits = {"draws": (draws, FEWEST_DRAWS), "reference_draws": (reference_draws, FEWEST_DRAWS), "images": (images, 1)}
    for name, (number, least) in limits.items():
        if number < least:
            raise SettingsError(f"{name}: expected {least} or more, got {number}")
    run, settings = open_run(folder)
    opened = OpenRun.load(run, settings, data, device)
    x, points, estimators = opened.data.selection[:images], [], None
    for epoch, snapshot in _epochs(run, settings).items():
        vae, trained = opened.model(snapshot)
        if estimators is None:
            estimators = _estimators(settings, vae, x[:2], asked)
        reference = reference_gradient(vae, x, reference_draws, generator(settings.seed, "gradient-reference", device))
        for name, estimator in estimators.items():
            state, index = trained, None
            if name != settings.estimator:
                state = settled_state(vae, estimator, x, generator(settings.seed, "gradient-settling", device))
                index = torch.arange(len(x), device=device)
            source = generator(settings.seed, "gradient-variance", device)
            found = assess(vae, estimator, x, state, draws, reference, source, index=index)
            variances = (found.variance.batch_mean, found.variance.per_image_mean)
            points.append(Point(epoch, name, *variances, found.bias, found.bias_z, reference.estimator))
    return Comparison(run.name, len(x), draws, reference_draws, tuple(points))


def _epochs(run: StoredRun, settings: RunSettings) -> dict[int, int | None]:
    """Return the epochs with kept weights in order, each with its snapshot (None: the final weights)."""
    kept: dict[int, int | None] = {settings.epochs: None} if run.has_weights else {}
    kept |= {epoch: epoch for epoch in settings.snapshot_epochs if snapshot_file(epoch) in run.identity["files"]}
    if not kept:
        raise without_weights(run)
    return dict(sorted(kept.items()))


def _estimators(settings: RunSettings, vae: VAE, x: Tensor, asked: Sequence[str] | None) -> dict[str, Estimator]:
    """Return the estimators by their given names, each after a trial on two images."""
    found: dict[str, Estimator] = {}
    for name in sorted(REGISTRY) if asked is None else dict.fromkeys(asked):
        try:
            estimator = (vae.estimator if name == settings.estimator else None) or _made(name)
        except EstimatorError as error:
            raise SettingsError(f"estimators: {error}") from error
        try:
            assess(vae, estimator, x, settled_state(vae, estimator, x), FEWEST_DRAWS, reference_gradient(vae, x, 4))
        except EstimatorError as error:
            if asked is not None:
                serving = ", ".join(_estimators(settings, vae, x, None))
                raise SettingsError(f"estimators: {error}; those that serve this run: {serving}") from error
        else:
            found[name] = estimator
    return found


def _made(text: str) -> Estimator:
    """Create an estimator from ``name:option=value:..``."""
    name, *options = text.split(":")
    pairs = [option.partition("=")[::2] for option in options]
    try:
        numbers = {option: float(value) for option, value in pairs}
    except ValueError as error:
        raise EstimatorError(f"expected name:option=number, got {text!r}") from error
    return create(name, numbers)
