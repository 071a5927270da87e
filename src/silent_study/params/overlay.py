"""YAML documents laid over each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from silent_study.data.sources import SOURCES
from silent_study.params.errors import require_known
from silent_study.settings import EXPERIMENTS, SettingsError, read_json_object

_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_NAME = re.compile("[a-z][a-z0-9_]{0,39}")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_CONFIG = re.compile(r"([a-zA-Z_][\w-]*)=(.*)", re.DOTALL)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping in UTF-8; raises ``SettingsError`` if the file is missing or holds something else."""
    try:
        document = _parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        elsewhere = isinstance(error, FileNotFoundError) and path.name == "params.yaml"
        fix = "; go to the folder of the clone, which has it" if elsewhere else ""
        raise SettingsError(f"{path}: cannot be read ({error.strerror}){fix}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not a text in UTF-8 ({error.reason} at byte {error.start})") from error
    except _RefusedError as error:
        raise SettingsError(f"{path}: {error}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: invalid YAML ({_place(error)})") from error
    if not isinstance(document, dict):
        found = "nothing" if document is None else type(document).__name__
        raise SettingsError(f"{path}: expected keys and values, as in preset: digits, got {found}")
    return document


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    """Parse YAML; callers share the document of a text, which `status --watch` reads again and again."""
    return _StrictLoader(text).get_single_data()


class _RefusedError(yaml.YAMLError):
    """Valid YAML that means something else than most people expect."""


class _StrictLoader(yaml.SafeLoader):
    """Refuses what YAML 1.1 reads in surprising ways: keys that are repeated or no text, numbers in other bases."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; raises ``_RefusedError`` for a key that is no text (``no``) or repeats another."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line, scalar = key.start_mark.line + 1, isinstance(key, yaml.ScalarNode)
            if not scalar or key.tag not in (_TEXT, _MERGE):
                named = repr(key.value) if scalar else "in brackets"
                raise _RefusedError(f"the key {named} in line {line} is no text to YAML; put it in quotes")
            if (first := lines.get(key.value)) is not None:
                where = f"lines {first} and {line}" if first != line else f"line {line}"
                raise _RefusedError(f"the key {key.value!r} is repeated in {where}; remove one of them")
            lines[key.value] = line
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Compose a scalar; raises ``_RefusedError`` for a number such as ``12:00:00`` (43200) or ``010`` (8)."""
        node = super().compose_scalar_node(anchor)
        if node.style is None:  # not in quotes
            line = node.start_mark.line + 1
            read = f"YAML reads {node.value} in line {line}"
            if _BASE_60.fullmatch(node.value):
                raise _RefusedError(f"{read} as a number in base 60; put it in quotes: '{node.value}'")
            if _LEADING_ZERO.fullmatch(node.value):
                fix = f"write it without the leading zero, or as a text in quotes: '{node.value}'"
                raise _RefusedError(f"{read} as an octal number; {fix}")
        return node


def _place(error: yaml.YAMLError) -> str:
    """Describe a YAML error and its place in one line."""
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    what = ", ".join(part for part in parts if part) or str(error).replace("\n", " ")
    mark = getattr(error, "problem_mark", None)
    return what if mark is None else f"{what}, in line {mark.line + 1}, column {mark.column + 1}"


