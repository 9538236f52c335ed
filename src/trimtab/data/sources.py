"""Finds out what `--data` names and reads it: a file, a folder, `module:function`, or an object from Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trimtab.core.errors import BadInput, Unsafe
from trimtab.core.values import Signature
from trimtab.data.folders import media_files, read_class_folders, read_flat_folder
from trimtab.data.idx import idx_files, read_idx, read_idx_folder
from trimtab.data.npz import read_npy, read_npz
from trimtab.data.python import call, find_function, from_python, is_reference
from trimtab.data.rows import read_csv, read_json_lines
from trimtab.data.table import ANY, GROUPS, SPLIT_NAMES, Table, Wanted, checked, joined

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
    inputs = tuple((spec.name, spec.dtype) for spec in signature.data_inputs)
    wanted = Wanted(inputs=inputs, groups=GROUPS if groups is None else (groups,))
    table = checked(_read(source, wanted), str(source) if isinstance(source, str | Path) else "the data")
    if groups is not None and table.groups is None:
        raise BadInput(f"the data has no array or column {groups!r} that could be its --groups; check the name")
    return table


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
