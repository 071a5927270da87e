"""Keys, types, defaults and descriptions of the settings."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
)
from pydantic_core import PydanticCustomError

from silent_study import settings
from silent_study.data.errors import DataError
from silent_study.data.prepare import PREPARED, RAW
from silent_study.data.source import Source
from silent_study.data.sources import source_named
from silent_study.data.sources.own import OwnImages, own_source
from silent_study.methods import Method
from silent_study.params.errors import TRUTH_VALUE, validated
from silent_study.params.overlay import laid_over

_DURATION = re.compile(r"(\d+):([0-5]\d):([0-5]\d)")


def _minutes(value: Any) -> Any:
    """Convert a text, a number or ``h:mm:ss``, to minutes; leave everything else as it is."""
    if not isinstance(value, str):
        return value
    if parts := _DURATION.fullmatch(value):
        return 60 * int(parts[1]) + int(parts[2]) + int(parts[3]) / 60
    try:
        return float(value)
    except ValueError:
        raise PydanticCustomError("duration", "expected minutes, or hours as a text 'h:mm:ss'") from None


Rate = PositiveFloat
Seed = Annotated[int, Field(ge=0, le=2**53)]  # of the whole numbers that tables of floating-point ones can hold
PathText = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]
Minutes = Annotated[PositiveFloat, BeforeValidator(_minutes)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any) -> Any:
        # YAML reads yes, no, on and off as truth values, which would pass for the numbers 1 and 0.
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, part in ((None, value), *parts):
            if isinstance(part, bool):
                raise PydanticCustomError(TRUTH_VALUE, "no setting is a truth value", {"key": key, "value": part})
        return value


class GridParams(_Strict):
    """Values to try, in every combination."""

    learning_rate: list[Rate] = Field(min_length=1, description="Learning rate of encoder and reported decoder.")
    variance: list[PositiveFloat] = Field([0.01], min_length=1, description="Fixed variance (fixed, two-layer).")
    mean_rate: list[Rate | None] = Field(
        [None],
        min_length=1,
        description="Learning rate of the linear or two-layer decoder's mean; null: learning_rate.",
    )
    precision_rate: list[Rate | None] = Field(
        [None], min_length=1, description="Learning rate of the linear decoder's precision; null: learning_rate."
    )
    annealing_rate: list[PositiveFloat] = Field(
        [0.02], min_length=1, description="Decrease of alpha per epoch (annealed methods)."
    )
    cutoff_epoch: list[PositiveInt | None] = Field(
        [None], min_length=1, description="Epoch after which the encoder is frozen; null: never."
    )


class NetworkParams(_Strict):
    """Sizes of the networks of Tables 5 and 6 (plain) or 7 and 8 (strided)."""

    architecture: settings.Architecture = Field(description="plain accepts images of every size, strided only 32x32.")
    encoder_channels: list[PositiveInt] = Field(description="Three (plain) or four (strided).")
    decoder_channels: list[PositiveInt] = Field(
        description="Five (plain) or four (strided); unused where the decoder is exact."
    )


class ExperimentParams(_Strict):
    """One experiment on one data set."""

    methods: list[str] = Field(min_length=1, description="Methods to compare.")
    overrides: dict[str, dict[str, Any]] = Field({}, description="By method: keys of this section with other values.")
    epochs: PositiveInt = Field(description="Passes through the training images.")
    batch_size: PositiveInt = Field(description="Images per step, or all if fewer; incomplete batches are dropped.")
    latent_dim: PositiveInt = Field(description="Number k of latent variables.")
    network: NetworkParams = Field(description="Sizes of the networks.")
    initialization: settings.Initialization = Field("standardized", description="Initial weights; torch: PyTorch's.")
    precision: settings.Precision = Field(
        "float32", description="Arithmetic of the networks in training; all else is float32."
    )
    guide: settings.GuideDecoder = Field("linear", description="Form of the guide; the paper's is linear.")
    log_term: settings.LogTerm = Field(
        "taylor-square", description="E log|s| of a linear guide; taylor-square is the paper's."
    )
    plateau_epochs: float = Field(0.0, ge=0, description="Epochs before annealing.")
    estimator_options: dict[str, float] = Field(
        {}, description="Options such as samples: 2, for the estimators that have them."
    )
    cooldown_epochs: float = Field(0.0, ge=0, description="Last epochs, in which learning rates fall linearly to 0.")
    kl_warmup_epochs: float = Field(0.0, ge=0, description="First epochs, in which the KL weight rises linearly to 1.")
    last_layer_scale: PositiveFloat = Field(
        0.1, description="Factor on the nonlinear decoder's initial last layer (standardized)."
    )
    activation: settings.Activation = Field("square", description="Activation of a two-layer decoder.")
    hidden_units: PositiveInt = Field(64, description="Hidden units of a two-layer decoder or quadratic guide.")
    pixel_variances: settings.PixelVariances = Field(
        "fixed", description="Variance of a two-layer decoder: the grid's, or learned per pixel."
    )
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="Betas of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay of AdamW.")
    gradient_clip: PositiveFloat | None = Field(None, description="Largest gradient norm per optimizer; null is none.")
    evaluate_every: PositiveInt = Field(1, description="Epochs between evaluations on the selection split.")
    evaluation_samples: PositiveInt = Field(4, description="Latent samples per image in those evaluations.")
    snapshot_epochs: list[PositiveInt] = Field([], description="Epochs at which gradient variance is measured.")
    threshold_bpd: PositiveFloat | None = Field(None, description="Bits/dim whose first epoch is reported.")
    holdout: PositiveInt | None = Field(None, description="Training images set aside to select; null is the set's own.")
    grid: GridParams = Field(description="Values to try.")
    shared_axes: list[str] = Field([], description="Axes whose value is selected jointly over all methods.")

    def options_of(self, method: Method) -> dict[str, float]:
        """Return the options of a method's estimator, set or by default."""
        chosen = {**method.options, **self.estimator_options}
        return {option: float(chosen[option]) for option in method.options}


