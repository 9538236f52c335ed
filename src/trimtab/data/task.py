"""Opens a task: reads the source, checks it against the model, splits it, keeps it as memory-mapped arrays."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.files import digest_files, disk_errors, make_folder, whole_folder
from trimtab.core.protocols import Array
from trimtab.core.values import ArrayFile, Model, Split, Step, Task, content_digest
from trimtab.data.arrays import open_array, parts, save_array, save_rows
from trimtab.data.batches import prepared
from trimtab.data.checks import fit, overlap
from trimtab.data.labels import Answers, answer_spec, answers
from trimtab.data.preprocess import marked, spell
from trimtab.data.python import source_digest
from trimtab.data.request import DataRequest
from trimtab.data.sources import read_source
from trimtab.data.split import Items, Rows, evenly, plan, undivided
from trimtab.data.steps import concerns, is_once, run
from trimtab.data.table import ANY, TEXT, Column, Files, Table, with_train
from trimtab.data.text import tokenize, tokenize_step, tokenizer_beside
from trimtab.stats.bootstrap import fewest_units
from trimtab.stats.noninferiority import effective_groups, fewest_items, in_groups

__all__ = ["DataRequest", "open_task"]

_SAMPLE = 2
_RAW = 4  # items kept before any step, to time the steps on
_METRICS = {"classification": "accuracy", "binary": "accuracy", "regression": "r2", "embedding": "cosine"}
_WITHOUT_LABELS = ("agreement", "relative_error", "cosine")
_UNLABELLED = {"regression": "relative_error", "embedding": "cosine"}
_COUNTED = ("accuracy", "accuracy_weighted", "agreement", "top5")  # shares of all items, as the micro averages are


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Content:
    """A source made ready to be written: columns by model input, the steps, and what is known of the items.

    `numbers` are the items' rows in the user's data, None when they are counted from 0.
    """

    columns: Mapping[str, Column]
    steps: tuple[Step, ...]
    labels: Array | None
    groups: Array | None
    numbers: Array | None = None


def open_task(
    source: Any, model: Model, folder: Path, request: DataRequest | None = None, *, divide: bool = True
) -> Task:
    """Return the task that a source holds, its splits written under `folder` as memory-mapped arrays.

    `source` is what `--data` takes (a path or `module:function`), or arrays, a dictionary of arrays, (inputs, labels),
    a torch Dataset or DataLoader. Opening the same content again with the same request gives an equal task and reuses
    the files; the digests are of the bytes that are fed and of the files of a metric of the user's own, so an edited
    function never meets older results. Without `divide` the items stay in the splits that the data names, and all
    others are certify.

    Raises:
        BadInput: the source can't be read, doesn't fit the model, or is too small; one clear line.
    """
    request = request or DataRequest()
    signature = model.signature
    if not signature.data_inputs:
        raise BadInput("the model takes no data; check its inputs with trimtab inspect")
    output = answer_spec(signature, request.output)
    table = read_source(source, signature, request.groups)
    if request.train is not None and not _itself(request.train, source):
        table = with_train(table, read_source(request.train, signature, request.groups))
    given = next(iter(table.columns.values()))  # texts, and files, are the only column
    table, steps = _tokenized(table, spell(request.preprocess, signature), model)
    columns = _bound(table, model)
    asked = answers(table, output, request)
    steps = marked(steps, by_item=not all(isinstance(column, np.ndarray) for column in columns.values()))
    casts = _casts(columns, steps, model)
    groups = table.groups
    if groups is not None:
        groups = np.unique(groups.astype(str), return_inverse=True)[1].astype(np.int64)
    content = _Content(columns=columns, steps=steps, labels=asked.labels, groups=groups)
    strata = asked.labels if asked.kind in ("classification", "binary") else None
    learning = request.train is not None
    items = Items(count=len(table), strata=strata, groups=groups, names=table.splits, learning=learning)
    planned = plan(items, request.seed) if divide else undivided(items)
    splits = tuple(_write(name, rows, content, folder) for name, rows in planned.items())
    splits = tuple(_with_raw(split, given, folder) for split in splits)
    _check_casts(splits, casts)
    task = _task(splits, (*steps, *casts), asked, request)
    notes = (*table.notes, *asked.notes, *map(_cast_note, casts), *_overlap_notes(task), *_proof_notes(task, request))
    return replace(task, notes=notes)


def _itself(train: Any, source: Any) -> bool:
    """Say whether the items to train on come with the data itself."""
    paths = isinstance(train, str | Path) and isinstance(source, str | Path)
    return str(train) == str(source) if paths else train is source


def _task(splits: tuple[Split, ...], steps: tuple[Step, ...], asked: Answers, request: DataRequest) -> Task:
    labelled = asked.labels is not None
    if request.metric is not None and not labelled and request.metric not in _WITHOUT_LABELS:
        raise BadInput(
            f"--metric {request.metric} needs labels and the data has none; add labels or choose one of "
            f"{', '.join(_WITHOUT_LABELS)}"
        )
    binary = {"--positive": request.positive, "--threshold": request.threshold, "--cost": request.costs}
    given = ", ".join(name for name, value in binary.items() if value is not None)
    if given and asked.kind != "binary":
        raise BadInput(f"{given}: that is for two classes, and this task is {asked.kind}; leave it out")
    metric = request.metric or ("cost" if request.costs else (_METRICS if labelled else _UNLABELLED).get(asked.kind))
    task = Task(
        kind=asked.kind,
        splits=splits,
        preprocessing=steps,
        classes=asked.classes,
        metric=metric or "agreement",
        output=request.output,
        positive=asked.positive,
        threshold=request.threshold,
        costs=request.costs,
    )
    per_batch = tuple(step for step in steps if not is_once(step))  # what was done once is in the bytes of the splits
    held = [(split.name, split.digest, [file.name for file in split.inputs]) for split in splits]
    own = source_digest(task.metric) if ":" in task.metric else None
    meaning = (task.kind, task.classes, task.metric, own, task.output, task.positive, task.threshold, task.costs)
    return replace(task, digest=content_digest(held, repr(per_batch), meaning))


def _tokenized(table: Table, steps: tuple[Step, ...], model: Model) -> tuple[Table, tuple[Step, ...]]:
    """Return the table with its texts as the model's token inputs, and the steps with the tokenizer's own limit."""
    wanted = next((step for step in steps if step.technique == "tokenize"), None)
    if TEXT not in table.columns:
        if wanted is not None:
            raise BadInput("the step tokenize needs texts, and the data holds numbers; leave it out")
        return table, steps
    if wanted is None:
        beside = tokenizer_beside(model)
        if beside is None:
            raise BadInput("the data is text and the model takes tokens; name the tokenizer.json with --preprocess")
        wanted = tokenize_step(beside)
    texts = table.columns[TEXT]
    assert isinstance(texts, np.ndarray), "texts are never files"
    columns, done, note = tokenize([str(text) for text in texts], wanted, model)
    rest = tuple(step for step in steps if step.technique != "tokenize")
    notes = table.notes if note is None else (*table.notes, note)
    return replace(table, columns=columns, notes=notes), (done, *rest)


def _bound(table: Table, model: Model) -> dict[str, Column]:
    """Return the columns by the model input that each of them feeds."""
    names = [spec.name for spec in model.signature.data_inputs]
    if ANY in table.columns:
        if len(names) > 1:
            raise BadInput(
                f"the model takes {', '.join(names)}, and the data has one input; give an .npz with one array each"
            )
        return {names[0]: table.columns[ANY]}
    return {name: table.columns[name] for name in names}


def _casts(columns: Mapping[str, Column], steps: tuple[Step, ...], model: Model) -> tuple[Step, ...]:
    """Return the casts that the first items need to fit the model; raise `BadInput` when a cast can't mend it."""
    rows = np.arange(min(_SAMPLE, len(next(iter(columns.values())))))
    raw = {name: next(_chunks(name, column, rows, steps)) for name, column in columns.items()}
    ready = prepared(raw, steps)
    stateful = bool(model.signature.states)
    found = (fit(spec, ready[spec.name], stateful) for spec in model.signature.data_inputs)
    return tuple(step for step in found if step is not None)


