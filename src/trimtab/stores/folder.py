"""Measurements in a plain folder, one JSON file each."""

from __future__ import annotations

from pathlib import Path

from trimtab.core.codec import dumps, loads
from trimtab.core.errors import BadInput
from trimtab.core.files import home, write_text
from trimtab.core.values import Machine, Measurement, Options, Task, Variant, Workload, content_digest


class FolderStore:
    """Keeps each measurement in `<folder>/<key>.json`, under trimtab's home when no folder is given."""

    name = "folder"

    def __init__(self, folder: str | None = None) -> None:
        self._folder = Path(folder) if folder else home() / "measurements"

    def get(self, key: str) -> Measurement | None:
        """Return what was put under the key, or None; a damaged file counts as none and is written anew."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            return loads(Measurement, path.read_text("utf-8"))
        except (BadInput, UnicodeDecodeError):
            return None

    def put(self, key: str, measurement: Measurement) -> None:
        """Keep the measurement under the key."""
        write_text(self._path(key), dumps(measurement))

    def _path(self, key: str) -> Path:
        if not key.isalnum():
            raise BadInput(f"{key!r} is not a key: keys are letters and digits")
        return self._folder / f"{key}.json"


def measurement_key(variant: Variant, task: Task, workload: Workload, meters: Options, machine: Machine) -> str:
    """Return the key of a measurement: weights, steps, settings, task, workload, meter options, versions, machine."""
    return content_digest(variant.key, task.digest, repr(workload), repr(meters), machine.digest)
