"""What a source holds before it is split: columns of items with their labels, groups and named splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.core.values import Signature

ANY = ""
"""The name of a column that feeds the model's only data input, whatever that is called."""

TEXT = "text"
"""The name of a column of texts, which a `tokenize` step turns into what the model takes."""

LABELS = ("labels", "label", "targets", "target", "class", "y")
GROUPS = ("groups", "group")
SPLITS = ("splits", "split")
"""Names under which sources keep what isn't an input, the documented one first."""

JUDGE = ("test", "val", "valid", "validation")
SPLIT_NAMES = ("train", "calibrate", "select", "certify", *JUDGE)
"""Names that items may be given in advance; those of `JUDGE` are divided between select and certify."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a reader looks for: the model's data inputs (name and dtype), and what the groups may be called."""

    inputs: tuple[tuple[str, str], ...]
    groups: tuple[str, ...] = GROUPS

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the model's data inputs."""
        return tuple(name for name, _ in self.inputs)


@dataclass(frozen=True, slots=True)
class Files:
    """Items that are read one by one because they may differ in size: image files, sound files.

    `names` are what a person calls them. `decode` returns one item and, for sound, its samples per second; it raises
    `BadInput` that names a bad file.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    decode: Callable[[Path], tuple[Array, int | None]]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> tuple[Array, int | None]:
        """Return one decoded item and, for sound, its samples per second."""
        return self.decode(self.paths[row])

    def chosen(self, rows: Sequence[int]) -> Files:
        """Return some of the items."""
        return replace(self, paths=tuple(self.paths[row] for row in rows), names=tuple(self.names[row] for row in rows))


Column = Array | Files


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Columns of items by the model input they feed, all of one length.

    `labels` are numbers, or names; `classes` are the names that whole-number labels stand for when the source
    says so. `splits` holds one of `SPLIT_NAMES` for each item, or "" where the source says nothing.
    """

    columns: Mapping[str, Column]
    labels: Array | None = None
    classes: tuple[str, ...] = ()
    groups: Array | None = None
    splits: Array | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def numbers_only(signature: Signature) -> None:
    """Raise `BadInput` when the model takes strings: it can be looked at, but nothing here feeds them."""
    for spec in signature.data_inputs:
        if spec.dtype in ("object", "str"):  # what numpy and OpenVINO call strings
            raise BadInput(
                f"the model's input {spec.name!r} takes strings, which trimtab can't feed: export the part after the "
                "tokenizer or encoder, and give the numbers that come out of it"
            )


def checked(table: Table, source: str) -> Table:
    """Return the table when all its columns have one length and there is an item; raise `BadInput` otherwise."""
    if not table.columns or not len(table):
        raise BadInput(f"{source} holds no items; give data with at least a few hundred")
    lengths = {name or "inputs": len(column) for name, column in table.columns.items()}
    beside = {"labels": table.labels, "groups": table.groups, "split": table.splits}
    lengths |= {name: len(array) for name, array in beside.items() if array is not None}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise BadInput(f"{source}: the arrays differ in length ({shown}); each item needs one row in every array")
    if any(array is not None and array.ndim != 1 for array in (table.groups, table.splits)):
        raise BadInput(f"{source}: groups and split need one name or number per item; give arrays of one dimension")
    if table.splits is not None:
        unknown = sorted({str(name) for name in table.splits} - {"", *SPLIT_NAMES})
        if unknown:
            raise BadInput(f"{source}: unknown split {unknown[0]!r}; known are {', '.join(SPLIT_NAMES)}")
    return table


def joined(named: Mapping[str, Table], source: str) -> Table:
    """Return the tables one after the other, each item marked with the name of the split it came from."""
    tables = list(named.values())
    first = tables[0]
    if any(set(table.columns) != set(first.columns) for table in tables):
        raise BadInput(
            f"{source}: its parts ({', '.join(named)}) hold different inputs; give each part the same arrays"
        )
    if len({table.labels is None for table in tables}) > 1:
        raise BadInput(f"{source}: some of its parts ({', '.join(named)}) have labels and some not; label all or none")
    if any(table.classes != first.classes for table in tables):
        if not all(table.classes for table in tables):
            raise BadInput(
                f"{source}: some of its parts ({', '.join(named)}) name their classes by folders and some don't; give "
                "all in one form"
            )
        names = sorted({name for table in tables for name in table.classes})
        tables = [_with_classes(table, tuple(names)) for table in tables]
    if len({table.groups is None for table in tables}) > 1:
        raise BadInput(f"{source}: some of its parts ({', '.join(named)}) have groups and some not; give all or none")
    return Table(
        columns={name: _column([table.columns[name] for table in tables], source) for name in first.columns},
        labels=_together([table.labels for table in tables if table.labels is not None]),
        classes=tables[0].classes,
        groups=_together([table.groups for table in tables if table.groups is not None]),
        splits=np.repeat(np.array(list(named)), [len(table) for table in tables]),
        notes=tuple(dict.fromkeys(note for table in tables for note in table.notes)),
    )


def with_train(judged: Table, train: Table) -> Table:
    """Return the items to judge after those to train on, which are all of `train`, or those that it names train."""
    if judged.splits is not None and (judged.splits == "train").any():
        raise BadInput("--data names items to train on itself; leave --train out")
    if train.splits is not None:
        train = _chosen(train, np.flatnonzero(np.isin(train.splits, ["", "train"])))
    if not len(train):
        raise BadInput("--train holds no items to train on: all of them are named for something else")
    names = np.full(len(judged), "", dtype=object) if judged.splits is None else judged.splits
    both = joined({"train": train, "test": judged}, "--train and --data")
    return replace(both, splits=np.concatenate([np.full(len(train), "train", dtype=object), names]).astype(str))


def _chosen(table: Table, rows: NDArray[np.int64]) -> Table:
    """Return the table of some of its items."""

    def of(array: Array | None) -> Array | None:
        return None if array is None else array[rows]

    columns: dict[str, Column] = {
        name: column[rows] if isinstance(column, np.ndarray) else column.chosen(rows.tolist())
        for name, column in table.columns.items()
    }
    return replace(table, columns=columns, labels=of(table.labels), groups=of(table.groups), splits=of(table.splits))


def _column(columns: list[Column], source: str) -> Column:
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    files = [column for column in columns if isinstance(column, Files)]
    if len(files) == len(columns):
        if len({each.decode for each in files}) > 1:
            raise BadInput(f"{source}: some of its parts hold images and some sounds; use one kind for all")
        paths = tuple(path for each in files for path in each.paths)
        names = tuple(name for each in files for name in each.names)
        return Files(paths, names, files[0].decode)
    if len(arrays) < len(columns):
        raise BadInput(f"{source}: some of its parts hold arrays and some files; use one kind for all")
    kinds = {(array.dtype.str if array.dtype.kind not in "OU" else "text", array.shape[1:]) for array in arrays}
    if len(kinds) > 1:
        raise BadInput(f"{source}: its parts hold items of different dtype or shape; make them alike")
    return np.concatenate(arrays)


def _together(arrays: list[Array]) -> Array | None:
    return np.concatenate(arrays) if arrays else None


def _with_classes(table: Table, names: tuple[str, ...]) -> Table:
    position = np.array([names.index(name) for name in table.classes])
    return replace(table, classes=names, labels=None if table.labels is None else position[table.labels])
