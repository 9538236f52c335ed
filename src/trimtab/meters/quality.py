"""Reads how good a variant's answers are: against labels, against the original's answers, and in money."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array, Session
from trimtab.core.values import Reading, Task, Trace, Variant, Workload
from trimtab.data.batches import groups as groups_of
from trimtab.data.batches import labels as labels_of
from trimtab.data.checks import near_chance
from trimtab.meters import scores
from trimtab.meters.predict import answers, positive_scores, predict
from trimtab.meters.readings import unavailable
from trimtab.meters.scores import Estimate
from trimtab.meters.user_metric import user_reading

_SOURCE = "scikit-learn definitions, jackknife intervals"


class QualityMeter:
    """Reads the quality of a variant on one split.

    Args:
        split: the split that is answered. A search looks at "select" only: what it has seen can prove nothing.
    """

    name = "quality"

    def __init__(self, split: str = "select") -> None:
        self._split = split
        self.warnings: tuple[str, ...] = ()

    def read(self, session: Session, variant: Variant, task: Task, workload: Workload) -> Sequence[Reading | Trace]:
        """Return every quality reading that the task's labels allow; `warnings` then ask about answers near chance."""
        split = task.split(self._split)
        if split is None:
            return [unavailable(task.metric, f"the task has no {self._split} split")]
        labels = labels_of(split)
        if labels is None:
            reason = "without labels quality is agreement with the original: compare the two models"
            return [unavailable("agreement", reason)]
        outputs = predict(session, task, split, workload)
        found = quality_readings(task, labels, outputs, groups=groups_of(split), scope=f"{self._split} split")
        self.warnings = chance_warnings(task, labels, outputs)
        return found


def chance_warnings(task: Task, labels: Array, outputs: Array) -> tuple[str, ...]:
    """Return the question to ask when a model of classes answers hardly better than chance; nothing when it does.

    A binary one must do so at the threshold of the task and at 0.5 as well: where classes are rare, or mistakes dear,
    good answers at one of the two may look like chance.
    """
    if task.kind not in ("classification", "binary"):
        return ()
    thresholds = dict.fromkeys((None, task.threshold))
    read = [answers(replace(task, threshold=threshold), outputs) for threshold in thresholds]
    doubts = [near_chance(labels, given, task.classes) for given in read]
    return tuple(filter(None, doubts[:1])) if all(doubts) else ()


def quality_readings(
    task: Task,
    labels: Array | None,
    outputs: Array,
    original_outputs: Array | None = None,
    groups: Array | None = None,
    scope: str = "",
) -> list[Reading]:
    """Return the quality of outputs (one row per item) against labels and against the original's outputs.

    Every reading has a 95 % interval; items of one group count as one observation. Names and definitions:
    plain `precision`, `recall`, `f1` are those of the positive class (binary) or the macro mean (several classes);
    with a place they, and `accuracy`, are those of one class. `accuracy_macro` is balanced accuracy. Without labels
    there is only likeness to the original.
    """
    found: list[Reading] = []
    if task.kind == "binary" and task.threshold is not None:
        scope = f"{scope}, threshold {task.threshold:.3g}".removeprefix(", ")
    if labels is not None:
        if len(labels) != len(outputs):
            raise BadInput(f"there are {len(labels)} labels for {len(outputs)} answers: give one label per item")
        if task.kind in ("classification", "binary"):
            counts = scores.count(labels, answers(task, outputs), scores.class_count(task, labels, outputs))
            found += [*_class_readings(task, counts, groups, scope), *_confusion(task, counts, scope)]
        overall = [_attempt(task, name, labels, outputs, groups, scope) for name in scores.metrics(task, outputs)]
        found = [*overall, *found]
        if ":" in task.metric:
            found.append(user_reading(task.metric, labels, outputs, groups, scope))
    if original_outputs is not None:
        found.extend(_likeness(task, original_outputs, outputs, groups, scope, labelled=labels is not None))
    return found


def wants_tuning(task: Task) -> bool:
    """Say whether the threshold of a task is to be tuned: it is binary, none is given, and it is not about accuracy."""
    return task.kind == "binary" and task.threshold is None and (task.costs is not None or task.metric != "accuracy")


def tuned(task: Task, labels: Array | None, outputs: Array) -> Task:
    """Return the task with the threshold that serves its goal best on these items, where it is to be tuned."""
    if labels is None or not wants_tuning(task):
        return task
    return replace(task, threshold=tune_threshold(task, labels, outputs))


