"""Results that a killed run finds again: computed once, kept as JSON, read back as values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from trimtab.core.codec import dumps, loads
from trimtab.core.errors import BadInput
from trimtab.core.files import write_text

T = TypeVar("T")


def remembered(path: Path, kind: type[T], make: Callable[[], T]) -> T:
    """Return the value kept at `path`, or make it and keep it; raise `BadInput` for a file that is damaged."""
    if path.is_file():
        try:
            return loads(kind, path.read_text("utf-8", errors="replace"))
        except BadInput as error:
            raise BadInput(f"{path} is damaged ({error}); delete it and run again") from error
    made = make()
    write_text(path, dumps(made))
    return made
