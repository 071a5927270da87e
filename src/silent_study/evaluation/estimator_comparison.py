"""Estimators compared along one run's training: variance and bias of their gradients at its snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from silent_gradients.estimators.contract import REGISTRY, Estimator, EstimatorError, State, create
from silent_gradients.evaluation.gradient_variance import Reference, assess, reference_gradient, settled_state
from silent_gradients.vae import VAE
from silent_study.data.batches import RunData
from silent_study.data.prepared import PreparedData
from silent_study.settings import RunSettings, SettingsError
from silent_study.store.runs import WEIGHTS, StoredRun, open_run, snapshot_file, without_weights
from silent_study.training.build import load_snapshot
from silent_study.training.seeds import generator

if TYPE_CHECKING:
    from rich.table import Table

FEWEST_DRAWS = 4


@dataclass(frozen=True)
class Point:
    """An estimator at one snapshot.

    Attributes:
        epoch: Epochs of training before it.
        estimator: As it was asked for.
        batch_mean: Variance of the batch mean's gradient with respect to the encoder.
        per_image_mean: Mean variance of an image's.
        bias: Norm of the bias over that of the expected gradient, with respect to the posterior's parameters.
        bias_z: How certain it is that there is one; above about 4 it is.
        reference: The estimator that gave the expected gradient.
    """

    epoch: int
    estimator: str
    batch_mean: float
    per_image_mean: float
    bias: float
    bias_z: float
    reference: str


@dataclass(frozen=True)
class Comparison:
    """Estimators along one run's training.

    Attributes:
        run: Name of the run.
        images: Images of the fixed batch.
        draws: Draws of each estimator at each snapshot.
        reference_draws: Draws of the reference where it is not exact.
    """

    run: str
    images: int
    draws: int
    reference_draws: int
    points: tuple[Point, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
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

    The run's own estimator has the state that it had in training; any other that keeps one takes ``SETTLING_STEPS``
    steps on the fixed batch first. All draw from the same stream, so that the run's own variance is that of its
    evaluation where draws and images are the same.

    Args:
        folder: Folder of the run in a store.
        data: Folder of its prepared data set; None is its place in ``data/prepared``.
        asked: Estimators, each a name or ``name:option=value:..``; None is every one that serves the run.
        draws: Draws of each estimator, at least 4.
        reference_draws: Draws of the reference where the exact gradient is not known, at least 4.
        images: Images of the selection split to measure on, as many as it has at most.
        device: Where to measure.

    Raises:
        SettingsError: An estimator is unknown or cannot serve this run, or a number is impossible.
        StoreError: The folder is no finished run, or was altered, or keeps no weights.
        DataError: The data set cannot be read.
    """
    for name, number, least in (
        ("draws", draws, FEWEST_DRAWS),
        ("reference_draws", reference_draws, FEWEST_DRAWS),
        ("images", images, 1),
    ):
        if number < least:
            raise SettingsError(f"{name}: expected {least} or more, got {number}")
    run, settings = open_run(folder)
    prepared = PreparedData.open(data or Path("data/prepared") / settings.data.name, settings.data.sha256)
    loaded = RunData.load(prepared, settings, device)
    x, points, estimators = loaded.selection[:images], [], None
    for epoch, file in _snapshots(run, settings).items():
        vae, state = load_snapshot(settings, loaded.mean, loaded.deviation, run.folder / file, device)
        if estimators is None:
            estimators = _estimators(settings, vae, x[:2], asked)
        reference = reference_gradient(vae, x, reference_draws, generator(settings.seed, "gradient-reference", device))
        points += [
            _measured(settings, vae, state, name, estimator, x, epoch, draws, reference)
            for name, estimator in estimators.items()
        ]
    return Comparison(run.name, len(x), draws, reference_draws, tuple(points))


def _measured(
    settings: RunSettings,
    vae: VAE,
    state: State,
    name: str,
    estimator: Estimator,
    x: Tensor,
    epoch: int,
    draws: int,
    reference: Reference,
) -> Point:
    index = None
    if name != settings.estimator:
        state = settled_state(vae, estimator, x, generator(settings.seed, "gradient-settling", x.device))
        index = torch.arange(len(x), device=x.device)
    source = generator(settings.seed, "gradient-variance", x.device)
    found = assess(vae, estimator, x, state, draws, reference, source, index=index)
    variance = found.variance
    return Point(
        epoch, name, variance.batch_mean, variance.per_image_mean, found.bias, found.bias_z, reference.estimator
    )


def _snapshots(run: StoredRun, settings: RunSettings) -> dict[int, str]:
    """Files with weights by epoch."""
    found = {epoch: snapshot_file(epoch) for epoch in sorted(settings.snapshot_epochs)}
    found = {settings.epochs: WEIGHTS} | found
    kept = {epoch: found[epoch] for epoch in sorted(found) if found[epoch] in run.identity["files"]}
    if not kept:
        raise without_weights(run)
    return kept


def _estimators(settings: RunSettings, vae: VAE, x: Tensor, asked: Sequence[str] | None) -> dict[str, Estimator]:
    """The estimators by the name that was asked for, each tried once."""
    found: dict[str, Estimator] = {}
    for name in sorted(REGISTRY) if asked is None else dict.fromkeys(asked):
        try:
            own = vae.estimator if name == settings.estimator else None
            estimator = own or _made(name)
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
    """An estimator of ``name:option=value:..``."""
    name, *options = text.split(":")
    pairs = [option.partition("=")[::2] for option in options]
    try:
        return create(name, {option: float(value) for option, value in pairs})
    except ValueError as error:
        if isinstance(error, EstimatorError):
            raise
        raise EstimatorError(f"expected name:option=number, got {text!r}") from error


def as_table(comparison: Comparison) -> Table:
    """The comparison for people."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("epoch", justify="right", no_wrap=True)
    table.add_column("estimator")
    for heading in ("variance", "per image", "bias", "z"):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in comparison.points:
        table.add_row(
            str(point.epoch),
            point.estimator,
            *(f"{number:.3g}" for number in (point.batch_mean, point.per_image_mean, point.bias)),
            f"{point.bias_z:.1f}",
        )
    return table
