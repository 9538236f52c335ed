"""Reads `.npz` and `.npy` files: `inputs` or one array per model input, `labels`, `groups`, `split`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trimtab.core.errors import BadInput, Unsafe
from trimtab.core.protocols import Array
from trimtab.data.table import ANY, LABELS, SPLITS, TEXT, Table, Wanted

_INPUTS = ("inputs", "input", "x", "X", "data", "images")


def read_npz(path: Path, wanted: Wanted) -> Table:
    """Return the arrays of an `.npz` file as a table."""
    return from_arrays(npz_arrays(path), wanted, str(path))


def npz_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of an `.npz` file by name."""
    _need_start(path, b"PK")
    try:
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def read_npy(path: Path) -> Table:
    """Return one `.npy` array, memory-mapped, as the model's only input, without labels."""
    _need_start(path, b"\x93NUMPY")
    try:
        return Table(columns={ANY: np.load(path, mmap_mode="r", allow_pickle=False)})
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error


def from_arrays(arrays: Mapping[str, Array], wanted: Wanted, source: str) -> Table:
    """Return named arrays as a table; raise `BadInput` that names the expected arrays when an input has none."""
    left = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in left.items():
        if array.dtype == object and not all(isinstance(item, str) for item in array.flat):
            raise BadInput(f"{source}: {name!r} holds Python objects; store plain numbers of one shape per item")
        if array.ndim == 0:
            raise BadInput(f"{source}: {name!r} is a single number; each array needs one row per item")
    named = all(name in left for name in wanted.names)
    columns = {name: left.pop(name) for name in wanted.names} if named else {}
    labels, groups, splits = (_take(left, names) for names in (LABELS, wanted.groups, SPLITS))
    if not named:
        columns = _only(left, wanted.names, source)
    return Table(columns=columns, labels=labels, groups=groups, splits=None if splits is None else splits.astype(str))


def _only(left: Mapping[str, Array], wanted: tuple[str, ...], source: str) -> dict[str, Array]:
    texts = [name for name, array in left.items() if array.dtype.kind in "OU"]
    if len(texts) == 1:
        return {TEXT: left[texts[0]]}
    name = next((name for name in _INPUTS if name in left), None)
    if name is None and len(left) == 1:
        name = next(iter(left))
    if len(wanted) == 1 and name is not None:
        return {ANY: left[name]}
    arrays = "'inputs'" if len(wanted) == 1 else ", ".join(map(repr, wanted))
    raise BadInput(
        f"{source}: the model takes {', '.join(map(repr, wanted))} but the data holds "
        f"{', '.join(map(repr, left)) or 'no inputs'}; name the array{'s' * (len(wanted) > 1)} {arrays}"
    )


def _take(left: dict[str, Array], names: tuple[str, ...]) -> Array | None:
    found = next((name for name in names if name in left), None)
    return None if found is None else left.pop(found)


def _need_start(path: Path, magic: bytes) -> None:
    """Raise `BadInput` unless the file begins as its kind does: numpy takes anything else for a pickle."""
    try:
        with path.open("rb") as file:
            start = file.read(len(magic))
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror}") from error
    if start != magic:
        raise BadInput(f"{path} is not a {path.suffix} file (it begins with {start!r}); write it with numpy.savez")


def _unreadable(path: Path, error: Exception) -> BadInput:
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        return Unsafe(f"{path} holds pickled Python objects, which can run code; save plain arrays with numpy.savez")
    return BadInput(f"{path} can't be read as numpy arrays ({error}); write it again with numpy.savez")