def _check_casts(splits: tuple[Split, ...], casts: tuple[Step, ...]) -> None:
    """Raise `BadInput` when a whole number doesn't fit the dtype that it is to be cast to."""
    for step in casts:
        given = dict(step.options)
        target = np.dtype(str(given["dtype"]))
        for split in splits if target.kind in "iu" else ():
            (file,) = (file for file in split.inputs if file.name == given["input"])
            array, limits = open_array(file), np.iinfo(target)
            if array.size and array.dtype.kind in "iu" and (array.min() < limits.min or array.max() > limits.max):
                raise BadInput(f"the input {file.name!r} holds numbers that don't fit {target}, which the model takes")


def sample(split: Split, items: int, seed: int, folder: Path) -> Split:
    """Return a split of that many items drawn at random, in their order, its arrays written under `folder`.

    Each class gets its share to within one item.
    """
    labels = None if split.labels is None else open_array(split.labels)
    shuffled = np.random.default_rng(seed).permutation(len(split))
    if labels is not None and labels.dtype.kind == "i":
        shuffled = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rows = np.sort(shuffled[evenly(len(split), min(items, len(split)))])
    content = _Content(
        columns={file.name: open_array(file) for file in split.inputs},
        steps=(),
        labels=labels,
        groups=None if split.groups is None else open_array(split.groups),
        numbers=open_array(split.rows),
    )
    return _write(split.name, rows, content, folder)


