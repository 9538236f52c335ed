"""Runs in a plain folder: `configuration.json`, `readings.jsonl`, `status.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from trimtab.core.codec import to_plain
from trimtab.core.errors import BadInput
from trimtab.core.files import disk_errors, home, make_folder, write_text
from trimtab.core.values import Reading, Scalar


class FolderTracker:
    """Logs each run to `<folder>/<run>/`, under trimtab's home when no folder is given."""

    name = "folder"

    def __init__(self, folder: str | None = None) -> None:
        self._root = Path(folder) if folder else home() / "runs"
        self._run: Path | None = None

    def start(self, run: str, configuration: Mapping[str, Scalar]) -> None:
        """Begin a run; a run of the same name is continued."""
        if run in ("", "..") or Path(run).name != run:
            raise BadInput(f"{run!r} is not a name of a run: use letters, digits and dashes")
        self._run = make_folder(self._root / run)
        (self._run / "status.json").unlink(missing_ok=True)  # one that goes on has not ended
        write_text(self._run / "configuration.json", json.dumps(dict(configuration), indent=2))

    def log(self, readings: Sequence[Reading], step: int) -> None:
        """Append readings, one JSON object a line."""
        path = self._folder() / "readings.jsonl"
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        lines = [json.dumps({"step": step, "time": now, **to_plain(reading)}) + "\n" for reading in readings]
        with disk_errors(path), path.open("a") as file:
            file.writelines(lines)

    def end(self, status: str, artifacts: Sequence[Path]) -> None:
        """Write how the run ended and which files it made."""
        ended = {"status": status, "artifacts": [str(path) for path in artifacts]}
        write_text(self._folder() / "status.json", json.dumps(ended, indent=2))
        self._run = None

    def _folder(self) -> Path:
        if self._run is None:
            raise BadInput("no run was started: call start() before log() and end()")
        return self._run
