"""Arrays on disk: `.npy` files, memory-mapped when read, written row by row and renamed when whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.files import whole_file
from trimtab.core.protocols import Array
from trimtab.core.values import ArrayFile

CHUNK = 128
"""Rows that are read, prepared or written at a time."""


def open_array(file: ArrayFile) -> Array:
    """Return the array, memory-mapped and read-only; raise `BadInput` when the file is gone or not as written."""
    try:
        array: Array = np.load(file.path, mmap_mode=None if 0 in file.shape else "r", allow_pickle=False)
    except FileNotFoundError:
        raise BadInput(f"the data file {file.path} is gone; run again with --data to make it anew") from None
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"the data file {file.path} is damaged ({error}); delete it and run again") from error
    if array.shape != file.shape or array.dtype.name != file.dtype:
        raise BadInput(
            f"the data file {file.path} holds {array.dtype.name} {list(array.shape)} instead of {file.dtype} "
            f"{list(file.shape)}; delete it and run again"
        )
    return array


def save_array(name: str, path: Path, array: Array) -> ArrayFile:
    """Write an array as `.npy` and return it as the file that feeds `name`; a crash leaves no half-written file."""
    whole = np.asarray(array)
    return save_rows(name, path, (whole[part] for part in parts(len(whole))), len(whole))


def save_rows(name: str, path: Path, chunks: Iterable[Array], rows: int) -> ArrayFile:
    """Write chunks of rows, `rows` in all, as one `.npy` file without ever holding more than one chunk.

    Raises:
        BadInput: there is no chunk, or one's dtype or item shape differs from the first one's.
    """
    first: Array | None = None
    with whole_file(path) as file:
        for chunk in chunks:
            if first is None:
                first, shape = chunk, (rows, *chunk.shape[1:])
                header = {"descr": np.lib.format.dtype_to_descr(chunk.dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            elif chunk.shape[1:] != first.shape[1:] or chunk.dtype != first.dtype:
                raise BadInput(f"{name}: {_shown(chunk)} follows {_shown(first)}; all items must be alike")
            file.write(chunk.tobytes())
        if first is None:
            raise BadInput(f"{name}: there are no items; give at least one")
    return ArrayFile(name=name, path=path, dtype=first.dtype.name, shape=shape)


def parts(rows: int, size: int = CHUNK) -> Iterator[slice]:
    """Yield slices of at most `size` rows that cover `rows` rows in order."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def row_digests(arrays: Iterable[Array]) -> list[bytes]:
    """Return one 16-byte digest per row over the raw bytes of all arrays, which have the same number of rows."""
    rows = zip(*arrays, strict=True)
    return [hashlib.blake2b(b"".join(item.tobytes() for item in row), digest_size=16).digest() for row in rows]


def _shown(chunk: Array) -> str:
    return f"{chunk.dtype.name} {list(chunk.shape[1:])}"