def _chunks(name: str, column: Column, rows: Rows, steps: tuple[Step, ...]) -> Iterator[Array]:
    """Yield the items of a column after the steps that are done once; raise `BadInput` that names a bad item."""
    once = [step for step in steps if is_once(step) and concerns(step, name) and step.technique != "tokenize"]
    made = _read_arrays(column, rows, once) if isinstance(column, np.ndarray) else _read_items(column, rows, once)
    start = 0
    for chunk in made:
        if chunk.dtype.kind == "f" and np.isnan(chunk).any():
            bad = int(np.argmax(np.isnan(chunk).reshape(len(chunk), -1).any(axis=1)))
            raise BadInput(f"item {rows[start + bad]} of the input {name!r} holds NaN; mend or drop it")
        start += len(chunk)
        yield chunk


def _read_arrays(column: Array, rows: Rows, once: list[Step]) -> Iterator[Array]:
    for part in parts(len(rows)):
        chunk = column[rows[part]]
        for step in once:
            chunk = run(step, chunk)
        yield chunk


def _read_items(column: Files, rows: Rows, once: list[Step]) -> Iterator[Array]:
    first: tuple[str, Array, int | None] | None = None
    resampled = any(step.technique == "resample" for step in once)
    for row in rows.tolist():
        raw, rate = column.read(row)
        item = raw[None]
        for step in once:
            item = run(step, item, rate)
        here = (column.names[row], item, None if resampled else rate)
        first = first or here
        _check_alike(first, here)
        yield item


def _check_alike(first: tuple[str, Array, int | None], other: tuple[str, Array, int | None]) -> None:
    if other[1].shape != first[1].shape or other[1].dtype != first[1].dtype:
        step = "a resize and crop, rgb or grey" if other[2] is None else "a mono or pad"
        raise BadInput(
            f"{other[0]} is {other[1].dtype} {list(other[1].shape[1:])} where {first[0]} is {first[1].dtype} "
            f"{list(first[1].shape[1:])}; add {step} step with --preprocess"
        )
    if other[2] != first[2]:
        raise BadInput(
            f"{other[0]} has {other[2]} samples per second and {first[0]} {first[2]}; "
            "add a resample step with --preprocess"
        )


def _write(name: str, rows: Rows, content: _Content, folder: Path) -> Split:
    """Write one split under a name that holds its digest; files that are there already and intact are reused."""
    make_folder(folder)
    staging = folder / f"{name}-writing-{os.getpid()}"
    beside = {"rows": rows if content.numbers is None else content.numbers[rows]}
    if content.labels is not None:
        beside["labels"] = content.labels[rows]
    if content.groups is not None:
        beside["groups"] = content.groups[rows]
    with whole_folder(staging) as temporary:
        inputs = [
            save_rows(each, temporary / f"input{number}.npy", _chunks(each, column, rows, content.steps), len(rows))
            for number, (each, column) in enumerate(content.columns.items())
        ]
        others = {each: save_array(each, temporary / f"{each}.npy", array) for each, array in beside.items()}
    files = [file.path.name for file in (*inputs, *others.values())]
    digest = digest_files([staging / file for file in files])
    final = folder / f"{name}-{digest[:16]}"
    with disk_errors(final):
        if _intact(final, files, digest):
            shutil.rmtree(staging)
        else:
            shutil.rmtree(final, ignore_errors=True)
            staging.replace(final)
    placed = {each: _moved(file, final) for each, file in others.items()}
    return Split(
        name=name,
        inputs=tuple(_moved(file, final) for file in inputs),
        rows=placed["rows"],
        labels=placed.get("labels"),
        groups=placed.get("groups"),
        digest=digest,
    )


