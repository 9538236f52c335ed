"""Draws the figures of a finished run as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimtab.reports import figures
from trimtab.workbench.report import read_result


def plot(run: Path, folder: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write every figure of a run to the folder in the formats named and return the paths."""
    return list(figures.save(figures.every(read_result(run)), folder, tuple(formats)))
