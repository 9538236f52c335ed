"""The items to train on as they are kept on disk: as the task has them, or prepared once in fewer bytes.

What is kept is a row of shards, memory-mapped `.npy` files, so that no more of it is in memory than is read. What is
left to do for a batch is one fused operation: bytes × step + origin, or bf16 widened to fractions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.errors import BadInput
from trimtab.core.memo import remembered
from trimtab.core.protocols import Array
from trimtab.core.values import ArrayFile, Split, Task, content_digest
from trimtab.data.arrays import CHUNK, open_array, parts, save_rows
from trimtab.data.batches import Feed, prepared
from trimtab.formats.torch_tracing import import_torch

Rows = NDArray[np.int64]
Items = Callable[[Rows], Feed]
"""Hands out items by their positions in the split, prepared for the model."""

_SHARD_BYTES = 64 << 20
_LEVELS = 256  # of a byte
_MOST_CHANNELS = 4
_ROUNDED = 4  # units in the last place that the fused operation may be off
_TIMED = 30
_WHOLE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The shards of one model input, and what makes its numbers of theirs.

    With `steps` and `origins`, one for all numbers or one for each channel along `axis`, a byte b stands for
    b × step + origin. Without them the numbers are the kept ones, widened to `dtype`; bf16 is kept as uint16.
    """

    name: str
    dtype: str
    shards: tuple[ArrayFile, ...]
    axis: int = 0
    steps: tuple[float, ...] = ()
    origins: tuple[float, ...] = ()
    bf16: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How a split is kept, what that takes, and what it took before: bytes, and median seconds to prepare a batch.

    `prepared_bytes` are those of the items as the model is fed. `off` is the largest difference that keeping makes to a
    number, over the batches that were timed.
    """

    store: str
    inputs: tuple[Kept, ...]
    bytes: int
    given_bytes: int
    prepared_bytes: int
    batch_s: float
    given_batch_s: float
    off: float


class Given:
    """Items as the task keeps them, prepared batch by batch."""

    def __init__(self, task: Task, split: Split) -> None:
        self._held = {file.name: np.asarray(open_array(file)) for file in split.inputs}
        self._steps = task.preprocessing

    def __call__(self, rows: Rows | slice) -> Feed:
        """Return the prepared feed of those items."""
        return prepared({name: array[rows] for name, array in self._held.items()}, self._steps)


class Stored:
    """Items that were prepared and kept in shards of equal numbers of rows (but for the last)."""

    def __init__(self, inputs: tuple[Kept, ...]) -> None:
        self._inputs = inputs
        self._shards = {each.name: [np.asarray(open_array(file)) for file in each.shards] for each in inputs}

    def __call__(self, rows: Rows) -> Feed:
        """Return the prepared feed of those items."""
        return {each.name: _widened(each, self._rows(self._shards[each.name], rows)) for each in self._inputs}

    @staticmethod
    def _rows(shards: list[Array], rows: Rows) -> Array:
        if len(shards) == 1:
            return shards[0][rows]
        number, place = np.divmod(rows, len(shards[0]))
        found = np.empty((len(rows), *shards[0].shape[1:]), shards[0].dtype)
        for shard in np.unique(number):
            here = number == shard
            found[here] = shards[shard][place[here]]
        return found


def kept_items(task: Task, split: Split, store: str, folder: Path, batch: int) -> tuple[Items, Keeping | None]:
    """Return the items of a split kept in a store, made below the folder where they are not there yet.

    Args:
        task: says how items are prepared.
        split: the items.
        store: "as-given", "float32", "bf16" or "uint8"; whole numbers are kept in the narrowest type that holds them.
        folder: gets a folder for this split.
        batch: how many items are read at a time, for what that takes.

    Raises:
        BadInput: a byte can't hold every number of an input.
    """
    given = Given(task, split)
    if store == "as-given":
        return given, None
    place = folder / f"{store}-{content_digest(task.digest, split.digest)[:12]}"

    def make() -> Keeping:
        inputs = tuple(_keep(name, given, len(split), store, place) for name in given(slice(0, 1)))
        return _measured(store, inputs, given, split, batch)

    keeping = remembered(place / "kept.json", Keeping, make)
    return Stored(keeping.inputs), keeping


def _keep(name: str, given: Given, rows: int, store: str, place: Path) -> Kept:
    """Write the shards of one input and return what they are."""
    first = given(slice(0, 1))[name]
    if first.dtype.kind in "iub":
        narrow = _narrowest(given, name, rows) if first.dtype.kind != "b" else first.dtype
        return Kept(name=name, dtype=first.dtype.name, shards=_shards(name, given, rows, place, _cast(narrow)))
    if store == "float32":
        return Kept(
            name=name, dtype=first.dtype.name, shards=_shards(name, given, rows, place, _cast(np.dtype(np.float32)))
        )
    if store == "bf16":
        return Kept(name=name, dtype=first.dtype.name, shards=_shards(name, given, rows, place, _to_bf16), bf16=True)
    axis, steps, origins = _grid(name, given, rows)
    along = _along(first, axis)

    def to_bytes(array: Array) -> Array:
        numbers: Array = np.rint((array - np.reshape(origins, along)) / np.reshape(steps, along)).astype(np.uint8)
        return numbers

    return Kept(
        name=name,
        dtype=first.dtype.name,
        shards=_shards(name, given, rows, place, to_bytes),
        axis=axis,
        steps=steps,
        origins=origins,
    )


def _shards(name: str, given: Given, rows: int, place: Path, change: Callable[[Array], Array]) -> tuple[ArrayFile, ...]:
    each = change(given(slice(0, 1))[name])
    size = max(CHUNK, _SHARD_BYTES // max(1, each.nbytes) // CHUNK * CHUNK)
    made = []
    for number, shard in enumerate(parts(rows, size)):
        path = place / f"{content_digest(name)[:8]}-{number:04d}.npy"
        chunks = _chunks(name, given, shard, change)
        made.append(save_rows(name, path, chunks, shard.stop - shard.start))
    return tuple(made)


def _chunks(
    name: str, given: Given, rows: slice, change: Callable[[Array], Array] = lambda array: array
) -> Iterator[Array]:
    for part in parts(rows.stop - rows.start):
        yield change(given(slice(rows.start + part.start, rows.start + part.stop))[name])


def _grid(name: str, given: Given, rows: int) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Return the axis of the channels, and the step and origin of each of them (of all, where there are none).

    Raises:
        BadInput: some channel takes more values than a byte has, or they are not equally spaced.
    """
    first = given(slice(0, 1))[name]
    axis = next((axis for axis in (1, 3) if first.ndim == 4 and first.shape[axis] <= _MOST_CHANNELS), 0)
    channels = [np.empty(0, first.dtype)] * (first.shape[axis] if axis else 1)
    for chunk in _chunks(name, given, slice(0, rows)):
        split = np.moveaxis(chunk, axis, 0) if axis else [chunk]
        channels = [np.unique(np.append(old, new)) for old, new in zip(channels, split, strict=True)]
        if max(map(len, channels)) > _LEVELS:
            raise _too_fine(name, f"it takes more than {_LEVELS} values")
    spaced = [_spacing(name, values) for values in channels]
    return axis, tuple(step for step, _ in spaced), tuple(origin for _, origin in spaced)


