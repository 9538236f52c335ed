"""Reads folders of IDX files, the format of MNIST: `train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte.gz` …"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.data.table import ANY, Table, joined

_NAME = re.compile(r"^(?:(train|t10k|test)[-_.])?(images|labels)[-.]idx\d[-.]ubyte(?:\.gz)?$")
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def idx_files(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the IDX files of a folder: split ("train", "test") to part ("images", "labels") to path."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := _NAME.match(path.name):
            split = {"t10k": "test", None: "test"}.get(match[1], match[1])
            found.setdefault(split, {}).setdefault(match[2], path)
    return found


def read_idx_folder(folder: Path) -> Table:
    """Return the images and labels of a folder; training items feed calibration only, the others are judged."""
    files = idx_files(folder)
    tables = {}
    for split, parts in files.items():
        if "images" not in parts:
            raise BadInput(f"{folder} has {parts['labels'].name} but no images for it; add the images file")
        labels = read_idx(parts["labels"]) if "labels" in parts else None
        tables[split] = Table(columns={ANY: read_idx(parts["images"])}, labels=labels)
        if labels is not None and len(labels) != len(tables[split]):
            raise BadInput(
                f"{parts['labels'].name} has {len(labels):,} labels for the {len(tables[split]):,} items of "
                f"{parts['images'].name}; the two files must belong together"
            )
    return joined(tables, str(folder)) if "train" in tables and len(tables) > 1 else next(iter(tables.values()))


def read_idx(path: Path) -> Array:
    """Return the array of one IDX file, gzipped or not (big-endian: two zero bytes, type, rank, sizes, data)."""
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path} can't be read ({error}); fetch it again") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES:
        raise BadInput(f"{path} is not an IDX file: it does not start with the IDX magic number; fetch it again")
    dtype, rank = np.dtype(_DTYPES[content[2]]), content[3]
    start = 4 + 4 * rank
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4")) if len(content) >= start else (-1,)
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise BadInput(f"{path} has {len(content):,} bytes where its header says {expected:,}; fetch it again")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
