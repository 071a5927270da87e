"""Write the reference of params.yaml (``docs/settings.md``) from the settings' types, defaults and descriptions.

``python -m docs.settings_reference`` prints it; a test compares the page with it.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from silent_study.params.schema import ExperimentParams, OwnImagesParams, Params

_INTRODUCTION = """# params.yaml, key by key

`params.yaml` names a preset, a file in `presets/` with the same keys, and sets any of them over it. Mappings merge,
everything else replaces the preset's value (and its `overrides` of that key), null removes a mapping. What an edit runs
again: [reliability.md](reliability.md#what-an-edit-runs-again).
"""
_WORDS = {str: "text", int: "integer", float: "number"}
_NAMED: dict[str, tuple[type[BaseModel], str]] = {
    "experiments": (ExperimentParams, "`experiments.EXPERIMENT.DATASET`"),
    "sets": (OwnImagesParams, "`data.sets.NAME`"),
}
"""Mappings with a model as values: the model and the title of its section."""


def markdown() -> str:
    """Return the page."""
    return _INTRODUCTION + "".join(_sections(Params, "", "At the top"))


def _models(model: type[BaseModel], prefix: str, title: str) -> Iterator[tuple[type[BaseModel], str]]:
    """Yield a model and the models in it, each with the title of its section."""
    yield model, title
    for name, field in model.model_fields.items():
        if name in _NAMED:
            inner, where = _NAMED[name]
            yield from _models(inner, f"{where.strip('`')}.", where)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _models(field.annotation, f"{prefix}{name}.", f"`{prefix}{name}`")


def _sections(model: type[BaseModel], prefix: str, title: str) -> Iterator[str]:
    for each, where in _models(model, prefix, title):
        about = re.sub(r"\s+", " ", (each.__doc__ or "").strip())
        lines = [f"\n## {where}\n", f"{about}\n", "| key | value | default | |", "| --- | --- | --- | --- |"]
        lines += [_row(name, field) for name, field in each.model_fields.items()]
        yield "\n".join(lines) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    cells = [f"`{name}`", _kind(name, field), _default(field), field.description or ""]
    return "| " + " | ".join(cell.replace("|", "&#124;") for cell in cells) + " |"


def _kind(name: str, field: FieldInfo) -> str:
    if name in _NAMED:
        return "section by name"
    return _words(field.annotation, list(field.metadata))


def _words(kind: Any, bounds: list[Any]) -> str:
    """Describe a type for readers of YAML."""
    if get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        return _words(inner, [*bounds, *more])
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section"
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        # null first, so that it cannot be read as a part of a list.
        nullable = ["null"] if type(None) in get_args(kind) else []
        return " or ".join(nullable + [_words(part, bounds) for part in get_args(kind) if part is not type(None)])
    if get_origin(kind) in (list, tuple):
        inner = [part for part in get_args(kind) if part is not Ellipsis]
        counted = f"list of {len(inner)}: " if get_origin(kind) is tuple else "list of: "
        return counted + _words(inner[0], [])
    if get_origin(kind) is dict:
        return f"mapping to {_words(get_args(kind)[1], [])}"
    return " ".join([_WORDS.get(kind, "anything"), " and ".join(_limits(bounds))]).strip()


def _limits(bounds: list[Any]) -> list[str]:
    found = []
    for bound in bounds:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if (value := getattr(bound, name, None)) is not None:
                found.append(f"{sign} {value}")
        found += _limits(list(getattr(bound, "metadata", ())))
    return found


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        return ""
    return f"`{json.dumps(field.default)}`"


if __name__ == "__main__":
    print(markdown(), end="")
