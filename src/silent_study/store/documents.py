"""The JSON files that rooms of the study share.

Types alone: ``runs.read_json`` reads a file and ``runs.write_json`` writes one. Files that a class reads and writes are
not here: ``settings.json`` is ``settings.RunSettings``, a pack is ``packs.PackSpec``, ``pace.json`` is
``jobs.pace.Pace``, a prepared data set is ``data.prepared.PreparedData``.

Units: bits/dim; Kullback-Leibler divergences in nats per image; squared errors summed over dimensions. Digests are
SHA-256. A group is ``data set/experiment``.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

Status = Literal["finished", "diverged"]


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
    """``result.json``: how a training ended."""

    status: Status
    diverged_epoch: int | None
    epochs: int  # trained
    selection: Metrics | None  # of the final weights on the images to select on; null for a diverged run
    flattened: bool  # whether the curve has stopped falling, see ``settings.FLATTENED_TOLERANCE``
    threshold_bpd: float | None
    epochs_to_threshold: int | None  # first evaluated epoch at or under the threshold


class CurveEntry(TypedDict):
    """A line of ``curve.jsonl``: one epoch of a training."""

    epoch: int  # epochs done
    alpha: float  # weight of the silent gradient in the epoch's last step
    frozen: bool  # whether the encoder was frozen
    train_bpd: float | None  # averaged over the epoch's steps, like ``train_kl``
    train_kl: float | None
    guide_bpd: float | None  # of the linear decoder that guides; null in an epoch without a guide
    selection_bpd: float | None  # on the images to select on; null in an epoch that was not evaluated
    selection_kl: float | None


class GradientVariance(TypedDict):
    """Variance of the gradient at one snapshot, by estimator: of the ``batch_mean`` and the ``per_image_mean``."""

    epoch: int
    images: int
    draws: int
    estimators: dict[str, dict[str, float]]


class Measured(TypedDict):
    """What the evaluation of a selected run measures."""

    report: Metrics | None  # on the images to report on; null for a diverged run, like ``train``
    train: Metrics | None
    limit: dict[str, float] | None  # ``silent_gradients.evaluation.limits.Limit``; null where no limit is known
    gradient_variance: list[GradientVariance]  # one entry per snapshot
    code: Code  # of the evaluation


class Evaluation(Measured):
    """``evaluation.json``."""

    asked: str  # digest of the settings and of the evaluated result
    settings: dict[str, int]  # ``EvaluationSettings``
    reconstructions_sha256: str | None  # of ``reconstructions.npz``
    sha256: str  # of all other entries


class Source(TypedDict):
    """Git revision of the source and whether its files differ from that revision; nulls outside a checkout."""

    revision: str | None
    modified: bool | None


class Code(TypedDict):
    """``code.json``: the source code that a run depends on, as digests of its content, see ``store/code.py``."""

    digest: str  # 16 hexadecimal digits; the files that definitions stand in do not matter
    files: dict[str, str]  # such digits by file of the packages, of the definitions in it


class Acceptance(TypedDict):
    """An entry of ``accepted.json``: source codes that a user has declared to compute the same numbers."""

    codes: list[str]  # digests
    reason: str
    accepted: str  # when, ISO 8601


class Provenance(TypedDict):
    """``provenance.json``: what made a run."""

    started: str  # when the last attempt began, ISO 8601
    finished: str
    seconds: float  # of training, over all attempts
    images_per_second: float | None  # of training
    device: str  # ``cpu`` or ``cuda``
    hardware: str  # name of the device
    threads: int  # CPU threads that torch used
    float32: dict[str, str | None]  # how torch computed it outside the parts that the run's precision shortens
    versions: dict[str, str]  # by package
    source: Source


class Identity(TypedDict):
    """``record.json``: the seal of a finished run."""

    id: str
    name: str
    numerics_version: int  # ``settings.NUMERICS_VERSION`` at the time
    files: dict[str, str]  # digests by file name, of all other files but the evaluation's
    result_sha256: str  # of settings, curve and result
    replaces: list[str]  # ``result_sha256`` of every earlier training whose place the run took


class Progress(TypedDict):
    """``progress.json``: how far a run in training is."""

    epoch: int  # epochs done
    share: float  # steps done over all steps
    images_per_second: float | None  # present speed
    seconds_left: float | None  # at that speed
    seconds: float  # of training so far


class Member(TypedDict):
    """A run in a pack's manifest."""

    name: str
    id: str
    result_sha256: str  # as in ``Identity``
    evaluation_sha256: str | None  # of ``evaluation.json``; null where the pack asks for no evaluation
    status: Status


class Manifest(TypedDict):
    """A pack's manifest, the declared output of its job."""

    pack: str  # the pack's id
    round: str
    group: str
    members: list[Member]  # in the pack's order


class Selected(TypedDict):
    """What was selected in a cell."""

    status: Literal["selected", "diverged"]  # ``diverged``: every grid point diverged, and ``point`` is the first
    point: dict[str, float | None]  # value by axis
    run: str  # name of the point's run
    bpd: float | None  # its final bits/dim; null for a diverged run
    configurations: int  # different runs that were compared
    diverged: int  # how many of them diverged


class Selection(TypedDict):
    """The selection after a grid round of a group."""

    round: str
    group: str
    id: str  # ``Plan.selection_id``
    cells: dict[str, Selected]  # by cell name


class Gathered(TypedDict):
    """The marker of a gathering."""

    plan: str  # ``Plan.id``
    sources: str  # digest of the report's source code
    files: dict[str, str]  # digest of every gathered file, by path below the results
    runs: dict[str, str]  # digest of every gathered run's ``record.json``, by name
