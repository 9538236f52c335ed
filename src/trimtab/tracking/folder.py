"""Runs in a plain folder: `configuration.json`, `readings.jsonl`, `status.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from trimtab.core.files import disk_errors, home, make_folder, write_text
from trimtab.core.values import Reading, Scalar
from trimtab.tracking.runs import begun, checked_name, json_lines


class FolderTracker:
    """Logs each run to `<folder>/<run>/`, under trimtab's home when no folder is given."""

    name = "folder"

    def __init__(self, folder: str | None = None) -> None:
        self._root = Path(folder) if folder else home() / "runs"
        self._run: Path | None = None

    def start(self, run: str, configuration: Mapping[str, Scalar]) -> None:
        """Begin a run; a run of the same name is continued."""
        self._run = make_folder(self._root / checked_name(run))
        (self._run / "status.json").unlink(missing_ok=True)  # one that goes on has not ended
        write_text(self._run / "configuration.json", json.dumps(dict(configuration), indent=2))

    def log(self, readings: Sequence[Reading], step: int) -> None:
        """Append readings, one JSON object a line."""
        path = self._folder() / "readings.jsonl"
        with disk_errors(path), path.open("a") as file:
            file.write(json_lines(readings, step))

    def end(self, status: str, artifacts: Sequence[Path]) -> None:
        """Write how the run ended and which files it made."""
        ended = {"status": status, "artifacts": [str(path) for path in artifacts]}
        write_text(self._folder() / "status.json", json.dumps(ended, indent=2))
        self._run = None

    def _folder(self) -> Path:
        return begun(self._run)
