"""params.yaml over its preset: typed, validated settings of the whole workflow.

A preset is an overlay in ``presets/``; any of its keys may be set over it in params.yaml. Everything unknown, mistyped
or impossible is one ``SettingsError`` that names the key, its value and the way out.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, field_validator

from silent_gradients.data.errors import DataError
from silent_gradients.data.prepare import PREPARED, RAW
from silent_gradients.data.sources import SOURCES, source_named
from silent_gradients.data.sources.own import OwnImages, own_source
from silent_gradients.data.sources.source import Source
from silent_gradients.methods import METHODS, Method, axes
from silent_gradients.settings import (
    Architecture,
    EvaluationSettings,
    Experiment,
    GuideDecoder,
    Initialization,
    LogTerm,
    Precision,
    Protocol,
    SettingsError,
)

M = TypeVar("M", bound=BaseModel)
Rate = PositiveFloat
Seed = Annotated[int, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
_NAME = re.compile("[a-z][a-z0-9_]{0,39}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any) -> Any:
        # YAML reads yes, no, on and off as truth values, which would pass for the numbers 1 and 0.
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if any(isinstance(part, bool) for part in parts):
            raise ValueError("no setting is a truth value")
        return value


class GridParams(_Strict):
    """Values that are tried; every combination of the axes that concern a method is one grid point."""

    learning_rate: list[Rate] = Field(min_length=1, description="Rate of the encoder and of the reported decoder.")
    variance: list[PositiveFloat] = Field([0.01], min_length=1, description="Fixed variance (fixed only).")
    mean_rate: list[Rate | None] = Field(
        [None], min_length=1, description="Rate of the linear decoder's mean part; null is the learning rate."
    )
    precision_rate: list[Rate | None] = Field(
        [None], min_length=1, description="Rate of the linear decoder's precision part; null is the learning rate."
    )
    annealing_rate: list[PositiveFloat] = Field(
        [0.02], min_length=1, description="Decrease of the silent gradient's weight per epoch (annealed methods)."
    )
    cutoff_epoch: list[PositiveInt | None] = Field(
        [None], min_length=1, description="Epoch after which the encoder is frozen; null is never."
    )


class NetworkParams(_Strict):
    """Sizes of the networks of Tables 5 and 6 (plain) or 7 and 8 (strided)."""

    architecture: Architecture = Field(description="plain serves images of every size, strided those of 32x32.")
    encoder_channels: list[PositiveInt] = Field(description="Three (plain) or four (strided).")
    decoder_channels: list[PositiveInt] = Field(
        description="Five (plain) or four (strided); unused where the decoder is linear."
    )


class ExperimentParams(_Strict):
    """One experiment on one data set."""

    methods: list[str] = Field(min_length=1, description="Methods to compare.")
    overrides: dict[str, dict[str, Any]] = Field({}, description="By method: keys of this section set otherwise.")
    epochs: PositiveInt = Field(description="Passes through the training images.")
    batch_size: PositiveInt = Field(description="Images per step; those that do not fill a batch sit the epoch out.")
    latent_dim: PositiveInt = Field(description="Number k of latent variables.")
    network: NetworkParams = Field(description="Sizes of the networks.")
    initialization: Initialization = Field(
        "standardized", description="Starting values: outputs standardised and small last layers, or torch's defaults."
    )
    precision: Precision = Field(
        "float32",
        description="Arithmetic of the convolutions and of the nonlinear networks in training; evaluation and the "
        "analytic heads are float32.",
    )
    guide: GuideDecoder = Field("linear", description="Precision of the guide; linear is the paper's.")
    log_term: LogTerm = Field("taylor-square", description="E log|s| of a linear guide; taylor-square is the paper's.")
    plateau_epochs: float = Field(0.0, ge=0, description="Epochs with the silent gradient alone before annealing.")
    estimator_options: dict[str, float] = Field(
        {}, description="Options of estimators, e.g. samples: 2; each holds for the methods whose estimator has it."
    )
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="Of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW.")
    gradient_clip: PositiveFloat | None = Field(None, description="Largest gradient norm per optimizer; null is none.")
    evaluate_every: PositiveInt = Field(1, description="Epochs between evaluations on the selection split.")
    evaluation_samples: PositiveInt = Field(4, description="Latent samples per image in those evaluations.")
    snapshot_epochs: list[PositiveInt] = Field([], description="Epochs at which gradient variance is measured.")
    threshold_bpd: PositiveFloat | None = Field(None, description="Bits/dim whose first epoch is reported.")
    holdout: PositiveInt | None = Field(None, description="Training images set aside to select; null is the set's own.")
    grid: GridParams = Field(description="Values that are tried.")
    shared_axes: list[str] = Field([], description="Axes whose value is selected jointly over all methods.")

    def options_of(self, method: Method) -> dict[str, float]:
        """The options of a method's estimator, set or by default."""
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

    def resolved(self) -> EvaluationSettings:
        """As the training process reads it."""
        return EvaluationSettings(**self.model_dump())


