"""Shows and frees what runs left on disk."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.core.errors import BadInput
from trimtab.core.files import disk_errors, owned

MARK = "run.txt"
"""The file in which a run keeps the digests of what it was asked; a folder without one is never touched."""

_DIGESTS = re.compile(r"([a-z ]+ [0-9a-f]{32}\n)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """The work folder of a run: its size in bytes, and whether its bundle is finished."""

    folder: Path
    bytes: int
    finished: bool


def leftovers(roots: Sequence[Path]) -> tuple[Leftover, ...]:
    """Return the work folders of runs below the folders given."""
    found: dict[Path, Leftover] = {}
    for root in roots:
        if not root.is_dir():
            raise BadInput(f"there is no folder {root}")
        for mark in sorted(root.glob(f"**/work/{MARK}")):
            if not mark.is_file() or not _DIGESTS.fullmatch(mark.read_text("utf-8", errors="replace")):
                continue  # somebody else's
            work = mark.parent
            size = sum(path.lstat().st_size for path in work.rglob("*") if path.is_file())
            finished = (work.parent / "manifest.json").is_file()
            found.setdefault(work.resolve(), Leftover(folder=work, bytes=size, finished=finished))
    return tuple(found.values())


def free(leftover: Leftover) -> None:
    """Delete a work folder; the bundle and the report beside it stay. A run that still works there is left alone."""
    with owned(leftover.folder), disk_errors(leftover.folder):
        for path in leftover.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink()
    with disk_errors(leftover.folder):
        shutil.rmtree(leftover.folder)
