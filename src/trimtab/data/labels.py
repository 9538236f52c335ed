"""Finds out what kind of answer a task asks for, and turns its labels into class numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.core.values import Kind, Signature, TensorSpec
from trimtab.data.request import DataRequest
from trimtab.data.table import Table

_EMBEDDING_WORDS = ("embed", "hidden", "pool", "feature", "sentence")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What is to be answered: the kind, the labels (class numbers or values, None when unknown), the class names."""

    kind: Kind
    labels: Array | None
    classes: tuple[str, ...]
    positive: int = 1
    notes: tuple[str, ...] = ()


def answer_spec(signature: Signature, name: str | None) -> TensorSpec:
    """Return the output that holds the answer; raise `BadInput` when there are several and none was named."""
    named = [spec for spec in signature.outputs if spec.role == "data" and name in (None, spec.name)]
    if len(named) == 1:
        return named[0]
    listed = ", ".join(spec.name for spec in signature.outputs if spec.role == "data")
    if not listed:
        raise BadInput("the model has no output to judge; export it with one")
    if name is not None:
        raise BadInput(f"the model has no output {name!r}; choose --output-name from {listed}")
    raise BadInput(f"the model has {len(named)} outputs; say which one holds the answer with --output-name ({listed})")


def answers(table: Table, output: TensorSpec, request: DataRequest) -> Answers:
    """Return what the task asks for, from the labels, the width of the model's output, and what the user said.

    Raises:
        BadInput: labels don't fit the model's outputs, the class names, or each other.
    """
    width = _width(output)
    listed = read_classes(request.labels) if request.labels is not None else ()
    if listed and width is not None and len(listed) != max(width, 2):
        raise BadInput(
            f"{request.labels} lists {len(listed)} classes and the model's output {output.name!r} answers {width}; "
            "give one line per output"
        )
    labels = None if table.labels is None else _plain(table.labels)
    kind = request.kind or _kind(labels, output, width)
    if labels is None:
        return _unlabelled(kind, width, listed, output, request)
    if kind in ("regression", "embedding"):
        return Answers(kind=kind, labels=_values(labels, kind), classes=())
    numbers, classes, notes = _numbered(labels, table.classes, listed, width)
    if kind == "binary" and len(classes) != 2:
        raise BadInput(f"a binary task has 2 classes and these labels have {len(classes)}; leave --kind away")
    return Answers(
        kind=kind,
        labels=numbers,
        classes=classes,
        positive=_positive(request.positive, classes) if kind == "binary" else 1,
        notes=notes + _missing(numbers, classes),
    )


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the class names of a file, one a line."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"the class names {path} can't be read ({error}); give a text file with one name per line"
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(f"{path} names the class {twice!r} twice; give each class one line")
    if len(names) < 2:
        raise BadInput(
            f"{path} names {len(names)} classes; give one name per line, in the order of the model's outputs"
        )
    return names


def _width(output: TensorSpec) -> int | None:
    """Return how many numbers the output gives per item, None when that is free or the output is a class number."""
    axes = _axes(output)
    if not axes:
        return None if output.dtype.startswith(("int", "uint")) else 1
    return axes[-1] if isinstance(axes[-1], int) else None


def _axes(output: TensorSpec) -> list[int | str]:
    return [size for size in output.shape[1:] if size != 1]