class ExecutionParams(_Strict):
    """How the work is cut into jobs; nothing here changes a result."""

    runs_per_pack: Annotated[int, Field(ge=1, le=64)] = Field(8, description="Most runs that one job trains.")
    workers: PositiveInt = Field(8, description="Jobs that each round of an experiment is cut into at least.")
    checkpoint_seconds: PositiveFloat = Field(30.0, description="Wall time between checkpoints, at least.")
    stack: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Most runs of a cell that are trained in one stack, which pays for small networks; 1 is none."
    )
    steps: Literal["graph", "eager"] = Field(
        "graph", description="On a GPU, steps are captured as CUDA graphs, or eager calls; elsewhere they are eager."
    )
    tensorboard: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Folder to write the curves to as TensorBoard's events, too; null is nowhere."
    )
    time_limit: PositiveFloat | None = Field(
        None, description="Minutes before which a job stops at a checkpoint; the same command goes on. null is never."
    )


class OwnImagesParams(_Strict):
    """Own images as a data set."""

    path: str = Field(min_length=1, description="A folder of images, or an npz or npy file of uint8 arrays.")
    title: str | None = Field(None, description="What readers of tables and figures see; null is the name.")
    test: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Fraction of the images that are the test set; null is 0.1, or their own test set.",
    )
    seed: Seed = Field(0, description="Decides the order of the images, and so which of them are held out.")
    levels: int = Field(256, ge=2, le=256, description="Number of grey levels; pixels are 0 to levels - 1.")
    size: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="Height and width that image files are cropped and resized to; null takes them as they are."
    )
    channels: Literal[1, 3] | None = Field(
        None, description="Image files are converted to grey (1) or RGB (3); null takes them as they are."
    )

    def resolved(self) -> OwnImages:
        """As the data's preparation reads it."""
        return OwnImages(**self.model_dump())


class DataParams(_Strict):
    """Where data come from and go to."""

    mirror: str | None = Field(None, description="Folder or http(s) address to read the raw files from.")
    substitute: dict[str, str] = Field(
        {}, description="By data set: another one that takes its place in every experiment, under its own name."
    )
    sets: dict[str, OwnImagesParams] = Field({}, description="Own images by the name of their data set.")


