"""The journal of a search: one JSON line per finished trial, so that a killed run continues where it was."""

from __future__ import annotations

import os
from pathlib import Path

from trimtab.core.codec import dumps, loads
from trimtab.core.errors import BadInput
from trimtab.core.files import disk_errors, make_folder
from trimtab.core.values import Step, Trial


class Journal:
    """The trials of one search in a file that is only ever appended to.

    A line that a kill cut off is dropped at the next start; everything before it counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._trials: dict[str, Trial] = {}
        make_folder(path.parent)
        if path.exists():
            self._read()

    def __len__(self) -> int:
        return len(self._trials)

    def get(self, name: str) -> Trial | None:
        """Return the finished trial of that name, or None."""
        return self._trials.get(name)

    def add(self, trial: Trial) -> None:
        """Keep a finished trial; it is on the disk when this returns."""
        self._trials[trial.name] = trial
        with disk_errors(self._path), self._path.open("a") as file:
            file.write(dumps(trial) + "\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All finished trials in the order they were made."""
        return tuple(self._trials.values())

    @property
    def seconds(self) -> float:
        """What all the finished trials took, and making what they tried."""
        return sum(trial.seconds for trial in self._trials.values()) + sum(self._making().values())

    def cost(self, trial: Trial) -> float:
        """Return the seconds that one trial took, and all the steps that made its variant."""
        making = self._making()
        return trial.seconds + sum(making.get(trial.steps[:end], 0.0) for end in range(1, len(trial.steps) + 1))

    def _making(self) -> dict[tuple[Step, ...], float]:
        """Return the seconds that the last one of some steps took, once for all the trials that share them."""
        found: dict[tuple[Step, ...], float] = {}
        for trial in self._trials.values():
            for end, took in enumerate(trial.making_s, 1):
                found[trial.steps[:end]] = max(took, found.get(trial.steps[:end], 0.0))
        return found

    def _read(self) -> None:
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(
            whole.split(b"\n")[:-1], start=1
        ):  # a name may hold what str takes for a line end
            try:
                trial = loads(Trial, line.decode())
            except (BadInput, UnicodeDecodeError) as error:
                raise BadInput(
                    f"line {number} of {self._path} is damaged; delete the folder {self._path.parent} to start afresh"
                ) from error
            self._trials[trial.name] = trial
        if len(whole) < len(content):
            with disk_errors(self._path), self._path.open("r+b") as file:
                file.truncate(len(whole))