def _plain(labels: Array) -> Array:
    """Return labels as int64, floats or text; raise `BadInput` for what is no label."""
    if labels.dtype.kind in "OS":
        labels = labels.astype(str)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iubfU" or (labels.dtype.kind == "U" and labels.ndim > 1):
        raise BadInput(
            f"the labels are {labels.dtype} {list(labels.shape)}; give one class number, name or value per item"
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        row = int(np.argwhere(~np.isfinite(labels))[0][0])
        raise BadInput(f"the label of item {row} is {labels[row]}; mend or drop that item")
    if labels.ndim == 2 and labels.dtype.kind in "iub" and ((labels == 0) | (labels == 1)).all():
        raise BadInput("the labels are one-hot; give class numbers (labels.argmax(axis=1)) instead")
    return labels.astype(np.int64) if labels.dtype.kind in "iub" else labels


def _kind(labels: Array | None, output: TensorSpec, width: int | None) -> Kind:
    if labels is None:
        named = any(word in output.name.lower() for word in _EMBEDDING_WORDS)
        if named or len(_axes(output)) > 1:
            return "embedding"
        return "regression" if width == 1 else "binary" if width == 2 else "classification"
    if labels.dtype.kind == "U":
        binary = width in (1, 2) or (width is None and len(np.unique(labels)) == 2)
        return "binary" if binary else "classification"
    if labels.ndim == 1 and width is not None and width > 1:  # one label for several outputs can only be a class
        return "binary" if width == 2 else "classification"
    classlike = labels.ndim == 1 and bool(((labels >= 0) & (labels == np.floor(labels))).all())
    if not classlike or (labels.dtype.kind == "f" and width is None):
        return "regression"
    if labels.max() <= 1:
        return "binary"
    return "regression" if width == 1 else "classification"


def _unlabelled(
    kind: Kind, width: int | None, listed: tuple[str, ...], output: TensorSpec, request: DataRequest
) -> Answers:
    classes = listed
    if not classes and kind in ("classification", "binary") and width is not None:
        classes = tuple(str(number) for number in range(max(width, 2)))
    measure = {"classification": "agreement", "binary": "agreement", "regression": "relative error"}.get(kind, "cosine")
    note = (
        f"the data has no labels: quality is {measure} with the original model's {output.name!r} "
        f"(taken for {kind}; --kind says otherwise)"
    )
    positive = _positive(request.positive, classes) if kind == "binary" and classes else 1
    return Answers(kind=kind, labels=None, classes=classes, positive=positive, notes=(note,))


def _values(labels: Array, kind: Kind) -> Array:
    if labels.dtype.kind == "U":
        raise BadInput(f"the label {str(labels[0])!r} is not a number, and {kind} needs numbers; leave --kind away")
    return labels.astype(np.float64)


def _numbered(
    labels: Array, known: tuple[str, ...], listed: tuple[str, ...], width: int | None
) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
    """Return class numbers, class names and notes; `known` names are the source's, `listed` ones the user's."""
    notes: tuple[str, ...] = ()
    if known:
        labels = np.array(known)[labels.astype(np.int64)]
    elif listed and labels.dtype.kind == "i" and set(labels.astype(str).tolist()) <= set(listed):
        labels = labels.astype(str)
    if labels.dtype.kind == "U":
        classes = listed or tuple(sorted(set(labels.tolist()) | set(known)))
        _all_known(labels, classes)
        if not listed:
            shown = ", ".join(classes[:5]) + (" …" if len(classes) > 5 else "")
            notes = (f"classes are in the order of their names: {shown}; --labels gives another order",)
            if width is not None and len(classes) != max(width, 2):
                raise BadInput(
                    f"the data has {len(classes)} classes and the model answers {max(width, 2)}; name all of them, "
                    "in the model's order, with --labels classes.txt"
                )
        numbers = np.searchsorted(np.sort(classes), labels)
        return np.argsort(classes)[numbers].astype(np.int64), classes, notes
    if labels.ndim != 1:
        raise BadInput(
            "the labels are not class numbers, one per item; give whole numbers or names, or --kind regression"
        )
    count = len(listed) or max(2, int(labels.max()) + 1 if width is None else width)
    strange = np.flatnonzero((labels < 0) | (labels >= count) | (labels != np.floor(labels)))
    if len(strange):
        row = int(strange[0])
        raise BadInput(
            f"label {labels[row]} of item {row} ({len(strange):,} such in all) is a class the model never saw: "
            f"it answers 0 to {count - 1}; correct or drop these items, or check --labels, --output-name and --kind"
        )
    return labels.astype(np.int64), listed or tuple(str(number) for number in range(count)), notes


def _all_known(labels: Array, classes: tuple[str, ...]) -> None:
    unknown = sorted(set(labels.tolist()) - set(classes))
    if unknown:
        shown = ", ".join(classes[:8]) + (" …" if len(classes) > 8 else "")
        raise BadInput(
            f"the class {unknown[0]!r} of the data is not among the classes given ({shown}); add or correct it"
        )


def _missing(numbers: Array, classes: tuple[str, ...]) -> tuple[str, ...]:
    absent = [classes[number] for number in np.flatnonzero(np.bincount(numbers, minlength=len(classes)) == 0)]
    if not absent:
        return ()
    shown = ", ".join(absent[:5]) + (" …" if len(absent) > 5 else "")
    return (f"{len(absent)} of {len(classes)} classes have no items, so nothing is proven about them: {shown}",)


def _positive(given: str | int | None, classes: tuple[str, ...]) -> int:
    if given is None:
        return 1
    if isinstance(given, str) and given in classes:
        return classes.index(given)
    if str(given) in ("0", "1"):
        return int(given)
    raise BadInput(f"--positive {given!r} is none of the classes; choose {' or '.join(classes)}")