class Params(_Strict):
    """The whole of params.yaml over its preset."""

    preset: str = Field(description="Name of a file in presets/.")
    protocol: Protocol = Field(
        "holdout", description="What selects: images held out of the training set, or the test images as in the paper."
    )
    seeds: list[Seed] = Field(min_length=1, description="Seeds of the selected points; the grid uses the first.")
    experiments: dict[Experiment, dict[str, ExperimentParams]] = Field(
        description="fixed, learnable and log-linear; in each, a section per data set."
    )
    evaluation: EvaluationParams = Field(EvaluationParams(), description="How selected runs are evaluated.")
    execution: ExecutionParams = Field(ExecutionParams(), description="How the work is cut into jobs.")
    data: DataParams = Field(DataParams(), description="Where data come from, and own images.")

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The data sets of the experiments by name.

        Raises:
            SettingsError: Own images are not there, cannot be read, or are none that a model can be trained on.
        """
        names = {dataset for datasets in self.experiments.values() for dataset in datasets}
        return {name: _source(name, self.data.sets) for name in sorted(names)}

    def own_set(self, name: str) -> str:
        """The settings of one own data set alone, as JSON; ``source_of`` reads them."""
        return json.dumps({"data": {"sets": {name: self.data.sets[name].model_dump(mode="json")}}}, sort_keys=True)

    def for_method(self, experiment: Experiment, dataset: str, method: str) -> ExperimentParams:
        """An experiment's settings with the method's overrides in place."""
        section = self.experiments[experiment][dataset]
        return _apply_overrides(section, method, f"experiments.{experiment}.{dataset}")


def load(path: Path = Path("params.yaml"), presets: Path | None = None) -> Params:
    """Read params.yaml and its preset.

    Args:
        path: The file.
        presets: Folder of the presets; by default the one beside ``path``.

    Raises:
        SettingsError: See ``resolve``; also for a missing file or one that is no YAML.
    """
    return resolve(read_yaml(path), presets or path.parent / "presets")


def resolve(own: Mapping[str, Any], presets: Path) -> Params:
    """Lay ``own`` (the content of params.yaml) over its preset and validate the whole.

    A text ``null`` counts as null: Snakemake's ``--config`` hands on what is inside of a value as text.

    Raises:
        SettingsError: A key is unknown or mistyped, or a value is impossible.
    """
    own = _with_nulls(own)
    name = own.get("preset")
    available = sorted(path.stem for path in presets.glob("*.yaml"))
    if name not in available:
        raise SettingsError(f"preset: expected one of {available}, got {name!r}{_nearest(str(name), available)}")
    merged = _substitute(_merge(read_yaml(presets / f"{name}.yaml"), own))
    _check_names(merged.get("experiments"), _known_datasets(merged))
    params = _validate(Params, merged, "")
    _check(params)
    return params


def source_of(name: str, own: Mapping[str, Any], presets: Path) -> Source:
    """A data set that settings may have an entry for, read without the rest of them.

    Args:
        name: The data set.
        own: The content of params.yaml.
        presets: Folder of the presets.

    Raises:
        SettingsError: Its entry cannot be, or its images cannot be read.
        DataError: There is no such data set.
    """
    preset = presets / f"{own.get('preset')}.yaml"
    document = _merge(read_yaml(preset), own) if preset.is_file() else own
    _known_datasets(document)
    data = document.get("data")
    sets = data.get("sets") if isinstance(data, Mapping) else None
    entry = sets.get(name) if isinstance(sets, Mapping) else None
    return _source(name, {} if entry is None else {name: _validate(OwnImagesParams, entry, f"data.sets.{name}")})


def _source(name: str, sets: Mapping[str, OwnImagesParams]) -> Source:
    if name not in sets:
        return source_named(name)
    try:
        return own_source(name, sets[name].resolved(), RAW, PREPARED / name)
    except DataError as error:
        raise SettingsError(str(error)) from None


def set_over_preset(own: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings that params.yaml sets over its preset, by dotted name."""
    found: dict[str, Any] = {}
    for key, value in own.items():
        if isinstance(value, Mapping):
            found |= set_over_preset(value, f"{prefix}{key}.")
        elif prefix or key != "preset":
            found[f"{prefix}{key}"] = value
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises ``SettingsError`` where the file is missing or holds something else."""
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: no text in UTF-8 ({error.reason} at byte {error.start})") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: no YAML ({_place(error)})") from error
    if not isinstance(document, dict):
        raise SettingsError(f"{path}: expected keys and values, got {type(document).__name__}")
    return document


def _place(error: yaml.YAMLError) -> str:
    """What is wrong with a YAML file, and where, in one line."""
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    what = ", ".join(part for part in parts if part) or str(error).replace("\n", " ")
    mark = getattr(error, "problem_mark", None)
    return what if mark is None else f"{what}, in line {mark.line + 1}, column {mark.column + 1}"


def _with_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_nulls(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_nulls(inner) for inner in value]
    return None if value == "null" else value


def _merge(below: Any, above: Any) -> Any:
    """``above`` laid over ``below``: mappings key by key, everything else replaced; null takes a mapping away."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    removed = {key for key, value in above.items() if value is None and isinstance(below.get(key), Mapping)}
    merged = {**below, **{key: _merge(below.get(key), value) for key, value in above.items()}}
    return {key: value for key, value in merged.items() if key not in removed}


