"""Reads how large a model is: parameters, bytes on disk, and what is left of them when they are compressed."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from trimtab.core import plugins
from trimtab.core.protocols import Described, Session
from trimtab.core.values import Model, Reading, Task, Trace, Variant, Workload
from trimtab.meters.readings import unavailable

_LEVEL = 6  # of deflate, as zip and gzip choose it
_CHUNK = 1 << 22


class SizeMeter:
    """Reads the size of a model from its files.

    `parameters` are the elements of all weights, however they are stored: floats and quantized integers, not their
    scales and zero points, nor scalars and indices. `bytes` are those of all files that the model needs, and
    `bytes_compressed` those of the same files in a zip archive (deflate, level 6): what a download takes, and where
    zeros among the weights pay.
    """

    name = "size"
    readings: ClassVar = {"parameters": "1", "bytes": "B", "bytes_compressed": "B"}

    def read(self, session: Session, variant: Variant, task: Task, workload: Workload) -> Sequence[Reading | Trace]:
        """Return `parameters`, `bytes` and `bytes_compressed`."""
        return (*size(variant.model), compressed(variant.model))


def size(model: Model) -> tuple[Reading, ...]:
    """Return the readings `parameters` and `bytes` of a model."""
    described = plugins.make("formats", model.format)
    if not isinstance(described, Described):
        missing = unavailable("parameters", f"the format {model.format} does not say its parameters")
        return (missing, _bytes(_files(model.path)))
    contents = described.contents(model)
    kinds = ", ".join(f"{count:,} {dtype}" for dtype, count in contents.parameters) or "no weights"
    return (_reading("parameters", sum(count for _, count in contents.parameters), kinds), _bytes(contents.files))


@functools.lru_cache(maxsize=256)
def compressed(model: Model) -> Reading:
    """Return the reading `bytes_compressed` of a model, in about 30 ms for each megabyte; asked again, at once."""
    total = 0
    for path in _of(model):
        packer = zlib.compressobj(_LEVEL)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total += len(packer.compress(chunk))
        total += len(packer.flush())
    return _reading("bytes_compressed", total, f"deflate, level {_LEVEL}")


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


def _of(model: Model) -> Sequence[Path]:
    """Return the files that a model needs, as its format tells or, where it doesn't, all that are there."""
    described = plugins.make("formats", model.format)
    return described.contents(model).files if isinstance(described, Described) else _files(model.path)


def _files(path: Path) -> tuple[Path, ...]:
    return tuple(sorted(file for file in path.rglob("*") if file.is_file())) if path.is_dir() else (path,)


def _bytes(files: Sequence[Path]) -> Reading:
    scope = "on disk, " + (f"{len(files)} files" if len(files) != 1 else "one file")
    return _reading("bytes", sum(file.stat().st_size for file in files), scope)


def _reading(name: str, value: int, scope: str) -> Reading:
    return Reading(
        name=name,
        value=float(value),
        unit="1" if name == "parameters" else "B",
        direction="lower",
        provenance="counted",
        source="files of the model",
        scope=scope,
    )
