"""Runs in TensorBoard's event files; of TensorFlow and PyTorch nothing is needed."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.core.errors import BadInput, MissingExtra
from trimtab.core.files import disk_errors, home, make_folder
from trimtab.core.values import Reading, Scalar
from trimtab.tracking.runs import begun, checked_name, points

_PNG = b"\x89PNG\r\n\x1a\n"
_SAID = ("name", "place", "value", "low", "high", "unit", "samples", "provenance", "scope")


class TensorBoardTracker:
    """Logs each run to `<folder>/<run>/`, under trimtab's home when no folder is given.

    Readings are scalars, of which TensorBoard keeps 32 bits, and a table in words at each step; the configuration and
    how the run ended are texts. Artifacts that are PNG files are images, of the others the path is told.
    """

    name = "tensorboard"

    def __init__(self, folder: str | None = None) -> None:
        self._root = Path(folder) if folder else home() / "tensorboard"
        self._run: Path | None = None
        self._writer: Any = None
        self._step = 0

    def start(self, run: str, configuration: Mapping[str, Scalar]) -> None:
        """Begin a run; one of the same name is continued, in a new file beside the old one."""
        folder = self._root / checked_name(run)
        try:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "tensorboard", "logging to TensorBoard") from error
        with disk_errors(folder):
            self._writer = EventFileWriter(str(make_folder(folder)))
        self._run, self._step = folder, 0
        self._write([_text("configuration", _table(("name", "value"), configuration.items()))])

    def log(self, readings: Sequence[Reading], step: int) -> None:
        """Write the readings of one step, as scalars and as a table."""
        begun(self._run)
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._step = step
        held = [point for reading in readings for point in points(reading, _series(reading))]
        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in held]
        rows = [[getattr(reading, field) for field in _SAID] for reading in readings]
        self._write([*scalars, _text("readings", _table(_SAID, rows))])

    def end(self, status: str, artifacts: Sequence[Path]) -> None:
        """Write how the run ended, the paths of the files that it made, and those that are images."""
        begun(self._run)
        try:
            self._write([_text("status", "\n".join([status, "", *(f"- {path}" for path in artifacts)]))])
            for path in artifacts:
                if path.suffix.lower() == ".png":
                    self._write([_image(path)])
        finally:
            self._writer.close()
            self._run = self._writer = None

    def _write(self, values: Sequence[Any]) -> None:
        """Put values of one step on disk."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        with disk_errors(begun(self._run)):
            self._writer.add_event(Event(wall_time=time.time(), step=self._step, summary=Summary(value=values)))
            self._writer.flush()  # the file is written by a thread, which a killed run would not wait for


def _series(reading: Reading) -> str:
    """Return the tag of a reading; TensorBoard groups by what stands before the slash."""
    return reading.name if reading.place is None else f"{reading.name}/{reading.place}"


def _text(tag: str, text: str) -> Any:
    """Return a text in Markdown as a value of a summary."""
    from tensorboard.plugins.text.summary_v2 import text_pb

    return text_pb(tag, text).value[0]


def _image(path: Path) -> Any:
    """Return a PNG file as a value of a summary; its size stands in the header, which comes first (RFC 2083, 4.1.1)."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"the artifact {path} can't be read: {error.strerror}; check who removes it") from error
    if not content.startswith(_PNG) or len(content) < 24:
        raise BadInput(f"the artifact {path} is no PNG image; give it another ending or write it anew")
    width, height = struct.unpack(">II", content[16:24])
    return Summary.Value(tag=path.name, image=Summary.Image(width=width, height=height, encoded_image_string=content))


def _table(head: Sequence[str], rows: Iterable[Sequence[Scalar]]) -> str:
    """Return a Markdown table; what is None stays empty."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Scalar) -> str:
    return "" if value is None else " ".join(str(value).replace("|", "\\|").split())
