"""What every tracker asks: whether a name is one, whether a run was begun, and what a reading comes to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from trimtab.core.codec import to_plain
from trimtab.core.errors import BadInput
from trimtab.core.values import Reading

T = TypeVar("T")


def checked_name(run: str) -> str:
    """Return the name of a run; raise `BadInput` for one that can't be the name of a folder."""
    if run in ("", "..") or Path(run).name != run:
        raise BadInput(f"{run!r} is not a name of a run: use letters, digits and dashes")
    return run


def begun(run: T | None) -> T:
    """Return the run that was started; raise `BadInput` when none was."""
    if run is None:
        raise BadInput("no run was started: call start() before log() and end()")
    return run


def points(reading: Reading, name: str) -> list[tuple[str, float]]:
    """Return the value under the name, and the ends of its interval under `.low` and `.high` where it has one."""
    held = ((name, reading.value), (f"{name}.low", reading.low), (f"{name}.high", reading.high))
    return [(point, float(value)) for point, value in held if value is not None]


def json_lines(readings: Sequence[Reading], step: int) -> str:
    """Return everything that readings say, with their step and this moment, as one JSON object a line."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return "".join(json.dumps({"step": step, "time": now, **to_plain(reading)}) + "\n" for reading in readings)
