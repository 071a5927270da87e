"""Validation, and what is said of a setting that cannot be."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from silent_gradients.settings import SettingsError

M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], document: Mapping[str, Any], where: str) -> M:
    """A document as the model; every mistake in it is a line of one ``SettingsError``."""
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
        return f"{key}: unknown key{nearest(location[-1], known)}; known here: {', '.join(sorted(known))}"
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


def nearest(word: str, known: list[str]) -> str:
    """In brackets the known word that is most like another; "" where none is."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def require_known(kind: str, name: Any, known: Collection[str], where: str) -> None:
    """Raise ``SettingsError`` where a name is not among the known ones."""
    if name not in known:
        listed = list(known)
        raise SettingsError(
            f"{where}: unknown {kind} {name!r}{nearest(str(name), listed)}; known: {', '.join(listed) or 'none'}"
        )
