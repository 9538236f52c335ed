"""Reads how large a model is: parameters, and bytes on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from trimtab.core import plugins
from trimtab.core.protocols import Described, Session
from trimtab.core.values import Model, Reading, Task, Trace, Variant, Workload
from trimtab.meters.readings import unavailable


class SizeMeter:
    """Reads the size of a model from its files.

    `parameters` are the elements of all weights, however they are stored: floats and quantized integers, not their
    scales and zero points, nor scalars and indices. `bytes` are those of all files that the model needs.
    """

    name = "size"
    readings: ClassVar = {"parameters": "1", "bytes": "B"}

    def read(self, session: Session, variant: Variant, task: Task, workload: Workload) -> Sequence[Reading | Trace]:
        """Return `parameters` and `bytes`."""
        return size(variant.model)


def size(model: Model) -> tuple[Reading, ...]:
    """Return the readings `parameters` and `bytes` of a model."""
    described = plugins.make("formats", model.format)
    if not isinstance(described, Described):
        missing = unavailable("parameters", f"the format {model.format} does not say its parameters")
        return (missing, _bytes(_files(model.path)))
    contents = described.contents(model)
    kinds = ", ".join(f"{count:,} {dtype}" for dtype, count in contents.parameters) or "no weights"
    return (_reading("parameters", sum(count for _, count in contents.parameters), kinds), _bytes(contents.files))


def compression(original: Iterable[Reading], compressed: Iterable[Reading]) -> tuple[Reading, ...]:
    """Return the compression rates original / compressed, of parameters and of bytes; 4 is a quarter of the size."""
    before, after = ({reading.name: reading.value for reading in given} for given in (original, compressed))
    return tuple(_rate(name, before.get(name), after.get(name)) for name in ("parameters", "bytes"))


def _rate(name: str, before: float | None, after: float | None) -> Reading:
    if before is None or not after:
        return unavailable(f"compression_{name}", f"{name} of one of the two are not known")
    return Reading(
        name=f"compression_{name}",
        value=before / after,
        direction="higher",
        provenance="counted",
        source="original / compressed",
        scope=name,
    )


def _files(path: Path) -> tuple[Path, ...]:
    return tuple(sorted(file for file in path.rglob("*") if file.is_file())) if path.is_dir() else (path,)


def _bytes(files: Sequence[Path]) -> Reading:
    scope = "on disk, " + (f"{len(files)} files" if len(files) != 1 else "one file")
    return _reading("bytes", sum(file.stat().st_size for file in files), scope)


def _reading(name: str, value: int, scope: str) -> Reading:
    return Reading(
        name=name,
        value=float(value),
        unit="B" if name == "bytes" else "1",
        direction="lower",
        provenance="counted",
        source="files of the model",
        scope=scope,
    )
