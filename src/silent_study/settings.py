"""The resolved settings of one run.

A run's settings are everything that decides its result, as plain data. The plan passes them as JSON to the training
process, which writes them into the run's folder; their hash is the run's id. Standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

NUMERICS_VERSION = 4
"""Version of the numerics, raised by hand when a change of the code alters the results of unchanged settings."""

FLATTENED_TOLERANCE = 0.005
"""A curve has flattened if its last tenth is, on average, less than this many bits/dim below the tenth before."""

Experiment = Literal["fixed", "learnable", "log-linear", "two-layer"]
PosteriorFamily = Literal["gaussian", "bernoulli"]
Architecture = Literal["plain", "strided"]
Initialization = Literal["standardized", "torch"]
Precision = Literal["float32", "tf32", "bfloat16"]
GuideDecoder = Literal["linear", "log-linear", "quadratic"]
GuideRole = Literal["only", "annealed", "control"]
Activation = Literal["square", "cosine"]
PixelVariances = Literal["fixed", "learned"]
LogTerm = Literal["auto", "taylor-square", "taylor", "exact", "central-limit"]
Protocol = Literal["holdout", "paper"]


class SettingsError(ValueError):
    """An impossible setting; the message names the setting, its value and how to fix it."""


@dataclass(frozen=True)
class ExperimentTraits:
    """What distinguishes an experiment from the others."""

    title: str  # in tables, figures and the report
    decoder: Literal["linear", "log-linear", "two-layer", "convolutional"]  # the reported one; linear: a fixed variance
    axes: tuple[str, ...]  # grid axes of encoder and reported decoder; methods with a guide add the guide's
    in_paper: bool = True

    @property
    def exact(self) -> bool:
        """True if the expected log-likelihood of the reported decoder is known, without sampling."""
        return self.decoder != "convolutional"

    @property
    def fixed_variance(self) -> bool:
        """True if the reported decoder is linear with one fixed variance: probabilistic PCA is its limit."""
        return self.decoder == "linear"

    @property
    def constant_variance(self) -> bool:
        """True if the variances of the likelihood are the same for every image."""
        return self.decoder in ("linear", "two-layer")


EXPERIMENTS: Mapping[str, ExperimentTraits] = {
    "fixed": ExperimentTraits("fixed variance", "linear", ("learning_rate", "mean_rate", "variance")),
    "learnable": ExperimentTraits("learnable variance", "convolutional", ("learning_rate",)),
    "log-linear": ExperimentTraits(
        "log-linear precision", "log-linear", ("learning_rate", "mean_rate", "precision_rate"), in_paper=False
    ),
    "two-layer": ExperimentTraits(
        "two-layer decoder", "two-layer", ("learning_rate", "mean_rate", "variance"), in_paper=False
    ),
}
"""The experiments in the order of the report."""


@dataclass(frozen=True)
class ArchitectureTraits:
    """How many channels a network architecture names, and height and width of its images; ``None`` accepts any."""

    encoder_channels: int
    decoder_channels: int
    image_size: tuple[int, int] | None = None


ARCHITECTURES: Mapping[str, ArchitectureTraits] = {
    "plain": ArchitectureTraits(3, 5),
    "strided": ArchitectureTraits(4, 4, (32, 32)),
}
"""The networks of Tables 5 and 6 (plain), and of Tables 7 and 8 (strided) of the paper."""


@dataclass(frozen=True)
class DataSettings:
    """A prepared data set and the part of it that a run trains on.

    The protocol ``holdout`` trains without the last ``holdout`` training images, which select; ``paper`` trains on all
    of them and selects on the test images.
    """

    name: str
    sha256: str  # of the prepared arrays
    shape: tuple[int, int, int]  # (C, H, W)
    levels: int  # number of grey levels; pixels are integers in [0, levels)
    protocol: Protocol
    holdout: int

    @property
    def dimensions(self) -> int:
        """Number D of pixels times channels."""
        channels, height, width = self.shape
        return channels * height * width


@dataclass(frozen=True)
class NetworkSettings:
    """Sizes of the encoder and of the nonlinear decoder.

    ``plain`` are the networks of Tables 5 and 6 of the paper, ``strided`` the networks of Tables 7 and 8.
    """

    architecture: Architecture
    encoder_channels: tuple[int, ...]
    decoder_channels: tuple[int, ...]


@dataclass(frozen=True)
class SilentSettings:
    """The silent (exact) gradient of a linear decoder that guides the encoder; paper Section 4.2.

    In the role ``only`` the guide's gradient alone trains the encoder (the "None" rows) until it is frozen.
    ``annealed`` mixes it with the reported decoder's. A ``control`` is the estimator's control variate alone.
    """

    role: GuideRole
    sampled: bool  # the guide's gradient is estimated like the reported decoder's instead of computed exactly
    plateau_epochs: float  # with weight 1, before the annealing begins (annealed only)
    annealing_rate: float  # decrease of the weight per epoch after the plateau (annealed only)
    cutoff_epoch: int | None  # after which the encoder is frozen; None is never
    mean_rate: float  # learning rate of the linear decoder's mean part
    precision_rate: float  # and of its precision part
    guide: GuideDecoder  # a decoder with a linear or log-linear precision, or a quadratic one of two layers
    log_term: LogTerm  # how E log|s| is computed (linear only)


@dataclass(frozen=True)
class EvaluationSettings:
    """How selected runs are evaluated; not part of a run's id, since it changes no training."""

    samples: int  # latent samples per image
    variance_images: int  # in the fixed batch of the gradient variance
    variance_draws: int  # latent draws of the gradient variance
    reconstructions: int  # images reconstructed for the figures
    importance_samples: int = 0  # latent samples per image of the importance-weighted bound; 0 is none

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> EvaluationSettings:
        """Rebuild settings from JSON data; raises ``SettingsError`` on a missing or unknown key."""
        return _build(cls, document, "evaluation")