class EvaluationParams(_Strict):
    """How selected runs are evaluated."""

    samples: PositiveInt = Field(16, description="Latent samples per image.")
    variance_images: PositiveInt = Field(64, description="Images of the gradient variance's fixed batch.")
    variance_draws: int = Field(100, ge=2, description="Latent draws of the gradient variance.")
    reconstructions: PositiveInt = Field(10, description="Images reconstructed for the figures.")
    importance_samples: int = Field(
        0, ge=0, description="Latent samples per image of the importance-weighted bound; 0 is none."
    )

    def resolved(self) -> settings.EvaluationSettings:
        """Convert to the settings that the training process reads."""
        return settings.EvaluationSettings(**self.model_dump())


class ExecutionParams(_Strict):
    """How the work is cut into jobs, and how training steps are executed.

    Nothing here changes a run's id. ``stack`` and ``steps`` change rounding, which a learnable variance amplifies to
    the size of a change of seed.
    """

    runs_per_pack: Annotated[int, Field(ge=1, le=64)] = Field(8, description="Most runs that one job trains.")
    workers: PositiveInt = Field(8, description="Minimum number of jobs that each round of an experiment is cut into.")
    packs: Literal["group", "cell"] = Field(
        "group", description="Runs of one job: of a data set and experiment (`group`), or of one method (`cell`)."
    )
    checkpoint_seconds: PositiveFloat = Field(30.0, description="Minimum wall time between checkpoints.")
    stack: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Maximum number of runs trained side by side: stacked runs of a cell, or on streams."
    )
    steps: Literal["graph", "streams", "eager"] = Field(
        "graph",
        description="On a GPU CUDA graphs, graphs of several runs on streams, or eager calls; elsewhere eager calls.",
    )
    tensorboard: PathText | None = Field(None, description="Folder for TensorBoard events of the curves.")
    time_limit: Minutes | None = Field(
        None, description="Minutes, or a text 'h:mm:ss', before which a job stops at a checkpoint."
    )


