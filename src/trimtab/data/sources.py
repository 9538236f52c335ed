"""Finds out what `--data` names and reads it: a file, a folder, `module:function`, or an object from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trimtab.core.errors import BadInput, Unsafe
from trimtab.core.protocols import Array
from trimtab.core.values import Signature
from trimtab.data.folders import media_files, read_class_folders, read_flat_folder
from trimtab.data.idx import idx_files, read_idx, read_idx_folder
from trimtab.data.npz import from_arrays, npz_arrays, read_npy, read_npz
from trimtab.data.python import call, find_function, from_python, is_reference, parts
from trimtab.data.rows import read_csv, read_json_lines
from trimtab.data.table import (
    ANY,
    GROUPS,
    LABELS,
    SPLIT_NAMES,
    SPLITS,
    TEXT,
    Files,
    Table,
    Wanted,
    checked,
    joined,
    numbers_only,
)

_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
_KINDS = ".npz, .npy, .csv, .tsv, .jsonl, an IDX file, a folder of IDX files or of class folders, or module:function"

_FILES: dict[str, Callable[[Path, Wanted], Table]] = {
    ".npz": read_npz,
    ".npy": lambda path, _: read_npy(path),
    ".csv": read_csv,
    ".tsv": read_csv,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
}


def read_source(source: Any, signature: Signature, groups: str | None = None) -> Table:
    """Return what the source holds for a model of that signature; `groups` names the array or column of groups.

    Raises:
        BadInput: the source can't be read, or doesn't hold what the model takes; one clear line.
    """
    numbers_only(signature)
    inputs = tuple((spec.name, spec.dtype) for spec in signature.data_inputs)
    wanted = Wanted(inputs=inputs, groups=GROUPS if groups is None else (groups,))
    table = checked(_read(source, wanted), str(source) if isinstance(source, str | Path) else "the data")
    if groups is not None and table.groups is None:
        raise BadInput(f"the data has no array or column {groups!r} that could be its --groups; check the name")
    return table


def first_items(source: Any, takes: Sequence[str], needs: Sequence[str]) -> dict[str, Array]:
    """Return the first items of a source by the argument of a function that each array feeds, with their batch axis.

    Args:
        source: What `--data` takes. Of files only .npz and .npy are read, of a Dataset or DataLoader the first item or
            batch.
        takes: The arguments of the function.
        needs: Those of them without a default. What is named like labels and not needed is no input.

    Returns:
        Nothing, where the items are not told without a model.

    Raises:
        BadInput: the source can't be read, or lacks an argument; one clear line.
    """
    wanted = Wanted(inputs=tuple((name, "") for name in takes))
    arrays = _first_arrays(source, wanted)
    beside = {*LABELS, *GROUPS, *SPLITS} - set(needs)
    held = [name for name in takes if name in arrays and name not in beside]
    named = (held if set(needs) <= set(held) else list(needs)) or list(takes[:1])
    if not arrays or not named:
        return {}
    table = from_arrays(arrays, Wanted(inputs=tuple((name, "") for name in named)), "the data")
    return {name or named[0]: array for name, array in _arrays(table).items() if name != TEXT}


def _first_arrays(source: Any, wanted: Wanted) -> dict[str, Array]:
    if not isinstance(source, str | Path):
        return next(parts(source, wanted, "the data"), {})
    path = Path(source)
    if path.suffix.lower() == ".npz":
        return npz_arrays(path)
    return {"inputs": _arrays(read_npy(path))[ANY]} if path.suffix.lower() == ".npy" else {}


def _arrays(table: Table) -> dict[str, Array]:
    return {name: column for name, column in table.columns.items() if not isinstance(column, Files)}


def _read(source: Any, wanted: Wanted) -> Table:
    if not isinstance(source, str | Path):
        return from_python(source, wanted, "the data")
    name, path = str(source), Path(source)
    if path.exists():
        return _read_folder(path, wanted) if path.is_dir() else _read_file(path, wanted)
    if not is_reference(name):
        raise BadInput(f"there is no file or folder {name}; --data takes {_KINDS}")
    return from_python(call(find_function(name)), wanted, name)


def _read_file(path: Path, wanted: Wanted) -> Table:
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise Unsafe(f"{path} is a pickle, which can run code; save the data as .npz (numpy.savez) instead")
    if suffix in _FILES:
        return _FILES[suffix](path, wanted)
    if "ubyte" in path.name or suffix in (".idx", ".gz"):
        return Table(columns={ANY: read_idx(path)})
    raise BadInput(f"{path} is not a kind of data that trimtab reads; --data takes {_KINDS}")


def _read_folder(folder: Path, wanted: Wanted) -> Table:
    try:
        inside = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    except OSError as error:
        raise BadInput(f"the folder {folder} can't be read: {error.strerror}") from error
    if not inside:
        raise BadInput(f"the folder {folder} is empty; --data takes {_KINDS}")
    if idx_files(folder):
        return read_idx_folder(folder)
    files = [path for path in inside if path.is_file() and path.suffix.lower() in _FILES]
    folders = [path for path in inside if path.is_dir()]
    if files and not any(media_files(held) for held in folders):
        return _read_named_files(files, folder, wanted)
    if folders and all(path.name.lower() in SPLIT_NAMES for path in folders):
        return _parts({path.name.lower(): _read_folder(path, wanted) for path in folders}, folder)
    if folders:
        return read_class_folders(folder)
    if media_files(folder):
        return read_flat_folder(folder)
    raise BadInput(f"the folder {folder} holds nothing that trimtab reads; --data takes {_KINDS}")


def _read_named_files(files: list[Path], folder: Path, wanted: Wanted) -> Table:
    if len(files) == 1 and files[0].stem.lower() not in SPLIT_NAMES:
        return _read_file(files[0], wanted)
    strangers = [path.name for path in files if path.stem.lower() not in SPLIT_NAMES]
    stems = [path.stem.lower() for path in files]
    if strangers or len(set(stems)) < len(stems):
        raise BadInput(
            f"{folder} holds several data files ({', '.join(path.name for path in files)}); name one of them, "
            f"or name each for its split: {', '.join(SPLIT_NAMES)}"
        )
    return _parts({path.stem.lower(): _read_file(path, wanted) for path in files}, folder)


def _parts(named: dict[str, Table], folder: Path) -> Table:
    """Return the parts of a folder as one table, each item marked with its part; a lone part is simply the data."""
    named = {name: checked(table, f"{folder}/{name}") for name, table in named.items()}
    return joined(named, str(folder)) if len(named) > 1 else next(iter(named.values()))
