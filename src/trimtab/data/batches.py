"""Hands out the items of a split, prepared for the model, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trimtab.core.protocols import Array
from trimtab.core.values import Model, Split, Step, Task
from trimtab.data.arrays import open_array, parts
from trimtab.data.steps import concerns, is_once, run
from trimtab.data.text import tokenize

Feed = dict[str, Array]


def batches(task: Task, split: Split, batch: int) -> Iterator[Feed]:
    """Yield prepared feeds by model input, `batch` items each (fewer in the last), in the order of the split."""
    held = {file.name: open_array(file) for file in split.inputs}
    for rows in parts(len(split), batch):
        yield prepared({name: array[rows] for name, array in held.items()}, task.preprocessing)


def ahead(feeds: Iterator[Feed]) -> Iterator[Feed]:
    """Yield the feeds; the next one is prepared while the last is used."""
    with ThreadPoolExecutor(1) as preparing:
        coming = preparing.submit(next, feeds, None)
        while (feed := coming.result()) is not None:
            coming = preparing.submit(next, feeds, None)
            yield feed


def feeds(task: Task, split: Split, rows: slice | NDArray[np.int64]) -> Feed:
    """Return the prepared feed of chosen items, by their position in the split."""
    return prepared({file.name: open_array(file)[rows] for file in split.inputs}, task.preprocessing)


def prepared(raw: Mapping[str, Array], steps: tuple[Step, ...]) -> Feed:
    """Return a batch after every step that was not done when the task was opened; the arrays given stay as they are."""
    feed = {}
    for name, batch in raw.items():
        for step in steps:
            if not is_once(step) and concerns(step, name):
                batch = run(step, batch)
        feed[name] = np.ascontiguousarray(batch)
    return feed


def prepare_raw(raw: Mapping[str, Array], steps: tuple[Step, ...], model: Model) -> Feed:
    """Return items as a user has them, not as a task keeps them, after every step; texts are tokenized.

    Items are one batch of one shape: uint8 images [items, height, width(, 3)], sound, numbers, or an array of texts,
    which are padded to the longest of these texts only.
    """
    feed = dict(raw)
    for step in steps:
        if step.technique == "tokenize":
            texts = [str(text) for array in feed.values() for text in array]
            alone = replace(step, options=tuple(option for option in step.options if option[0] != "width"))
            feed, _, _ = tokenize(texts, alone, model)
        else:
            feed = {name: run(step, batch) if concerns(step, name) else batch for name, batch in feed.items()}
    return {name: np.ascontiguousarray(batch) for name, batch in feed.items()}


def labels(split: Split) -> Array | None:
    """Return the labels of a split (class numbers or values), or None when it has none."""
    return None if split.labels is None else open_array(split.labels)


def groups(split: Split) -> Array | None:
    """Return the group number of each item, or None when every item stands for itself."""
    return None if split.groups is None else open_array(split.groups)