def _substitute(document: dict[str, Any]) -> dict[str, Any]:
    """Put other data sets in the places of those that ``data.substitute`` names."""
    data, experiments = document.get("data"), document.get("experiments")
    names = data.get("substitute") if isinstance(data, Mapping) else None
    if not isinstance(names, Mapping) or not isinstance(experiments, Mapping):
        return document
    known = _known_datasets(document)
    for name in names:
        _require_known("data set", name, known, "data.substitute")
        _require_known("data set", names[name], known, f"data.substitute.{name}")
    renamed = {}
    for experiment, datasets in experiments.items():
        if isinstance(datasets, Mapping):
            if twice := sorted({names[name] for name in names if name in datasets and names[name] in datasets}):
                raise SettingsError(f"data.substitute: {twice[0]!r} already has a section in experiments.{experiment}")
            datasets = {names.get(name, name): section for name, section in datasets.items()}
        renamed[experiment] = datasets
    return {**document, "experiments": renamed}


def _apply_overrides(section: ExperimentParams, method: str, where: str) -> ExperimentParams:
    override = section.overrides.get(method)
    if not override:
        return section
    if forbidden := sorted({"methods", "overrides", "network", "latent_dim", "holdout", "shared_axes"} & set(override)):
        raise SettingsError(f"{where}.overrides.{method}: {forbidden} hold for all methods and cannot differ")
    grid = override.get("grid")
    if isinstance(grid, Mapping) and (differing := sorted(set(section.shared_axes) & set(grid))):
        raise SettingsError(f"{where}.overrides.{method}.grid: {differing} are shared_axes and cannot differ")
    merged = _merge(section.model_dump(), override)
    return _validate(ExperimentParams, merged, f"{where}.overrides.{method}")


def _validate(model: type[M], document: Mapping[str, Any], where: str) -> M:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        messages = [_message(model, detail, where) for detail in error.errors()]
        raise SettingsError("\n".join(messages)) from None


def _message(model: type[BaseModel], detail: Any, where: str) -> str:
    # A key with a line break or an escape sequence would spoil the message.
    location = [text if (text := str(part)).isprintable() else repr(text) for part in detail["loc"]]
    key = ".".join([*([where] if where else []), *location])
    if detail["type"] == "extra_forbidden":
        known = _keys_at(model, detail["loc"][:-1])
        return f"{key}: unknown key{_nearest(location[-1], known)}; known here: {', '.join(sorted(known))}"
    if detail["type"] == "missing":
        return f"{key}: missing; it has no default"
    return f"{key}: {detail['msg'][0].lower()}{detail['msg'][1:]}, got {detail['input']!r}"


def _keys_at(model: Any, location: tuple[Any, ...]) -> list[str]:
    """Keys of the nested model at a location; mappings of models are passed through."""
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[part].annotation
        elif get_args(model):
            model = get_args(model)[-1]
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _known_datasets(document: Mapping[str, Any]) -> list[str]:
    """The data sets of the package, and those that the settings name."""
    data = document.get("data")
    sets = data.get("sets") if isinstance(data, Mapping) else None
    own = list(sets) if isinstance(sets, Mapping) else []
    for name in own:
        if name in SOURCES:
            raise SettingsError(
                f"data.sets.{name}: a data set of that name comes with the package; choose another name"
            )
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise SettingsError(
                f"data.sets: {name!r} cannot be the name of a data set, which has at most 40 small letters, digits and "
                "underscores and begins with a letter"
            )
    return [*SOURCES, *own]


def _check_names(experiments: Any, known: list[str]) -> None:
    """Before all else: a misspelt section would lack every key that the one which was meant has."""
    for experiment, datasets in experiments.items() if isinstance(experiments, Mapping) else ():
        _require_known("experiment", experiment, list(METHODS), "experiments")
        for dataset in datasets if isinstance(datasets, Mapping) else ():
            _require_known("data set", dataset, known, f"experiments.{experiment}")


def _require_known(kind: str, name: Any, known: Collection[str], where: str) -> None:
    if name not in known:
        listed = list(known)
        raise SettingsError(
            f"{where}: unknown {kind} {name!r}{_nearest(str(name), listed)}; known: {', '.join(listed) or 'none'}"
        )


