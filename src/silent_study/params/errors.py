"""Validation, and what is said of a setting that cannot be."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from silent_study.settings import SettingsError
from silent_study.words import did_you_mean

M = TypeVar("M", bound=BaseModel)

TRUTH_VALUE = "truth_value"
"""Type of the error of a truth value; its context has the ``key`` below the setting, or None, and the ``value``."""

_MEANT = {"folder": "path", "directory": "path", "file": "path"}
"""Words that nobody misspelt, and the keys that stand for what they mean."""

_WHOLE, _NUMBER, _KEYS = "expected a whole number", "expected a number", "expected keys and values"
_EXPECTED = {
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "too_short": "expected at least 1 entry",
    "dict_type": _KEYS,
    "model_type": _KEYS,
    "string_type": "expected a text",
    "string_too_short": "expected a text that is not empty",
    TRUTH_VALUE: "no setting is a truth value, as which YAML reads yes, no, on, off, true and false; put a text in "
    "quotes",
}
"""By pydantic's type of an error, what was expected; others are told in pydantic's words."""

_WITH_EXAMPLE = _EXPECTED.keys() - {TRUTH_VALUE, "string_too_short"}


def validated(model: type[M], document: Mapping[str, Any], where: str) -> M:
    """A document as the model; every mistake in it is a line of one ``SettingsError``."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        messages = [_message(model, detail, where) for detail in error.errors()]
        raise SettingsError("\n".join(messages)) from None


def _message(model: type[BaseModel], detail: Any, where: str) -> str:
    kind, found, location = detail["type"], detail["input"], tuple(detail["loc"])
    if kind == TRUTH_VALUE:
        found = detail["ctx"]["value"]
        location += () if detail["ctx"]["key"] is None else (detail["ctx"]["key"],)
    # A key with a line break or an escape sequence would spoil the message.
    named = [text if (text := str(part)).isprintable() else repr(text) for part in location]
    key = ".".join([*([where] if where else []), *named])
    if kind == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        meant = _MEANT.get(named[-1], named[-1])
        return f"{key}: unknown key{did_you_mean(meant, known)}; known here: {', '.join(sorted(known))}"
    if kind == "missing":
        return f"{key}: missing; it has no default"
    told = _EXPECTED.get(kind, f"{detail['msg'][0].lower()}{detail['msg'][1:]}")
    if kind in _WITH_EXAMPLE and isinstance(location[-1], str):  # not of a list's entry, which has no key
        told += f", as in {named[-1]}: {_example(_annotation_at(model, location), found)}"
    return f"{key}: {told}, got {found!r}"


def _example(annotation: Any, found: Any) -> str:
    """A value that a setting of this type may have, in YAML; what was found is made one where it can be."""
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not NoneType]
    if origin is list:
        return f"[{found if isinstance(found, int | float | str) else _example(parts[0], None)}]"
    if origin is tuple:
        return f"[{', '.join(_example(part, None) for part in parts)}]"
    if origin is Literal:
        return str(parts[0])
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "{key: value}"
    if parts:  # Annotated, or a union
        return _example(parts[0], found)
    return {int: "3", float: "0.001"}.get(annotation, f'"{found}"' if isinstance(found, int | float) else "name")


def _annotation_at(model: Any, location: tuple[Any, ...]) -> Any:
    """The type of the setting at a location; entries of lists and of mappings are of their last argument."""
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[part].annotation
        else:
            model = get_args(_without_none(model))[-1]
    return _without_none(model)


def _without_none(annotation: Any) -> Any:
    others = [part for part in get_args(annotation) if part is not NoneType]
    return others[0] if len(others) == 1 and NoneType in get_args(annotation) else annotation


def _keys_at(model: Any, location: tuple[Any, ...]) -> list[str]:
    """Keys of the nested model at a location; mappings of models are passed through."""
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[part].annotation
        elif get_args(model):
            model = get_args(model)[-1]
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def require_known(kind: str, name: Any, known: Collection[str], where: str) -> None:
    """Raise ``SettingsError`` where a name is not among the known ones."""
    if name not in known:
        listed = list(known)
        raise SettingsError(
            f"{where}: unknown {kind} {name!r}{did_you_mean(str(name), listed)}; known: {', '.join(listed) or 'none'}"
        )