@dataclass(frozen=True)
class RunSettings:
    """Everything that decides the result of one run.

    A field with a default was added after runs had been stored. Its default is not written, so these keep their ids.
    """

    experiment: Experiment
    method: str
    data: DataSettings
    posterior: PosteriorFamily
    latent_dim: int
    network: NetworkSettings
    initialization: Initialization
    precision: Precision  # of the nonlinear networks in training; evaluation and the analytic heads are float32
    estimator: str  # of the reported decoder's gradient; ``none`` if the silent guide alone trains the encoder
    estimator_options: dict[str, float]
    silent: SilentSettings | None
    variance: float | None  # fixed one of the likelihood (fixed and two-layer); None if variances are learned
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float  # of encoder and reported decoder; of the encoder alone if the decoder is exact
    mean_rate: float | None  # of an exact decoder's mean part, or of a whole two-layer one
    precision_rate: float | None  # of the reported decoder's precision part (log-linear only)
    betas: tuple[float, float]
    weight_decay: float
    gradient_clip: float | None  # largest global gradient norm of an optimizer's parameters; None is no clipping
    evaluate_every: int
    evaluation_samples: int
    snapshot_epochs: tuple[int, ...]  # after which the weights are kept for the gradient variance
    threshold_bpd: float | None  # the epochs until the selection bound reaches it are counted; None counts none
    cooldown_epochs: float = 0.0  # the last ones, in which all learning rates fall linearly to 0
    kl_warmup_epochs: float = 0.0  # the first ones, in which the weight of the KL divergence rises linearly to 1
    last_layer_scale: float = 0.1  # on the initial weights of the nonlinear decoder's last layer (standardized only)
    activation: Activation | None = None  # of the hidden units of a reported two-layer decoder
    hidden_units: int | None = None  # of a two-layer decoder or guide

    @property
    def cell(self) -> str:
        """Name of the cell that the run belongs to: ``data set/experiment/method``."""
        return f"{self.data.name}/{self.experiment}/{self.method}"

    @property
    def unfrozen_epochs(self) -> int:
        """Epochs before the cut-off, after which the encoder is frozen; all of them without one."""
        cutoff = None if self.silent is None else self.silent.cutoff_epoch
        return self.epochs if cutoff is None else min(cutoff, self.epochs)

    def rate_factor(self, epochs_done: float) -> float:
        """Return the factor of every learning rate after ``epochs_done`` epochs: 1, in the cooldown falling to 0."""
        return min(1.0, (self.epochs - epochs_done) / self.cooldown_epochs) if self.cooldown_epochs else 1.0

    @property
    def without_cutoff(self) -> RunSettings:
        """The same settings without a cut-off; runs that agree in them train alike until the first one's cut-off."""
        if self.silent is None:
            return self
        return dataclasses.replace(self, silent=dataclasses.replace(self.silent, cutoff_epoch=None))

    # Cached, like the id: plans of thousands of runs use them many times.
    @cached_property
    def name(self) -> str:
        """Name in the run store: the cell, the values that distinguish runs for readers, and the id."""
        parts = {"lr": self.learning_rate, "mean": self.mean_rate}
        parts |= {"precision": self.precision_rate, "var": self.variance}
        if self.silent is not None:
            parts |= {"mean": self.silent.mean_rate, "precision": self.silent.precision_rate}
            parts |= {"anneal": self.silent.annealing_rate if self.silent.role == "annealed" else None}
            parts |= {"cutoff": self.silent.cutoff_epoch}
        parts["seed"] = self.seed
        readable = ",".join(f"{key}={value:.16g}" for key, value in parts.items() if value is not None)
        return f"{self.cell}/{readable}-{self.id}"

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON-ready data; ``from_json`` reads them back."""
        return json.loads(json.dumps(self._document()))

    def _document(self) -> dict[str, Any]:
        values = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {
            field.name: vars(value) if dataclasses.is_dataclass(value) else value
            for field, value in values
            if value != field.default
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> RunSettings:
        """Rebuild settings from ``to_json``'s data.

        Raises:
            SettingsError: A key is missing or unknown.
        """
        return _build(cls, document, "run")

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits that change with any setting, with the data and with ``NUMERICS_VERSION``."""
        document = {"settings": self._document(), "numerics_version": NUMERICS_VERSION}
        return digest(document)[:12]


def digest(document: Any) -> str:
    """Return the SHA-256 (hex) of a JSON document in its canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_json_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Read a JSON object; raises ``SettingsError``, which names ``where``, for anything else."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{where}: invalid JSON ({error})") from None
    if not isinstance(document, dict):
        raise SettingsError(f"{where}: expected a JSON object, got {type(document).__name__}")
    return document


_NESTED = {"data": DataSettings, "network": NetworkSettings, "silent": SilentSettings}
"""Classes of the settings of a run that have settings of their own."""


def _build(cls: type, document: dict[str, Any], where: str) -> Any:
    known = {field.name: field.default for field in dataclasses.fields(cls)}
    missing = sorted(name for name in known.keys() - document.keys() if known[name] is dataclasses.MISSING)
    if missing or document.keys() - known.keys():
        unknown = sorted(document.keys() - known.keys())
        raise SettingsError(f"{where} settings: missing keys {missing}, unknown keys {unknown}")
    values = {}
    for name, value in document.items():
        if name in _NESTED and value is not None:
            value = _build(_NESTED[name], value, f"{where}.{name}")
        values[name] = tuple(value) if isinstance(value, list) else value
    return cls(**values)
