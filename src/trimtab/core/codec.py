"""Values to JSON and back, guided by their type hints; nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import json
import types
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from trimtab.core.errors import BadInput

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Return a value as dictionaries, lists and scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def dumps(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON text. Infinite and undefined numbers are kept as Infinity and NaN."""
    return json.dumps(to_plain(value), indent=indent, ensure_ascii=False)


def loads(kind: type[T], text: str) -> T:
    """Return the value of type `kind` that the JSON text holds; raise `BadInput` when it doesn't fit."""
    try:
        made: T = _build(kind, json.loads(text))
    except (RecursionError, TypeError, ValueError) as error:
        raise BadInput(f"this is not a {kind.__name__} as trimtab writes it: {error}") from error
    return made


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _build(hint: Any, plain: Any) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _build_union(get_args(hint), plain)
    if origin is tuple:
        inner = get_args(hint)
        if len(inner) == 2 and inner[1] is ...:
            return tuple(_build(inner[0], item) for item in plain)
        if len(inner) != len(plain):
            raise ValueError(f"expected {len(inner)} items, got {len(plain)}")
        return tuple(_build(kind, item) for kind, item in zip(inner, plain, strict=True))
    if origin is Literal:
        if plain not in get_args(hint):
            raise ValueError(f"{plain!r} is none of {get_args(hint)}")
        return plain
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(plain, dict):
            raise TypeError(f"expected an object for {hint.__name__}")
        known = _hints(hint)
        if strange := sorted(set(plain) - set(known)):
            raise ValueError(f"{hint.__name__} has no {', '.join(strange)}")
        return hint(**{name: _build(known[name], item) for name, item in plain.items()})
    if hint is Path:
        return Path(plain)
    if hint is float and isinstance(plain, int) and not isinstance(plain, bool):
        return float(plain)
    if isinstance(hint, type) and not isinstance(plain, hint):
        raise TypeError(f"expected {hint.__name__}, got {plain!r}")
    return plain


def _build_union(members: tuple[Any, ...], plain: Any) -> Any:
    if plain is None and type(None) in members:
        return None
    for member in members:
        if isinstance(member, type) and type(plain) is member:
            return plain
    for member in members:
        if member is not type(None):
            try:
                return _build(member, plain)
            except (TypeError, ValueError):
                continue
    raise ValueError(f"{plain!r} is none of {members}")
