"""Checks across settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from silent_study.methods import METHODS, PAPER_OPTIONS, Method
from silent_study.params.errors import check_keys, require_known
from silent_study.params.overlay import sections
from silent_study.params.schema import ExperimentParams, GridParams, Params, with_overrides
from silent_study.settings import ARCHITECTURES, SettingsError
from silent_study.words import did_you_mean


def check_all_keys(document: Mapping[str, Any]) -> None:
    """Check the names of all keys, before later errors, such as a missing value, hide a misspelt one."""
    check_keys(Params, document)
    for experiment, dataset, section in sections(document):
        overrides = section.get("overrides")
        for method, override in overrides.items() if isinstance(overrides, Mapping) else ():
            check_keys(ExperimentParams, override, f"experiments.{experiment}.{dataset}.overrides.{method}")


def check(params: Params) -> None:
    """Check what a single field cannot; raises ``SettingsError``."""
    if len(set(params.seeds)) != len(params.seeds):
        raise SettingsError(f"seeds: expected different numbers, got {params.seeds}")
    for experiment, datasets in params.experiments.items():
        for dataset, section in datasets.items():
            where = f"experiments.{experiment}.{dataset}"
            source = params.sources[dataset]
            if section.holdout is not None and section.holdout >= source.train:
                left = f"leaves none of the {source.train} training images to train on"
                raise SettingsError(f"{where}.holdout: {section.holdout} {left}")
            _check_methods(experiment, section, where)
            _check_network(section, source.shape, where, f"data.sets.{dataset}" if dataset in params.data.sets else "")
            for name in section.methods:
                method, own = METHODS[experiment][name], with_overrides(section, name, where)
                _check_epochs(own, f"{where} ({name})")
                linear = method.guide != "none" and own.guide == "linear"
                _check_options(method, own, f"{where}.estimator_options ({name})")
                if own.log_term == "exact" and linear and method.posterior != "gaussian":
                    fix = "use 'auto' or 'central-limit'"
                    raise SettingsError(f"{where} ({name}): log_term 'exact' needs a gaussian posterior; {fix}")


def _check_options(method: Method, section: ExperimentParams, where: str) -> None:
    if not set(section.estimator_options) & set(method.options):
        return
    if method.name in METHODS[method.experiment].papers:
        for option, value in section.options_of(method).items():
            expected, fits = PAPER_OPTIONS[option]
            if not fits(value):
                raise SettingsError(f"{where}: {option}: expected {expected}, got {value}")
        return
    # Imported here: the estimators load torch, which takes seconds.
    from silent_gradients.estimators import EstimatorError, create

    try:
        create(method.estimator, section.options_of(method))
    except EstimatorError as error:
        raise SettingsError(f"{where}: {error}") from None


def _check_methods(experiment: str, section: ExperimentParams, where: str) -> None:
    known = METHODS[experiment]
    for method in section.methods:
        # The other experiments are searched only for an unknown method: listing all methods loads torch.
        if method not in known and (elsewhere := [other for other, methods in METHODS.items() if method in methods]):
            wrong = f"{method!r} is no method of {experiment}, but of {' and '.join(elsewhere)}"
            raise SettingsError(f"{where}.methods: {wrong}; known here: {', '.join(known)}")
        require_known("method", method, known, f"{where}.methods")
        baseline = known[method].baseline
        if baseline is not None and baseline not in section.methods:
            raise SettingsError(f"{where}.methods: {method!r} takes its rate from {baseline!r}; list that as well")
    if len(set(section.methods)) != len(section.methods):
        raise SettingsError(f"{where}.methods: expected each method once, got {section.methods}")
    for method, override in section.overrides.items():
        here = f"{where}.overrides.{method}"
        if method not in section.methods:
            meant = did_you_mean(method, section.methods)
            raise SettingsError(f"{where}.overrides: {method!r} is not among the methods{meant}")
        axes = known[method].axes
        grid, options = (override.get(key) for key in ("grid", "estimator_options"))
        for axis in grid if isinstance(grid, Mapping) else ():
            if axis in GridParams.model_fields and axis not in axes:
                raise SettingsError(f"{here}.grid.{axis}: no axis of this method; it has {', '.join(axes)}")
        for option in options if isinstance(options, Mapping) else ():
            require_known("option", option, known[method].options, f"{here}.estimator_options")
    every_option = {option: None for method in section.methods for option in known[method].options}
    for option in section.estimator_options:
        require_known("option", option, every_option, f"{where}.estimator_options")
    for axis in section.shared_axes:
        require_known("axis", axis, list(GridParams.model_fields), f"{where}.shared_axes")


def _check_network(section: ExperimentParams, shape: tuple[int, int, int], where: str, own: str) -> None:
    network = section.network
    traits = ARCHITECTURES[network.architecture]
    found = (len(network.encoder_channels), len(network.decoder_channels))
    if found != (traits.encoder_channels, traits.decoder_channels):
        has = f"{traits.encoder_channels} encoder and {traits.decoder_channels} decoder channels"
        got = f"got {found[0]} and {found[1]}"
        raise SettingsError(f"{where}.network: a {network.architecture} network has {has}, {got}")
    if traits.image_size not in (None, shape[1:]):
        height, width = traits.image_size
        any_size = next(name for name, other in ARCHITECTURES.items() if other.image_size is None)
        fix = f"use {any_size!r}" + (f", or set {own}.size: [{height}, {width}]" if own else "")
        needs = f"{network.architecture!r} needs {height}x{width} images, these have {shape[1]}x{shape[2]}"
        raise SettingsError(f"{where}.network: {needs}; {fix}")


def _check_epochs(section: ExperimentParams, where: str) -> None:
    last = section.epochs
    late: dict[str, list[float]] = {
        "snapshot_epochs": [epoch for epoch in section.snapshot_epochs if epoch > last],
        "cooldown_epochs": [section.cooldown_epochs] if section.cooldown_epochs > last else [],
        "kl_warmup_epochs": [section.kl_warmup_epochs] if section.kl_warmup_epochs > last else [],
        "grid.cutoff_epoch": [epoch for epoch in section.grid.cutoff_epoch if epoch is not None and epoch > last],
    }
    if found := [f"{key} {', '.join(map(str, epochs))}" for key, epochs in late.items() if epochs]:
        be, them = ("are", "them") if len(found) > 1 else ("is", "it")
        null = " (null: no cut-off)" if late["grid.cutoff_epoch"] else ""
        late_ones = f"{' and '.join(found)} {be} past the last of {last} epochs"
        raise SettingsError(f"{where}: {late_ones}; set {them} as well{null}")
