"""YAML documents laid over each other, before they are validated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from silent_study.data.sources import SOURCES
from silent_study.methods import METHODS
from silent_study.params.errors import require_known
from silent_study.settings import SettingsError

_MERGE = "tag:yaml.org,2002:merge"
_NAME = re.compile("[a-z][a-z0-9_]{0,39}")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises ``SettingsError`` where the file is missing or holds something else."""
    try:
        document = _UniqueKeys(path.read_text()).get_single_data()
    except FileNotFoundError as error:
        raise SettingsError(
            f"{path}: cannot be read ({error.strerror}); go to the folder of the clone, which has it"
        ) from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: no text in UTF-8 ({error.reason} at byte {error.start})") from error
    except _SameKeyError as error:
        raise SettingsError(f"{path}: {error}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: no YAML ({_place(error)})") from error
    if not isinstance(document, dict):
        found = "nothing" if document is None else type(document).__name__
        raise SettingsError(f"{path}: expected keys and values, as in preset: digits, got {found}")
    return document


class _SameKeyError(yaml.YAMLError):
    """A key stands twice."""


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; raises ``_SameKeyError``."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, Any], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            line, first = key.start_mark.line + 1, lines.get((key.tag, key.value))
            if first is not None:
                where = f"lines {first} and {line}" if first != line else f"line {line}"
                raise _SameKeyError(f"the key {key.value!r} stands twice, in {where}; remove one of them")
            lines[key.tag, key.value] = line
        return node


def _place(error: yaml.YAMLError) -> str:
    """What is wrong with a YAML file, and where, in one line."""
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    what = ", ".join(part for part in parts if part) or str(error).replace("\n", " ")
    mark = getattr(error, "problem_mark", None)
    return what if mark is None else f"{what}, in line {mark.line + 1}, column {mark.column + 1}"


def set_over_preset(own: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings that params.yaml sets over its preset, by dotted name."""
    found: dict[str, Any] = {}
    for key, value in own.items():
        if isinstance(value, Mapping):
            found |= set_over_preset(value, f"{prefix}{key}.")
        elif prefix or key != "preset":
            found[f"{prefix}{key}"] = value
    return found


def with_nulls(value: Any) -> Any:
    """A document whose texts ``null`` are null: Snakemake's ``--config`` keeps what is inside of a value as text."""
    if isinstance(value, Mapping):
        return {key: with_nulls(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_nulls(inner) for inner in value]
    return None if value == "null" else value


def laid_over(below: Any, above: Any) -> Any:
    """``above`` laid over ``below``: mappings key by key, everything else replaced; null takes a mapping away."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    removed = {key for key, value in above.items() if value is None and isinstance(below.get(key), Mapping)}
    merged = {**below, **{key: laid_over(below.get(key), value) for key, value in above.items()}}
    return {key: value for key, value in merged.items() if key not in removed}


def without_overrides_of_others(preset: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A preset without its overrides of methods that ``own`` leaves out, where it lists methods of its own."""

    def section(experiment: str, dataset: str, below: Any) -> Any:
        methods, overrides = at(own, "experiments", experiment, dataset, "methods"), at(below, "overrides")
        if not isinstance(methods, list) or not isinstance(overrides, Mapping):
            return below
        # What own settings say of an override, such as null, is said of the preset's.
        own_overrides = at(own, "experiments", experiment, dataset, "overrides")
        kept = [*methods, *(own_overrides if isinstance(own_overrides, Mapping) else ())]
        return {**below, "overrides": {method: values for method, values in overrides.items() if method in kept}}

    def datasets(experiment: str, below: Any) -> Any:
        if not isinstance(below, Mapping):
            return below
        return {dataset: section(experiment, dataset, values) for dataset, values in below.items()}

    experiments = preset.get("experiments")
    if not isinstance(experiments, Mapping):
        return preset
    return {**preset, "experiments": {name: datasets(name, below) for name, below in experiments.items()}}


def at(document: Any, *keys: str) -> Any:
    """What stands at nested keys of a document; None where nothing does."""
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def substituted(document: dict[str, Any]) -> dict[str, Any]:
    """Put other data sets in the places of those that ``data.substitute`` names."""
    names, experiments = at(document, "data", "substitute"), document.get("experiments")
    if not isinstance(names, Mapping) or not isinstance(experiments, Mapping):
        return document
    known = known_datasets(document)
    for name in names:
        require_known("data set", name, known, "data.substitute")
        require_known("data set", names[name], known, f"data.substitute.{name}")
    renamed = {}
    for experiment, datasets in experiments.items():
        if isinstance(datasets, Mapping):
            if twice := sorted({names[name] for name in names if name in datasets and names[name] in datasets}):
                raise SettingsError(f"data.substitute: {twice[0]!r} already has a section in experiments.{experiment}")
            datasets = {names.get(name, name): section for name, section in datasets.items()}
        renamed[experiment] = datasets
    return {**document, "experiments": renamed}


def known_datasets(document: Mapping[str, Any]) -> list[str]:
    """The data sets of the package, and those that the settings name."""
    sets = at(document, "data", "sets")
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


def check_names(experiments: Any, known: list[str]) -> None:
    """Before all else: a misspelt section would lack every key that the one which was meant has."""
    if experiments is None or (isinstance(experiments, Mapping) and not any(experiments.values())):
        raise SettingsError(
            "experiments: none is left; null takes one away from the preset: leave it out for those that are to run"
        )
    for experiment, datasets in experiments.items() if isinstance(experiments, Mapping) else ():
        require_known("experiment", experiment, list(METHODS), "experiments")
        for dataset in datasets if isinstance(datasets, Mapping) else ():
            require_known("data set", dataset, known, f"experiments.{experiment}")
