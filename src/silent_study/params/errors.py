"""Messages about invalid settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from silent_study.settings import SettingsError
from silent_study.words import did_you_mean

M = TypeVar("M", bound=BaseModel)

TRUTH_VALUE = "truth_value"
"""Type of the error of a truth value; its context has the ``key`` below the setting, or None, and the ``value``."""

_SYNONYMS = {"folder": "path", "directory": "path", "file": "path"}
"""Words that are no misspelling of a key, and the key that they stand for."""

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
"""The expected value by pydantic's type of an error; other errors keep pydantic's message."""

_WITH_EXAMPLE = _EXPECTED.keys() - {TRUTH_VALUE, "string_too_short"}


def validated(model: type[M], document: Mapping[str, Any], where: str) -> M:
    """Return a document as the model; raises ``SettingsError`` with a line for each mistake."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise _settings_error(model, error.errors(), where) from None


def check_keys(model: type[BaseModel], document: Mapping[str, Any], where: str = "") -> None:
    """Raise ``SettingsError`` with a line for each unknown key of a document, whatever its values."""
    try:
        model.model_validate(document)
    except ValidationError as error:
        if unknown := [detail for detail in error.errors() if detail["type"] == "extra_forbidden"]:
            raise _settings_error(model, unknown, where) from None


def require_known(kind: str, name: Any, known: Collection[str], where: str) -> None:
    """Raise ``SettingsError`` if a name is not among the known ones."""
    if name not in known:
        listed = ", ".join(known) or "none"
        raise SettingsError(f"{where}: unknown {kind} {name!r}{did_you_mean(str(name), known)}; known: {listed}")


def _settings_error(model: type[BaseModel], details: Sequence[Any], where: str) -> SettingsError:
    return SettingsError("\n".join(_message(model, detail, where) for detail in details))


def _message(model: type[BaseModel], detail: Any, where: str) -> str:
    kind, found, location = detail["type"], detail["input"], tuple(detail["loc"])
    if kind == TRUTH_VALUE:
        found = detail["ctx"]["value"]
        location += () if detail["ctx"]["key"] is None else (detail["ctx"]["key"],)
    # A key with a line break or an escape sequence would break the message.
    named = [text if (text := str(part)).isprintable() else repr(text) for part in location]
    key = ".".join([*([where] if where else []), *named])
    if kind == "extra_forbidden":
        known = sorted(_type_at(model, location[:-1]).model_fields)
        meant = did_you_mean(_SYNONYMS.get(named[-1], named[-1]), known)
        return f"{key}: unknown key{meant}; known here: {', '.join(known)}"
    if kind == "missing":
        return f"{key}: missing; it has no default"
    expected = _EXPECTED.get(kind, f"{detail['msg'][0].lower()}{detail['msg'][1:]}")
    if kind in _WITH_EXAMPLE and isinstance(location[-1], str):  # an entry of a list has no key for the example
        expected += f", as in {named[-1]}: {_example(_type_at(model, location), found)}"
    return f"{key}: {expected}, got {found!r}"


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _type_at(kind: Any, location: tuple[Any, ...]) -> Any:
    """Return the type of the setting at a location; entries of lists and mappings have their last type argument."""
    for part in location:
        kind = kind.model_fields[part].annotation if _is_model(kind) else get_args(kind)[-1]
        others = [inner for inner in get_args(kind) if inner is not NoneType]
        if len(others) == 1 and NoneType in get_args(kind):
            kind = others[0]
    return kind


def _example(kind: Any, found: Any) -> str:
    """Return a value of a type in YAML, made from the value found if possible."""
    origin, parts = get_origin(kind), [part for part in get_args(kind) if part is not NoneType]
    if origin is list:
        return f"[{found if isinstance(found, int | float | str) else _example(parts[0], None)}]"
    if origin is tuple:
        return f"[{', '.join(_example(part, None) for part in parts)}]"
    if origin is Literal:
        return str(parts[0])
    if origin is dict or _is_model(kind):
        return "{key: value}"
    if parts:  # Annotated, or a union
        return _example(parts[0], found)
    return {int: "3", float: "0.001"}.get(kind, f'"{found}"' if isinstance(found, int | float) else "name")
