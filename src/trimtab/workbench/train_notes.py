"""What there is to say about a training: items too few or unequal, how they are kept, what a network answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.core.values import Reading, Task
from trimtab.data.batches import labels as labels_of
from trimtab.meters.quality import class_name
from trimtab.reports.words import quantity, with_interval
from trimtab.training.items import Keeping

_FEW, _FEW_TO_CHOOSE = 500, 100
_IMBALANCED = 10.0  # times as many items in one class as in another, from which it is said
_NAMED = 5  # classes that a note names


def cautions(task: Task) -> tuple[str, ...]:
    """Return what to be careful about in the items: too few to train on or to choose by, or of some of their classes.

    Raises:
        BadInput: all items to train on are of one class.
    """
    split, select, notes = task.split("train"), task.split("select"), []
    labels = None if split is None else labels_of(split)
    if split is None or labels is None:
        return ()
    classes = np.bincount(labels.astype(np.int64), minlength=len(task.classes)) if _told_apart(task) else None
    if len(split) < _FEW:
        each = "" if classes is None else f" ({classes[classes > 0].min()} of the rarest class)"
        notes.append(
            f"{len(split)} items{each} are few to train on: start from weights that were trained before (--weights), "
            "with few epochs, a small lr and augmentation; trimtab optimize without --train needs none"
        )
    if select is not None and len(select) < _FEW_TO_CHOOSE:
        notes.append(
            f"{len(select)} items to choose the best epoch by hardly tell epochs apart: give a few hundred with --data"
        )
    return (*notes, *([] if classes is None else _unbalanced(task, classes)))


def _told_apart(task: Task) -> bool:
    return task.kind in ("classification", "binary")


def _unbalanced(task: Task, counts: Array) -> list[str]:
    """Return what to say about classes with few items or none; `counts` are the items of each."""
    present = np.flatnonzero(counts)
    if len(present) < 2 <= counts.sum():
        raise BadInput(
            f"all {counts.sum()} items to train on are of class {class_name(task, int(present[0]))}: there is nothing "
            "to tell apart; give items of every class"
        )
    notes = []
    missing = [class_name(task, number) for number in np.flatnonzero(counts == 0).tolist()]
    if missing:
        more = f" and {len(missing) - _NAMED} more" * (len(missing) > _NAMED)
        notes.append(f"no item to train on is of class {', '.join(missing[:_NAMED])}{more}: it will be unlearnt")
    rare, common = (int(present[pick(counts[present])]) for pick in (np.argmin, np.argmax))
    if counts[common] > _IMBALANCED * counts[rare]:
        names = [class_name(task, number) for number in (common, rare)]
        notes.append(
            f"class {names[0]} has {counts[common]} items to train on and class {names[1]} {counts[rare]}; "
            "class_weights=balanced weighs them alike, and f1_macro or accuracy_macro as --metric judges them alike"
        )
    return notes


def rarest(task: Task, readings: Sequence[Reading]) -> tuple[str, ...]:
    """Return how many items of the rarest class are found, where the items to train on are of very unequal classes."""
    split = task.split("train")
    labels = None if split is None else labels_of(split)
    if labels is None or not _told_apart(task):
        return ()
    counts = np.bincount(labels.astype(np.int64))
    present = np.flatnonzero(counts)
    rare = int(present[np.argmin(counts[present])])
    if counts.max() <= _IMBALANCED * counts[rare]:
        return ()
    name = class_name(task, rare)
    found = [each for each in readings if (each.name, each.place) == ("recall", name) and each.value is not None]
    few = f"{counts[rare]} to train on"
    return tuple(f"of the select items of class {name} ({few}) {with_interval(each)} are found" for each in found)


def probabilities(task: Task, outputs: Array) -> tuple[str, ...]:
    """Return what to say of a network of classes that answers probabilities: its loss takes them for logits."""
    flat = outputs.reshape(len(outputs), -1)
    if task.kind not in ("classification", "binary") or flat.min() < 0 or flat.max() > 1:
        return ()
    if flat.shape[1] > 1 and not np.allclose(flat.sum(axis=1), 1, atol=1e-3):
        return ()
    return (
        "the network answers probabilities; it learns better when it answers what goes into its softmax or sigmoid",
    )


def kept(keeping: Keeping | None) -> tuple[str, ...]:
    """Return in a sentence how the items to train on are kept, and what that changes."""
    if keeping is None:
        return ()
    sizes = [quantity(size, "B") for size in (keeping.bytes, keeping.given_bytes, keeping.prepared_bytes)]
    times = [quantity(seconds, "s") for seconds in (keeping.batch_s, keeping.given_batch_s)]
    off = f"numbers differ by up to {keeping.off:.1g}" if keeping.off else "no number differs"
    return (
        f"the items to train on are kept as {keeping.store}: {sizes[0]} ({sizes[1]} as given, {sizes[2]} prepared); a "
        f"batch is ready in {times[0]} ({times[1]} as given); {off}",
    )
