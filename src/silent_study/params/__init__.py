"""params.yaml over its preset: typed, validated settings of the whole workflow.

A preset is an overlay in ``presets/``; any of its keys may be set over it in params.yaml. Everything unknown, mistyped
or impossible is one ``SettingsError`` that names the key, its value and the way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from silent_study.data.source import Source
from silent_study.data.sources import source_named
from silent_study.params.checks import check
from silent_study.params.errors import validated
from silent_study.params.overlay import (
    at,
    check_names,
    known_datasets,
    laid_over,
    read_yaml,
    substituted,
    without_overrides_of_others,
)
from silent_study.params.schema import DataParams, OwnImagesParams, Params, source_in
from silent_study.settings import SettingsError
from silent_study.words import did_you_mean

__all__ = ["Params", "load", "mirror_of", "resolve", "source_of"]


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

    Raises:
        SettingsError: A key is unknown or mistyped, or a value is impossible.
    """
    name = own.get("preset")
    available = sorted(path.stem for path in presets.glob("*.yaml"))
    if name not in available:
        raise SettingsError(f"preset: expected one of {available}, got {name!r}{did_you_mean(str(name), available)}")
    below = without_overrides_of_others(read_yaml(presets / f"{name}.yaml"), own)
    merged = substituted(laid_over(below, own))
    check_names(merged.get("experiments"), known_datasets(merged))
    params = validated(Params, merged, "")
    check(params)
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
    document = _over_its_preset(own, presets)
    known = known_datasets(document)
    if name not in known:
        return source_named(name, known)
    entry = at(document, "data", "sets", name)
    return source_in(name, {} if entry is None else {name: validated(OwnImagesParams, entry, f"data.sets.{name}")})


def mirror_of(own: Mapping[str, Any], presets: Path) -> str | None:
    """The mirror of raw files that settings name (``data.mirror``), read without the rest of them.

    Args:
        own: The content of params.yaml.
        presets: Folder of the presets.

    Raises:
        SettingsError: It is no path or address.
    """
    mirror = at(_over_its_preset(own, presets), "data", "mirror")
    return validated(DataParams, {"mirror": mirror}, "data").mirror


def _over_its_preset(own: Mapping[str, Any], presets: Path) -> Mapping[str, Any]:
    """Settings over their preset; alone where there is none of its name, as in those of one data set."""
    preset = presets / f"{own.get('preset')}.yaml"
    document: Mapping[str, Any] = laid_over(read_yaml(preset), own) if preset.is_file() else own
    return document