def read_config(word: str) -> dict[str, Any]:
    """Read a word after ``--config``, ``KEY=VALUE`` as Snakemake or a JSON object; else raise ``SettingsError``."""
    if word.lstrip().startswith("{"):
        return read_json_object(word, "--config")
    entry = _CONFIG.fullmatch(word)
    if entry is None:
        raise SettingsError(f"--config: expected KEY=VALUE, as in 'seeds=[0]', or a JSON object, got {word!r}")
    try:
        # Snakemake reads scalars in a value as texts, which the settings' types make numbers.
        value = yaml.load(entry[2], yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise SettingsError(f"--config {entry[1]}: invalid YAML ({_place(error)})") from None
    return {entry[1]: with_nulls(value)}


def with_nulls(value: Any) -> Any:
    """Replace the text ``null`` by None: in the values of ``--config``, Snakemake keeps it as a text."""
    if isinstance(value, Mapping):
        return {key: with_nulls(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_nulls(inner) for inner in value]
    return None if value == "null" else value


def laid_over(below: Any, above: Any, *, removing: bool = True) -> Any:
    """Merge mappings key by key; everything else ``above`` replaces what stands ``below``.

    Null above a mapping removes it or, without ``removing``, stays, to remove one of a document below both.
    """
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    merged = dict(below)
    for key, value in above.items():
        if removing and value is None and isinstance(below.get(key), Mapping):
            del merged[key]
        else:
            merged[key] = laid_over(below.get(key), value, removing=removing)
    return merged


def sections(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield experiment, data set and content of every section of a document, whose other parts may be malformed."""
    experiments = document.get("experiments")
    for experiment, datasets in experiments.items() if isinstance(experiments, Mapping) else ():
        for dataset, section in datasets.items() if isinstance(datasets, Mapping) else ():
            if isinstance(section, Mapping):
                yield experiment, dataset, section


def settings_over(below: Mapping[str, Any], own: Mapping[str, Any], *, removing: bool = True) -> dict[str, Any]:
    """Lay settings over others, as ``laid_over``; they also replace the ``overrides`` of methods there, key by key."""
    merged: dict[str, Any] = laid_over(below, own, removing=removing)
    for experiment, dataset, above in sections(own):
        overrides, set_here = at(below, "experiments", experiment, dataset, "overrides"), above.get("overrides", {})
        if isinstance(overrides, Mapping) and isinstance(set_here, Mapping):
            methods = above.get("methods")
            kept = {
                method: _without(values, above)
                for method, values in overrides.items()
                # Overrides of methods that are not listed any more would be of none.
                if not isinstance(methods, list) or method in methods or method in set_here
            }
            merged["experiments"][experiment][dataset]["overrides"] = laid_over(kept, set_here, removing=removing)
    return merged


def _without(below: Any, above: Mapping[str, Any]) -> Any:
    """Remove from a mapping the keys that another one sets, at every depth."""
    if not isinstance(below, Mapping):
        return below
    kept = {key: value for key, value in below.items() if key not in above or isinstance(above[key], Mapping)}
    return {key: _without(value, above.get(key, {})) for key, value in kept.items()}


def dotted(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def at(document: Any, *keys: str) -> Any:
    """Return the value at nested keys of a document; None if there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def substituted(document: dict[str, Any]) -> dict[str, Any]:
    """Replace the data sets that ``data.substitute`` names in every experiment."""
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
    """Return the names of the package's data sets and of those in the settings."""
    sets = at(document, "data", "sets")
    own = list(sets) if isinstance(sets, Mapping) else []
    for name in own:
        if name in SOURCES:
            raise SettingsError(f"data.sets.{name}: a data set of that name comes with the package; choose another")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            rule = "has at most 40 small letters, digits and underscores and begins with a letter"
            raise SettingsError(f"data.sets: {name!r} cannot be the name of a data set, which {rule}")
    return [*SOURCES, *own]


def check_names(experiments: Any, known: list[str]) -> None:
    """Check the names of experiments and data sets; a misspelt section would lack every key of the intended one."""
    if experiments is None or (isinstance(experiments, Mapping) and not any(experiments.values())):
        fix = "null removes one of the preset's: leave it out to run that experiment"
        raise SettingsError(f"experiments: none is left; {fix}")
    for experiment, datasets in experiments.items() if isinstance(experiments, Mapping) else ():
        require_known("experiment", experiment, list(EXPERIMENTS), "experiments")
        for dataset in datasets if isinstance(datasets, Mapping) else ():
            require_known("data set", dataset, known, f"experiments.{experiment}")
