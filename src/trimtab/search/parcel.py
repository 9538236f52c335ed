"""Values with the files that they name, to be unpacked on another machine, below a folder there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from trimtab.core import plugins
from trimtab.core.files import write_bytes
from trimtab.core.protocols import Described
from trimtab.core.values import Model

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A value, and the contents of files by their paths where it comes from."""

    value: Any
    files: tuple[tuple[Path, bytes], ...]


def packed(value: Any) -> Parcel:
    """Return a value with all files that it names: of models, arrays and options that are absolute paths."""
    value = moved(value, Path.absolute)  # elsewhere a relative one would mean another
    files = dict.fromkeys(path.absolute() for path in _named(value))
    return Parcel(value=value, files=tuple((path, path.read_bytes()) for path in files))


def unpacked(parcel: Parcel, base: Path) -> Any:
    """Write the files of a parcel below a folder, and return its value as it is there."""
    for path, content in parcel.files:
        write_bytes(below(base, path), content)
    return moved(parcel.value, lambda path: below(base, path))


def below(base: Path, path: Path) -> Path:
    """Return the place below a folder of what is at an absolute path elsewhere."""
    return base / path.absolute().relative_to("/")


def written(folder: Path) -> tuple[tuple[str, bytes], ...]:
    """Return the contents of all files of a folder, by their paths in it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((path.relative_to(folder).as_posix(), path.read_bytes()) for path in found)


def moved(value: T, move: Callable[[Path], Path]) -> T:
    """Return a value with all its paths moved, the absolute ones among the options of steps too."""
    found: Any = value
    if isinstance(value, Path):
        found = move(value)
    elif isinstance(value, str) and value.startswith("/"):
        found = str(move(Path(value)))
    elif isinstance(value, tuple):
        found = tuple(moved(each, move) for each in value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: moved(getattr(value, field.name), move) for field in dataclasses.fields(value)}
        found = dataclasses.replace(value, **changed)
    return found  # type: ignore[no-any-return] # of the type that it was


def _named(value: Any) -> Iterator[Path]:
    """Yield the files that a value names; a folder only where it is a model's."""
    if isinstance(value, Model):
        yield from _files(value)
    elif isinstance(value, Path) or (isinstance(value, str) and value.startswith("/")):
        if Path(value).is_file():
            yield Path(value)
    elif isinstance(value, tuple):
        yield from _all(value)
    elif dataclasses.is_dataclass(value):
        yield from _all(getattr(value, field.name) for field in dataclasses.fields(value))


def _all(values: Iterable[Any]) -> Iterator[Path]:
    for each in values:
        yield from _named(each)


def _files(model: Model) -> Iterable[Path]:
    described = plugins.make("formats", model.format)
    if isinstance(described, Described):
        return described.contents(model).files
    return [path for path in model.path.rglob("*") if path.is_file()] if model.path.is_dir() else [model.path]