class OwnImagesParams(_Strict):
    """A data set of own images."""

    path: str = Field(min_length=1, description="A folder of images, or an npz or npy file of uint8 arrays.")
    title: str | None = Field(None, description="Name in tables and figures; null is the name of the set.")
    test: float | None = Field(
        None, gt=0, lt=1, description="Fraction of test images; null: 0.1, or the images' own split."
    )
    seed: Seed = Field(0, description="Seed of the order of the images, and so of the split.")
    levels: int = Field(256, ge=2, le=256, description="Number of grey levels; pixels are 0 to levels - 1.")
    size: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="Height and width to crop and resize image files to."
    )
    channels: Literal[1, 3] | None = Field(None, description="Convert image files to grey (1) or RGB (3).")

    def resolved(self) -> OwnImages:
        """Convert to the settings that the preparation of data reads."""
        return OwnImages(**self.model_dump())


class DataParams(_Strict):
    """Where data come from and go to."""

    mirror: PathText | None = Field(None, description="Folder or http(s) address to read the raw files from.")
    substitute: dict[str, str] = Field({}, description="By data set: one that replaces it, under its own name.")
    sets: dict[str, OwnImagesParams] = Field({}, description="Own images by name of the data set.")


class Params(_Strict):
    """The whole of params.yaml over its preset."""

    preset: str = Field(description="Name of a file in presets/.")
    protocol: settings.Protocol = Field(
        "holdout", description="Images to select on: held-out training images, or the test images (paper)."
    )
    seeds: list[Seed] = Field(min_length=1, description="Seeds of the selected points.")
    grid_seed: Seed | None = Field(None, description="Seed of the grid; null is the first of `seeds`.")
    experiments: dict[settings.Experiment, dict[str, ExperimentParams]] = Field(
        description="fixed, learnable, log-linear and two-layer; in each, a section per data set."
    )
    evaluation: EvaluationParams = Field(EvaluationParams(), description="How selected runs are evaluated.")
    execution: ExecutionParams = Field(ExecutionParams(), description="How the work is cut into jobs.")
    data: DataParams = Field(DataParams(), description="Where data come from, and own images.")

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The data sets of the experiments by name; raises ``SettingsError`` if own images make none."""
        names = {dataset for datasets in self.experiments.values() for dataset in datasets}
        return {name: source_in(name, self.data.sets, keep=False) for name in sorted(names)}

    def own_set(self, name: str) -> str:
        """Return the settings of one data set of own images as JSON for ``source_of``."""
        return json.dumps({"data": {"sets": {name: self.data.sets[name].model_dump(mode="json")}}}, sort_keys=True)

    def for_method(self, experiment: settings.Experiment, dataset: str, method: str) -> ExperimentParams:
        """Return an experiment's settings with the overrides of a method."""
        section = self.experiments[experiment][dataset]
        return with_overrides(section, method, f"experiments.{experiment}.{dataset}")


def source_in(name: str, sets: Mapping[str, OwnImagesParams], *, keep: bool) -> Source:
    """Return a data set of the package, or one of the user's own images; ``keep`` as of ``own_source``."""
    if name not in sets:
        return source_named(name)
    try:
        return own_source(name, sets[name].resolved(), RAW, PREPARED / name, keep=keep)
    except DataError as error:
        raise settings.SettingsError(str(error)) from None


def with_overrides(section: ExperimentParams, method: str, where: str) -> ExperimentParams:
    """Return an experiment's settings, with the overrides of one of its methods laid over them."""
    override = section.overrides.get(method)
    if not override:
        return section
    if forbidden := sorted({"methods", "overrides", "network", "latent_dim", "holdout", "shared_axes"} & set(override)):
        raise settings.SettingsError(f"{where}.overrides.{method}: {forbidden} hold for all methods and cannot differ")
    grid = override.get("grid")
    if isinstance(grid, Mapping) and (differing := sorted(set(section.shared_axes) & set(grid))):
        raise settings.SettingsError(f"{where}.overrides.{method}.grid: {differing} are shared_axes and cannot differ")
    merged = laid_over(section.model_dump(), override)
    return validated(ExperimentParams, merged, f"{where}.overrides.{method}")