def _check(params: Params) -> None:
    """What no single field can know of itself."""
    if len(set(params.seeds)) != len(params.seeds):
        raise SettingsError(f"seeds: expected different numbers, got {params.seeds}")
    for experiment, datasets in params.experiments.items():
        for dataset, section in datasets.items():
            where = f"experiments.{experiment}.{dataset}"
            source = params.sources[dataset]
            if section.holdout is not None and section.holdout >= source.train:
                raise SettingsError(
                    f"{where}.holdout: {section.holdout} leaves none of the {source.train} training images to train on"
                )
            _check_methods(experiment, section, where)
            _check_network(section, source.shape, where, f"data.sets.{dataset}" if dataset in params.data.sets else "")
            for name in section.methods:
                method, own = METHODS[experiment][name], _apply_overrides(section, name, where)
                _check_epochs(own, f"{where} ({name})")
                linear = method.guide != "none" and own.guide == "linear"
                _check_options(method, own, f"{where}.estimator_options ({name})")
                if own.log_term == "exact" and linear and method.posterior != "gaussian":
                    raise SettingsError(
                        f"{where} ({name}): log_term 'exact' needs a gaussian posterior; use 'auto' or 'central-limit'"
                    )


def _check_options(method: Method, section: ExperimentParams, where: str) -> None:
    if not set(section.estimator_options) & set(method.options):
        return
    # Only here: the estimators load torch, which takes seconds.
    from silent_gradients.estimators import EstimatorError, create

    try:
        create(method.estimator, section.options_of(method))
    except EstimatorError as error:
        raise SettingsError(f"{where}: {error}") from None


def _check_methods(experiment: Experiment, section: ExperimentParams, where: str) -> None:
    known = METHODS[experiment]
    for method in section.methods:
        _require_known("method", method, known, f"{where}.methods")
        baseline = known[method].baseline
        if baseline is not None and baseline not in section.methods:
            raise SettingsError(f"{where}.methods: {method!r} takes its rate from {baseline!r}; list that as well")
    if len(set(section.methods)) != len(section.methods):
        raise SettingsError(f"{where}.methods: expected each method once, got {section.methods}")
    for method, override in section.overrides.items():
        if method not in section.methods:
            raise SettingsError(
                f"{where}.overrides: {method!r} is not among the methods{_nearest(method, section.methods)}"
            )
        concerning = axes(experiment, known[method])
        for axis in override.get("grid") or {}:
            if axis in GridParams.model_fields and axis not in concerning:
                raise SettingsError(
                    f"{where}.overrides.{method}.grid.{axis}: no axis of this method; it has {', '.join(concerning)}"
                )
        for option in override.get("estimator_options") or {}:
            _require_known("option", option, known[method].options, f"{where}.overrides.{method}.estimator_options")
    every_option = {option: None for method in section.methods for option in known[method].options}
    for option in section.estimator_options:
        _require_known("option", option, every_option, f"{where}.estimator_options")
    for axis in section.shared_axes:
        _require_known("axis", axis, list(GridParams.model_fields), f"{where}.shared_axes")


def _check_network(section: ExperimentParams, shape: tuple[int, int, int], where: str, own: str) -> None:
    network = section.network
    expected = {"plain": (3, 5), "strided": (4, 4)}[network.architecture]
    found = (len(network.encoder_channels), len(network.decoder_channels))
    if found != expected:
        raise SettingsError(
            f"{where}.network: a {network.architecture} network has {expected[0]} encoder and {expected[1]} decoder "
            f"channels, got {found[0]} and {found[1]}"
        )
    if network.architecture == "strided" and shape[1:] != (32, 32):
        way_out = f"use 'plain', or set {own}.size: [32, 32]" if own else "use 'plain'"
        raise SettingsError(
            f"{where}.network: 'strided' needs 32x32 images, these have {shape[1]}x{shape[2]}; {way_out}"
        )


def _check_epochs(section: ExperimentParams, where: str) -> None:
    for epoch in section.snapshot_epochs:
        if epoch > section.epochs:
            raise SettingsError(f"{where}: snapshot epoch {epoch} is past the last of {section.epochs}")
    for cutoff in section.grid.cutoff_epoch:
        if cutoff is not None and cutoff > section.epochs:
            raise SettingsError(
                f"{where}: cutoff_epoch {cutoff} is past the last of {section.epochs} epochs; null is never"
            )
