"""Reads CSV and JSON-lines files: numbers or one text per row, with optional label, group and split columns.

The label column is called label, labels, target, targets, class or y; the group column group or groups; the split
column split or splits; the text column text, sentence, content or review. All other columns are numbers: one model
input each where they bear the inputs' names, else together, in order, the model's only input [columns].
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.data.npz import from_arrays
from trimtab.data.table import LABELS, SPLITS, TEXT, Table, Wanted

_TEXTS = ("text", "sentence", "content", "review")


def read_csv(path: Path, wanted: Wanted) -> Table:
    """Return the rows of a CSV (or, by its suffix, TSV) file with a header line as a table."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            rows = [(lines.line_num, row) for row in lines if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} can't be read as CSV ({error}); save it as UTF-8 text") from error
    if len(rows) < 2:
        raise BadInput(f"{path} needs a header line with the names of the columns and at least one row")
    header = [name.strip() for name in rows[0][1]]
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise BadInput(f"{path} has two columns named {twice!r}; rename or drop one of them")
    for number, row in rows:
        if len(row) != len(header):
            raise BadInput(f"{path} line {number} has {len(row)} values for {len(header)} columns; mend that line")
    values = zip(*(row for _, row in rows[1:]), strict=True)
    return _table(dict(zip(header, values, strict=True)), wanted, str(path))


def read_json_lines(path: Path, wanted: Wanted) -> Table:
    """Return a file with one JSON object per line as a table; values may be nested lists of numbers."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} can't be read ({error}); save it as UTF-8 text") from error
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            records.append(_record(line, f"{path} line {number}"))
            if records[-1].keys() != records[0].keys():
                raise BadInput(f"{path} line {number} does not have the same names as the first line; mend that line")
    if not records:
        raise BadInput(f"{path} holds no items; write one JSON object per line")
    return _table({name: [record[name] for record in records] for name in records[0]}, wanted, str(path))


def _record(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{place} is not JSON ({error}); write one object per line") from error
    if not isinstance(record, dict):
        raise BadInput(f'{place} is not a JSON object; write it like {{"text": …, "label": …}}')
    return record


def _table(columns: Mapping[str, Sequence[Any]], wanted: Wanted, source: str) -> Table:
    left, inputs = dict(columns), dict(wanted.inputs)
    held: dict[str, Array] = {}
    for names, typed in ((LABELS, _labels), (wanted.groups, _texts), (SPLITS, _texts)):
        name = next((name for name in names if name in left and name not in inputs), None)
        if name is not None:
            held[name] = typed(left.pop(name), source)
    text = next((name for name in _TEXTS if name in left), None)
    if text is not None:
        held[TEXT] = _texts(left[text], source)
    elif set(inputs) == set(left):
        held |= {name: _numbers(name, left[name], inputs[name], source) for name in inputs}
    elif len(inputs) == 1:
        held["inputs"] = _side_by_side(left, wanted.inputs[0][1], source)
    else:
        raise BadInput(
            f"{source}: the model takes {', '.join(inputs)} but the columns are {', '.join(left)}; rename them"
        )
    return from_arrays(held, wanted, source)


def _side_by_side(left: Mapping[str, Sequence[Any]], dtype: str, source: str) -> Array:
    if not left:
        raise BadInput(f"{source} has no column of inputs; columns of numbers or one called text are needed")
    columns = [_numbers(name, values, dtype, source) for name, values in left.items()]
    return columns[0] if len(columns) == 1 and columns[0].ndim > 1 else np.stack(columns, axis=1)


def _numbers(name: str, values: Sequence[Any], dtype: str, source: str) -> Array:
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"{source}: the column {name!r} is not all numbers of one shape ({error}); mend or drop it"
        ) from error
    if dtype.startswith(("int", "uint")) and np.array_equal(numbers, np.floor(numbers)):
        return numbers.astype(np.int64)
    return numbers


def _texts(values: Sequence[Any], source: str) -> Array:
    return np.array([str(value) for value in values], dtype=object)


def _labels(values: Sequence[Any], source: str) -> Array:
    """Return labels as whole numbers where all are, else as numbers, else as text; lists as they are."""
    missing = [row for row, value in enumerate(values) if value is None or value == ""]
    if missing:
        raise BadInput(
            f"{source}: item {missing[0]} has no label ({len(missing):,} such in all); fill it in or drop it"
        )
    if isinstance(values[0], list):
        return _numbers("label", values, "int64", source)
    for kind in (int, float):
        try:
            return np.array([kind(value) if isinstance(value, str) else _exactly(kind, value) for value in values])
        except (TypeError, ValueError):
            continue
    return np.array([str(value) for value in values])


def _exactly(kind: type[int] | type[float], value: Any) -> int | float:
    made = kind(value)
    if made != value:
        raise ValueError(value)
    return made