def tune_threshold(task: Task, labels: Array, outputs: Array) -> float:
    """Return the threshold on the positive probability that serves a binary task best on these items.

    With costs it is the cheapest one. Otherwise it maximises the task's metric; because "always positive" has the
    highest recall, and "hardly ever" the highest precision, those two mean F2 (recall counts twice as much) and
    F0.5. Ranking metrics need no threshold and mean F1. Of equally good ones it is the one nearest to 0.5.
    """
    if task.kind != "binary":
        raise BadInput("only a binary task has a threshold to tune")
    positive = labels == task.positive
    found = np.unique(positive_scores(task, outputs))
    edges = np.concatenate([[min(0.0, found[0])], (found[1:] + found[:-1]) / 2, [np.nextafter(max(1.0, found[-1]), 2)]])
    sides = [np.sort(positive_scores(task, outputs)[side]) for side in (positive, ~positive)]
    hits, alarms = (len(side) - np.searchsorted(side, edges, "left") for side in sides)
    misses = len(sides[0]) - hits
    if task.costs is not None:
        merit = -(task.costs[0] * misses + task.costs[1] * alarms)
    elif task.metric == "accuracy_macro":
        merit = -(misses / max(len(sides[0]), 1) + alarms / max(len(sides[1]), 1))
    elif task.metric.partition("_")[0] == "accuracy":
        merit = -(misses + alarms)
    else:
        beta = {"recall": 4.0, "precision": 0.25}.get(task.metric, 1.0)
        size = (1 + beta) * hits + beta * misses + alarms
        merit = np.divide((1 + beta) * hits, size, out=np.zeros(len(edges)), where=size > 0)
    best = edges[merit >= merit.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - 0.5))])


def _attempt(task: Task, name: str, labels: Array, outputs: Array, groups: Array | None, scope: str) -> Reading:
    """Return a metric, unavailable where these items do not define it (a single class, targets of zero)."""
    try:
        estimate = scores.estimate(task, name, labels, outputs)
    except BadInput as error:
        return unavailable(name, str(error))
    return _reading(name, estimate, groups, scope)


def _reading(name: str, estimate: Estimate, groups: Array | None, scope: str, place: str | None = None) -> Reading:
    found = scores.interval(estimate, scores.bounds(name), groups)
    low, high = found or (None, None)
    direction: Literal["lower", "higher"] = "lower" if scores.lower_is_better(name) else "higher"
    return Reading(
        name=name,
        value=estimate.value,
        direction=direction,
        low=low,
        high=high,
        samples=len(estimate.influence),
        source=_SOURCE,
        scope=scope,
        place=place,
    )


def class_name(task: Task, number: int) -> str:
    """Return the name of a class, its number when it has none."""
    return task.classes[number] if number < len(task.classes) else str(number)


def _class_readings(task: Task, counts: scores.Counts, groups: Array | None, scope: str) -> Iterator[Reading]:
    for number in range(len(counts.true)):
        place = class_name(task, number)
        predicted, true = counts.predicted[number], counts.true[number]
        sizes = {"accuracy": true, "precision": predicted, "recall": true, "f1": max(predicted, true)}
        for name, size in sizes.items():
            if size:
                yield _reading(name, scores.averaged(counts, name, number), groups, scope, place)
            else:
                what = "answered" if name == "precision" else "labelled"
                yield unavailable(name, f"no item is {what} so", place=place)


def _confusion(task: Task, counts: scores.Counts, scope: str) -> Iterator[Reading]:
    from sklearn.metrics import confusion_matrix

    table, items = confusion_matrix(counts.labels, counts.answers, labels=range(len(counts.true))), len(counts.labels)
    for true, predicted in zip(*np.nonzero(table), strict=True):
        cell = int(table[true, predicted])
        low, high = scores.wilson(cell / items, items)
        yield Reading(
            name="confusion_matrix",
            value=cell,
            low=low * items,
            high=high * items,
            samples=items,
            source=_SOURCE,
            scope=scope,
            place=f"{class_name(task, true)}→{class_name(task, predicted)}",
        )


def _likeness(
    task: Task, original: Array, outputs: Array, groups: Array | None, scope: str, *, labelled: bool
) -> Iterator[Reading]:
    """Yield how alike two models answer; with labels, the errors of numbers are those against the labels."""
    if len(original) != len(outputs):
        raise BadInput(f"the original answered {len(original)} items, this model {len(outputs)}: give both the same")
    if task.kind in ("classification", "binary"):
        alike = scores.mean(answers(task, original) == answers(task, outputs))
        yield _reading("agreement", alike, groups, scope)
    elif not labelled:
        against = f"{scope}, against the original".removeprefix(", ")
        for name in ("relative_error", "cosine"):
            if name in scores.metrics(task, outputs):
                yield _attempt(task, name, original, outputs, groups, against)
