"""The content of every JSON file that one room of the study writes and another one reads.

Types alone: ``runs.read_json`` reads a file and ``runs.write_json`` writes one. Files that a class reads and writes are
not here: ``settings.json`` is ``settings.RunSettings``, a pack is ``packs.PackSpec``, ``pace.json`` is
``jobs.pace.Pace``, a prepared data set is ``data.prepared.PreparedData``.

Units: bits/dim; Kullback-Leibler divergences in nats per image; squared errors summed over dimensions.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class Metrics(TypedDict):
    """Metrics of a model on one split: the fields of ``silent_gradients.evaluation.metrics.Metrics``.

    A number that is not finite is null. The last four keys are there where the importance-weighted bound was asked for.
    """

    split: str
    images: int
    samples: int
    bpd: float | None
    bpd_mc_error: float | None
    bpd_median_image: float
    kl: float
    active_units: int
    latent_dim: int
    saturated_fraction: float | None
    mse_mean_decoded: float
    mse_sampled: float
    mse_sampled_clamped: float
    importance_samples: NotRequired[int]
    importance_weighted_bpd: NotRequired[float | None]
    importance_weighted_mc_error: NotRequired[float | None]
    effective_samples: NotRequired[float]


class Result(TypedDict):
    """``result.json``: how a training ended.

    Attributes:
        status: Whether the run finished or diverged.
        diverged_epoch: Epoch in which it diverged.
        epochs: Epochs trained.
        selection: Metrics of the final weights on the images to select on; null for a diverged run.
        flattened: Whether the curve has stopped falling, see ``settings.FLATTENED_TOLERANCE``.
        threshold_bpd: The setting of that name.
        epochs_to_threshold: First evaluated epoch at or under that threshold.
    """

    status: Literal["finished", "diverged"]
    diverged_epoch: int | None
    epochs: int
    selection: Metrics | None
    flattened: bool
    threshold_bpd: float | None
    epochs_to_threshold: int | None


class CurveEntry(TypedDict):
    """A line of ``curve.jsonl``: one epoch of a training.

    Attributes:
        epoch: Epochs done.
        alpha: Weight of the silent gradient in the epoch's last step.
        frozen: Whether the encoder was frozen.
        train_bpd: Bits/dim of the training images, averaged over the epoch's steps.
        train_kl: Likewise.
        guide_bpd: Bits/dim of the linear decoder that guides; null in an epoch without a guide.
        selection_bpd: Bits/dim of the images to select on; null in an epoch that was not evaluated.
        selection_kl: Likewise.
    """

    epoch: int
    alpha: float
    frozen: bool
    train_bpd: float | None
    train_kl: float | None
    guide_bpd: float | None
    selection_bpd: float | None
    selection_kl: float | None


class GradientVariance(TypedDict):
    """Variance of the gradient at one snapshot, by estimator: of the ``batch_mean`` and the ``per_image_mean``."""

    epoch: int
    images: int
    draws: int
    estimators: dict[str, dict[str, float]]


class Evaluation(TypedDict):
    """``evaluation.json``: the evaluation of a selected run.

    Attributes:
        asked: ``manifests.evaluation_id``.
        settings: ``EvaluationSettings`` as JSON.
        report: Metrics on the images to report on; null for a diverged run.
        train: Metrics on training images; likewise.
        limit: The fields of ``silent_gradients.evaluation.limits.Limit``; null where no limit is known.
        gradient_variance: One entry per snapshot.
        reconstructions_sha256: Digest of ``reconstructions.npz``; null where there is none.
        sha256: Digest of all other entries.
    """

    asked: str
    settings: dict[str, int]
    report: Metrics | None
    train: Metrics | None
    limit: dict[str, float] | None
    gradient_variance: list[GradientVariance]
    reconstructions_sha256: str | None
    sha256: str


class Source(TypedDict):
    """Git revision of the source and whether its files differ from that revision; nulls outside a checkout."""

    revision: str | None
    modified: bool | None


class Provenance(TypedDict):
    """``provenance.json``: what made a run.

    Attributes:
        started: Time at which the last attempt began, ISO 8601.
        finished: Time at which the training ended.
        seconds: Seconds of training, over all attempts.
        images_per_second: Training images per second of training.
        device: ``cpu`` or ``cuda``.
        hardware: Name of the device.
        threads: CPU threads that torch used.
        versions: Version by package.
        source: The source code.
    """

    started: str
    finished: str
    seconds: float
    images_per_second: float | None
    device: str
    hardware: str
    threads: int
    versions: dict[str, str]
    source: Source


class Identity(TypedDict):
    """``record.json``: the seal of a finished run.

    Attributes:
        id: The run's id.
        name: The run's name in the store.
        numerics_version: ``settings.NUMERICS_VERSION`` at the time.
        files: SHA-256 by file name, of all other files but the evaluation's.
        result_sha256: Digest of settings, curve and result.
        replaces: ``result_sha256`` of every earlier training whose place the run took.
    """

    id: str
    name: str
    numerics_version: int
    files: dict[str, str]
    result_sha256: str
    replaces: list[str]


class Progress(TypedDict):
    """``progress.json``: how far a run in training is.

    Attributes:
        epoch: Epochs done.
        share: Steps done over all steps.
        images_per_second: Present speed; null before it is known.
        seconds_left: Wall time to the end at that speed.
        seconds: Seconds of training so far.
    """

    epoch: int
    share: float
    images_per_second: float | None
    seconds_left: float | None
    seconds: float


class Member(TypedDict):
    """A run in a pack's manifest.

    Attributes:
        name: The run's name in the store.
        id: The run's id.
        result_sha256: Digest of settings, curve and result.
        evaluation_sha256: Digest of ``evaluation.json``; null where the pack asks for no evaluation.
        status: Whether the run finished or diverged.
    """

    name: str
    id: str
    result_sha256: str
    evaluation_sha256: str | None
    status: Literal["finished", "diverged"]


class Manifest(TypedDict):
    """A pack's manifest, the declared output of its job.

    Attributes:
        pack: The pack's id.
        round: The pack's round.
        group: ``data set/experiment``.
        members: The pack's runs in order.
    """

    pack: str
    round: str
    group: str
    members: list[Member]


class Selected(TypedDict):
    """What was selected in a cell.

    Attributes:
        status: ``diverged`` where every grid point diverged; the point is then the first.
        point: The grid point: value by axis.
        run: Name of the point's run.
        bpd: Its final bits/dim; null for a diverged run.
        configurations: Number of different runs that were compared.
        diverged: How many of them diverged.
    """

    status: Literal["selected", "diverged"]
    point: dict[str, float | None]
    run: str
    bpd: float | None
    configurations: int
    diverged: int


class Selection(TypedDict):
    """The selection after a grid round of a group.

    Attributes:
        round: The grid round.
        group: ``data set/experiment``.
        id: ``Plan.selection_id``.
        cells: What was selected, by cell name.
    """

    round: str
    group: str
    id: str
    cells: dict[str, Selected]


class Gathered(TypedDict):
    """The marker of a gathering.

    Attributes:
        plan: ``Plan.id``.
        sources: Digest of the report's source code.
        files: SHA-256 of every gathered file, by path below the results.
        runs: SHA-256 of every gathered run's ``record.json``, by name.
    """

    plan: str
    sources: str
    files: dict[str, str]
    runs: dict[str, str]


class KeptLimit(TypedDict):
    """A file of ``results/limits``.

    Attributes:
        made_from: What the limit was computed from.
        limit: The fields of ``silent_gradients.evaluation.limits.Limit``.
        sha256: Digest of the other two.
    """

    made_from: dict[str, Any]
    limit: dict[str, float]
    sha256: str
