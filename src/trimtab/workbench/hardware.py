"""Tells what this machine is and what it can do at most."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from trimtab.core import codec, files
from trimtab.core.errors import BadInput
from trimtab.core.machine import machine
from trimtab.core.values import Hardware
from trimtab.meters.peaks import peaks


def hardware(refresh: bool = False) -> Hardware:
    """Return this machine's record and peaks, measured once (about 15 s) and kept; `refresh` measures again.

    They are kept in the folder of `core.files.home`, one file per machine and set of versions.
    """
    here = machine()
    file = files.home() / "hardware" / f"{here.digest}.json"
    kept = None if refresh else _kept(file)
    if kept is not None:
        return replace(kept, machine=here)
    files.make_folder(file.parent)  # a folder that can't be written must be known before the measuring, not after
    measured = Hardware(machine=here, peaks=peaks(), time=datetime.now(UTC).isoformat(timespec="seconds"))
    files.write_text(file, codec.dumps(measured, indent=2))
    return measured


def _kept(file: Path) -> Hardware | None:
    """Return what was measured before; None when there is nothing, or nothing that this version can read."""
    try:
        return codec.loads(Hardware, file.read_text())
    except (FileNotFoundError, NotADirectoryError, BadInput):
        return None