def _with_raw(split: Split, column: Column, folder: Path) -> Split:
    """Return the split that is timed with a few of its items as a user has them, where they aren't kept like that.

    Files that differ in shape from the first are left out, and so are sounds, whose rate only their file knows.
    """
    if split.name != "select":
        return split
    rows = open_array(split.rows)[:_RAW]
    if isinstance(column, Files):
        read = [column.read(row) for row in rows.tolist()]
        items = [item for item, rate in read if rate is None and item.shape == read[0][0].shape]
    else:
        items = list(column[rows].astype(str)) if column.dtype.kind in "OU" else []
    if not items:
        return split
    path = folder / f"select-{split.digest[:16]}-raw.npy"
    return replace(split, raw=save_array("raw", path, np.stack(items)))


def _intact(folder: Path, files: list[str], digest: str) -> bool:
    paths = [folder / file for file in files]
    return all(path.is_file() for path in paths) and digest_files(paths) == digest


def _moved(file: ArrayFile, folder: Path) -> ArrayFile:
    return replace(file, path=folder / file.path.name)


def _cast_note(step: Step) -> str:
    given = dict(step.options)
    return f"the input {given['input']!r} is cast to {given['dtype']}, which the model takes"


def _overlap_notes(task: Task) -> tuple[str, ...]:
    certify = task.split("certify")
    if certify is None:
        return ()
    return tuple(
        f"{count:,} of {len(certify):,} certify items also occur in {name}: remove duplicates, or the proof is too kind"
        for name, count in overlap(task).items()
    )


def items_to_certify(task: Task, split: Split, max_drop: float, error: float) -> int:
    """Return how many items of a split any proof of a drop takes, at the share of them that the metric looks at."""
    concerned = int(_concerned(task, split).sum())
    return math.ceil(_fewest(task, max_drop, error) * len(split) / max(concerned, 1))


def _proof_notes(task: Task, request: DataRequest) -> tuple[str, ...]:
    """Say when no drop as small as the one wanted can be proven on the certify items, however well a variant does."""
    certify = task.split("certify")
    if certify is None or request.max_drop is None or request.max_drop <= 0:
        return ()
    concerned, needed = _concerned(task, certify), _fewest(task, request.max_drop, request.error)
    units, count = "items" if concerned.all() else "items of the positive class", int(concerned.sum())
    if certify.groups is not None:
        groups = open_array(certify.groups)[concerned]
        units, count = units.replace("items", "groups"), len(np.unique(groups))
        needed = in_groups(needed, effective_groups(groups)[1] if count else 1.0)
    if count >= needed:
        return ()
    wanted, smaller = f"anything about {task.metric}, whatever a variant answers", ""
    if _in_points(task):
        wanted = f"that at most {100 * request.max_drop:g} pt is lost, even when no answer changes"
        smaller = " or a larger --max-drop"
    return (f"{count} certify {units} can't prove {wanted}: at least {needed} are needed; give more data{smaller}",)


def _fewest(task: Task, max_drop: float, error: float) -> int:
    """Return on how many independent items, or groups, that the metric looks at any proof of a drop takes."""
    shown = fewest_items(min(max_drop, 0.5), error) if _in_points(task) else 1
    counted = not task.labelled or task.metric in _COUNTED or task.metric.endswith("_micro") or _of_positives(task)
    return shown if _in_points(task) and counted else max(shown, fewest_units(error))


def _in_points(task: Task) -> bool:
    """Say whether answers are right or wrong and the metric lies between 0 and 1."""
    return task.kind in ("classification", "binary") and task.metric != "cost" and ":" not in task.metric


def _of_positives(task: Task) -> bool:
    return task.kind == "binary" and task.metric == "recall" and task.labelled


def _concerned(task: Task, split: Split) -> Array:
    """Return which items the metric looks at: the recall of a binary task only at those of the positive class."""
    if _of_positives(task) and split.labels is not None:
        return np.asarray(open_array(split.labels) == task.positive)
    return np.ones(len(split), dtype=bool)