def _spacing(name: str, values: Array) -> tuple[float, float]:
    """Return the distance of equally spaced values (sorted) and the first of them."""
    exact = values.astype(np.float64)
    if not np.isfinite(exact).all():
        raise _too_fine(name, "not all of its values are finite")
    if len(exact) == 1:
        return 1.0, float(exact[0])
    span = exact[-1] - exact[0]
    levels = round(span / np.diff(exact).min())
    step = span / levels
    number = np.rint((exact - exact[0]) / step)
    made = _fused(number.astype(np.uint8), np.array(step), exact[:1], values.dtype)
    most = _ROUNDED * float(np.finfo(values.dtype).eps) * float(np.abs(exact).max())
    if levels >= _LEVELS or float(np.abs(made - exact).max()) > most:
        raise _too_fine(name, "its values are not equally spaced")
    return float(step), float(exact[0])


def _too_fine(name: str, why: str) -> BadInput:
    return BadInput(f"store=uint8 can't hold the input {name!r} exactly: {why}; give store=bf16 or store=float32")


def _fused(numbers: Array, steps: Array, origins: Array, dtype: Any) -> Array:
    """Return numbers × steps + origins, in place from the first operation on."""
    made: Array = numbers.astype(dtype)
    made *= steps.astype(dtype)
    made += origins.astype(dtype)
    return made


def _along(array: Array, axis: int) -> tuple[int, ...]:
    """Return the shape in which values for the channels stand beside the array."""
    return tuple(-1 if axis and place == axis else 1 for place in range(array.ndim))


def _widened(kept: Kept, array: Array) -> Array:
    if kept.steps:
        along = _along(array, kept.axis)
        return _fused(array, np.reshape(kept.steps, along), np.reshape(kept.origins, along), np.dtype(kept.dtype))
    if kept.bf16:
        array = (array.astype(np.uint32) << 16).view(np.float32)  # bf16 is the upper half of float32
    return np.ascontiguousarray(array.astype(kept.dtype, copy=False))


def _to_bf16(array: Array) -> Array:
    """Return the bits of fractions rounded to bf16 as uint16."""
    torch = import_torch("training")
    rounded: Array = torch.tensor(array, dtype=torch.bfloat16).view(torch.uint16).numpy()
    return rounded


def _cast(dtype: Any) -> Callable[[Array], Array]:
    return lambda array: array.astype(dtype, copy=False)


def _narrowest(given: Given, name: str, rows: int) -> Any:
    ends = [(int(chunk.min()), int(chunk.max())) for chunk in _chunks(name, given, slice(0, rows)) if chunk.size]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return next(np.dtype(kind) for kind in _WHOLE if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)


def _measured(store: str, inputs: tuple[Kept, ...], given: Given, split: Split, batch: int) -> Keeping:
    """Return what keeping the items so takes, batches of both ways read in turn."""
    stored, rng = Stored(inputs), np.random.default_rng(0)
    ways: tuple[Items, Items] = (stored, given)
    taken: tuple[list[float], list[float]] = ([], [])
    off = 0.0
    for part in parts(len(split)):
        stored(np.arange(part.start, part.stop))  # whose pages are new to the process; those of the others are not
    for turn in range(_TIMED):
        rows = rng.permutation(len(split))[:batch]
        feeds: dict[int, Feed] = {}
        for way in (turn % 2, 1 - turn % 2):  # who comes second finds the rows in the cache
            begun = time.perf_counter()
            feeds[way] = ways[way](rows)
            taken[way].append(time.perf_counter() - begun)
        off = max(off, *(_apart(feeds[0][name], feeds[1][name]) for name in feeds[0]))
    first = given(slice(0, 1))
    return Keeping(
        store=store,
        inputs=inputs,
        bytes=sum(file.path.stat().st_size for each in inputs for file in each.shards),
        given_bytes=sum(file.path.stat().st_size for file in split.inputs),
        prepared_bytes=len(split) * sum(array.nbytes for array in first.values()),
        batch_s=float(np.median(taken[0])),
        given_batch_s=float(np.median(taken[1])),
        off=off,
    )


def _apart(one: Array, other: Array) -> float:
    return float(np.abs(one.astype(np.float64) - other).max()) if one.size else 0.0
