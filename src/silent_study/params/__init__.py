"""params.yaml over its preset, typed and validated.

A preset is an overlay in ``presets/``; params.yaml may set any key over it. An unknown key, a wrong type or an
impossible value is a ``SettingsError`` that names the key, its value and how to fix it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from silent_study.data.source import Source
from silent_study.data.sources import source_named
from silent_study.params.checks import check, check_all_keys
from silent_study.params.errors import validated
from silent_study.params.overlay import (
    at,
    check_names,
    dotted,
    known_datasets,
    read_yaml,
    sections,
    settings_over,
    substituted,
)
from silent_study.params.schema import DataParams, OwnImagesParams, Params, source_in
from silent_study.settings import SettingsError
from silent_study.store.code import SOURCE
from silent_study.words import did_you_mean

__all__ = ["Params", "load", "mirror_of", "overrides_in_force", "presets_folder", "resolve", "source_of"]


def presets_folder(folder: Path = Path()) -> Path:
    """Return the folder of the presets: in the folder of params.yaml or, if it has none, in the project's checkout."""
    own = folder / "presets"
    return own if own.is_dir() else SOURCE.parent / "presets"


def load(path: Path = Path("params.yaml"), presets: Path | None = None) -> Params:
    """Read params.yaml, then ``resolve`` it with the preset that it names, by default of ``presets_folder``."""
    return resolve(read_yaml(path), presets or presets_folder(path.parent))


def resolve(own: Mapping[str, Any], presets: Path) -> Params:
    """Lay ``own``, the content of params.yaml, over its preset and validate it; raises ``SettingsError``."""
    check_all_keys(own)
    name, available = own.get("preset"), sorted(path.stem for path in presets.glob("*.yaml"))
    if name not in available:
        raise SettingsError(f"preset: expected one of {available}, got {name!r}{did_you_mean(str(name), available)}")
    merged = _over_its_preset(own, presets)
    check_all_keys(merged)
    merged = substituted(merged)
    check_names(merged.get("experiments"), known_datasets(merged))
    params = validated(Params, merged, "")
    check(params)
    return params


def overrides_in_force(own: Mapping[str, Any], presets: Path) -> dict[str, Any]:
    """Return the preset's overrides that still apply in the sections that ``own`` changes, by dotted name."""
    merged = _over_its_preset(own, presets)
    found: dict[str, Any] = {}
    for experiment, dataset, section in sections(own):
        where = f"experiments.{experiment}.{dataset}.overrides."
        in_force = dotted(at(merged, "experiments", experiment, dataset, "overrides") or {}, where)
        set_here = dotted(section.get("overrides") or {}, where)
        found |= {name: value for name, value in in_force.items() if name not in set_here}
    return found


def source_of(name: str, own: Mapping[str, Any], presets: Path) -> Source:
    """Return a data set that ``own`` may define, without validating the values of the other settings."""
    check_all_keys(own)
    document = _over_its_preset(own, presets)
    known = known_datasets(document)
    if name not in known:
        return source_named(name, known)
    entry = at(document, "data", "sets", name)
    own_set = {} if entry is None else {name: validated(OwnImagesParams, entry, f"data.sets.{name}")}
    return source_in(name, own_set, keep=True)


def mirror_of(own: Mapping[str, Any], presets: Path) -> str | None:
    """Return the mirror of raw files (``data.mirror``), without validating the values of the other settings."""
    check_all_keys(own)
    mirror = at(_over_its_preset(own, presets), "data", "mirror")
    return validated(DataParams, {"mirror": mirror}, "data").mirror


def _over_its_preset(own: Mapping[str, Any], presets: Path) -> dict[str, Any]:
    """Lay settings over their preset; without a preset of that name, as for one data set, they stand alone."""
    preset = presets / f"{own.get('preset')}.yaml"
    return settings_over(read_yaml(preset), own) if preset.is_file() else dict(own)
