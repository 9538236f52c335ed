"""Finds plug-ins through entry points; a new one is a file and a line in its own pyproject.toml."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Choices, Range
from trimtab.core.values import Options, Scalar

GROUPS = ("formats", "runtimes", "meters", "techniques", "stores", "trackers")


@cache
def _found(group: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"trimtab.{group}"):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            both = f"{_origin(other)} and {_origin(point)}"
            raise BadInput(f"two {group} are named {point.name!r}, of {both}: uninstall one of them")
    return found


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def names(group: str) -> tuple[str, ...]:
    """Return the names of the plug-ins of a group, without importing them."""
    return tuple(sorted(_found(group)))


@cache
def plugin_class(group: str, name: str) -> type[Any]:
    """Import and return the class of one plug-in; raise `BadInput` when it is unknown or can't be imported."""
    try:
        point = _found(group)[name]
    except KeyError:
        known = ", ".join(names(group))
        raise BadInput(f"there is no {group.removesuffix('s')} named {name!r}; known are: {known}") from None
    try:
        loaded: type[Any] = point.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        kind, origin = group.removesuffix("s"), _origin(point)
        raise BadInput(f"the {kind} {name!r} can't be imported ({error}): mend or uninstall {origin}") from error
    return loaded


def make(group: str, name: str, options: Options = ()) -> Any:
    """Return an instance of one plug-in with the given options."""
    kind = plugin_class(group, name)
    known = inspect.signature(kind).parameters
    for option, _ in options:
        if option not in known:
            listed = ", ".join(known) or "none"
            raise BadInput(f"{name} has no option {option!r}; its options are: {listed}")
    return kind(**dict(options))


def typed(group: str, text: str) -> tuple[str, dict[str, Scalar]]:
    """Return the plug-in that was typed as "name" or "name:option=value,option=value", and its options."""
    name, _, given = text.partition(":")
    return name, typed_options(group, name, [part for part in given.split(",") if part])


def typed_options(group: str, name: str, given: Sequence[str]) -> dict[str, Scalar]:
    """Return options of a plug-in typed as "name=value", with the types of its class's own signature."""
    kind = plugin_class(group, name)
    told = get_type_hints(kind.__init__)
    hints = {option: told.get(option, str) for option in inspect.signature(kind).parameters}
    found: dict[str, Scalar] = {}
    for text in given:
        option, equals, value = text.partition("=")
        if not equals or option not in hints:
            raise BadInput(f"{name} has no option {text!r}; its options are: {', '.join(hints) or 'none'}")
        found[option] = read_value(value, get_args(hints[option]) or (hints[option],), f"{name}'s option {option}")
    return found


def named_options(group: str, given: Sequence[str]) -> dict[str, dict[str, Scalar]]:
    """Return options typed as "plug-in.name=value" by plug-in, with the types of its class's own signature."""
    found: dict[str, dict[str, Scalar]] = {}
    for text in given:
        name, dot, option = text.partition(".")
        if not dot or "=" in name:
            raise BadInput(f'{text!r} does not say whose option it is; type it like "latency.seconds=20"')
        found.setdefault(name, {}).update(typed_options(group, name, [option]))
    return found


def read_value(text: str, kinds: Sequence[type], option: str) -> Scalar:
    """Return what was typed as the first of the types, the narrowest before the wider ones, that it fits."""
    for kind, read in _READERS.items():
        if kind in kinds:
            with suppress(KeyError, ValueError):
                return read(text)
    wanted = " or ".join(_WORDS[kind] for kind in _READERS if kind in kinds)
    raise BadInput(f"{option} takes {wanted}, not {text!r}")


_READERS: dict[type, Callable[[str], Scalar]] = {
    type(None): lambda text: {"none": None}[text.lower()],
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    int: int,
    float: float,
    str: str,
}
_WORDS = {type(None): "none", bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def every(group: str) -> list[Any]:
    """Return an instance of every plug-in of a group, with default options."""
    return [make(group, name) for name in names(group)]


def defaults(group: str, name: str) -> dict[str, Scalar]:
    """Return the options of a plug-in and their default values."""
    parameters = inspect.signature(plugin_class(group, name)).parameters
    return {option: parameter.default for option, parameter in parameters.items()}


def choices(group: str, name: str) -> dict[str, tuple[Scalar, ...]]:
    """Return the search dimensions of a plug-in: option name to the values worth trying."""
    return {option: mark.values for option, mark in _marks(group, name) if isinstance(mark, Choices)}


def ranges(group: str, name: str) -> dict[str, Range]:
    """Return the search dimensions of a plug-in that are numbers: option name to those worth trying."""
    return {option: mark for option, mark in _marks(group, name) if isinstance(mark, Range)}


def _marks(group: str, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the options of a plug-in that are annotated, with everything that marks them."""
    hints = get_type_hints(plugin_class(group, name).__init__, include_extras=True)
    for option, hint in hints.items():
        if get_origin(hint) is Annotated:
            yield from ((option, mark) for mark in get_args(hint)[1:])


def telling(technique: str, given: Options) -> Options:
    """Return the options of a step that a reader must know: those that differ from the technique's defaults.

    What a technique decided for itself (its default is None) and left off (False) is no news either, unless a search
    varies it. A technique may have another way to tell its options (`told`). Of one that isn't installed here every
    option that was set is told.
    """
    try:
        usual, varied = defaults("techniques", technique), choices("techniques", technique)
        told = getattr(plugin_class("techniques", technique), "told", tuple)
    except BadInput:
        return tuple((name, value) for name, value in given if value is not None)

    def silent(name: str, value: Scalar) -> bool:
        default = usual.get(name, ...)
        return value == default or (value is False and default is None and name not in varied)

    return tuple((name, value) for name, value in told(given) if not silent(name, value))
