"""Numbers of quality with the influence of every item on them: pure functions on arrays.

The definitions are scikit-learn's. The influence of an item is the change of the number when that item weighs a
little more (the infinitesimal jackknife: Efron 1982, chapter 6; for the area under the ROC curve it is DeLong 1988).
Influences add up over groups, and their squares add up to the variance, so one rule makes every interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.core.values import Task
from trimtab.meters.predict import answers, class_scores, positive_scores, score_count


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A number and the influence of each item on it, shape (items,)."""

    value: float
    influence: Array


def mean(values: Array) -> Estimate:
    """Return the mean of one value per item."""
    average = float(np.mean(values))
    return Estimate(average, (np.asarray(values, dtype=np.float64) - average) / len(values))


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Labels against answers: per class how many items were right (hits), answered so, and truly so."""

    labels: Array
    answers: Array
    hits: Array
    predicted: Array
    true: Array


def count(labels: Array, given: Array, classes: int) -> Counts:
    """Count labels against answers, both shape (items,) with class numbers below `classes`."""
    hits = np.bincount(labels[labels == given], minlength=classes)
    predicted, true = np.bincount(given, minlength=classes), np.bincount(labels, minlength=classes)
    return Counts(labels, given, hits.astype(float), predicted.astype(float), true.astype(float))


def by_class(counts: Counts, name: str) -> tuple[Array, Array, Array]:
    """Return a number of every class and its slopes with hits and with the size of its denominator.

    Precision is hits / predicted, recall hits / true, F1 hits / mean of both; an empty denominator makes it 0. The
    accuracy of a class is that of its items, which is its recall.
    """
    size = {
        "accuracy": counts.true,
        "precision": counts.predicted,
        "recall": counts.true,
        "f1": (counts.predicted + counts.true) / 2,
    }[name]
    slope = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    value = counts.hits * slope
    return value, slope, -value * slope


def averaged(counts: Counts, name: str, average: str | int) -> Estimate:
    """Return accuracy, precision, recall or f1: of one class (its number), or the macro, micro or weighted mean of all.

    Macro is over the classes that occur among labels or answers; of accuracy, over those that occur among labels, which
    is balanced accuracy. Micro of a single-label task is accuracy, and so is accuracy weighted by the items of a class.
    """
    items = len(counts.labels)
    if average == "micro":
        return mean(counts.labels == counts.answers)
    value, by_hits, by_size = by_class(counts, name)
    present = counts.true + (0 if name == "accuracy" else counts.predicted) > 0
    if isinstance(average, int):
        weights = (np.arange(len(value)) == average).astype(float)
    else:
        weights = present / present.sum() if average == "macro" else counts.true / items
    total = float(weights @ value)
    by_hits, by_size = weights * by_hits, weights * by_size
    share = {"accuracy": (0.0, 1.0), "precision": (1.0, 0.0), "recall": (0.0, 1.0), "f1": (0.5, 0.5)}[name]
    by_true = share[1] * by_size
    if average == "weighted":
        by_true = by_true + (value - total) / items
    right = counts.labels == counts.answers
    influence = by_hits[counts.labels] * right + share[0] * by_size[counts.answers] + by_true[counts.labels]
    return Estimate(total, influence)


def roc_auc(positive: Array, scores: Array) -> Estimate:
    """Return the area under the ROC curve: how often a positive item scores above a negative one."""
    ours, theirs = scores[positive], scores[~positive]
    beaten, lost_to = _share_below(np.sort(theirs), ours), 1 - _share_below(np.sort(ours), theirs)
    value = float(beaten.mean())
    influence = np.empty(len(scores))
    influence[positive], influence[~positive] = (beaten - value) / len(ours), (lost_to - value) / len(theirs)
    return Estimate(value, influence)


def _share_below(ordered: Array, scores: Array) -> Array:
    """Return for each score the share of the ordered ones that are below it; equal ones count half."""
    places = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return np.asarray(places / 2 / len(ordered))


def pr_auc(positive: Array, scores: Array) -> Estimate:
    """Return the average precision, the step-wise area under the precision-recall curve."""
    order = np.argsort(-scores, kind="stable")
    hit, ranked = positive[order].astype(float), -scores[order]
    first, last = np.searchsorted(ranked, ranked, "left"), np.searchsorted(ranked, ranked, "right") - 1
    above, hits_above = last + 1.0, np.cumsum(hit)[last]
    value = float(hit @ (hits_above / above) / hit.sum())
    # one item more changes the precision at every positive item that ranks no higher than it
    gained, lost = (np.cumsum(part[::-1])[::-1][first] for part in (hit / above, hit * hits_above / above**2))
    influence = np.empty(len(scores))
    influence[order] = (hit * (hits_above / above - value) + hit * gained - lost) / hit.sum()
    return Estimate(value, influence)


def r2(targets: Array, outputs: Array) -> Estimate:
    """Return the coefficient of determination, the mean over the columns."""
    from sklearn.metrics import r2_score

    error = (targets - outputs) ** 2
    spread = (targets - targets.mean(axis=0)) ** 2
    unexplained, total = error.sum(axis=0), spread.sum(axis=0)
    total = np.where(total > 0, total, np.inf)
    influence = ((unexplained / total) * spread - error) / total
    return Estimate(float(r2_score(targets, outputs)), influence.mean(axis=1))


def relative_error(targets: Array, outputs: Array) -> Estimate:
    """Return ‖outputs − targets‖ / ‖targets‖ over all items and columns (Euclidean norms)."""
    error, size = ((targets - outputs) ** 2).sum(axis=1), (targets**2).sum(axis=1)
    if size.sum() == 0:
        raise BadInput("the relative error to targets that are all zero is not defined: choose --metric mse or mae")
    squared = error.sum() / size.sum()
    value = float(np.sqrt(squared))
    if value == 0:
        return Estimate(0.0, np.zeros(len(error)))
    return Estimate(value, (error - squared * size) / size.sum() / (2 * value))


def cosine(targets: Array, outputs: Array) -> Estimate:
    """Return the mean over items of the cosine between outputs and targets; 0 where one of them is zero."""
    length = np.linalg.norm(targets, axis=1) * np.linalg.norm(outputs, axis=1)
    product = (targets * outputs).sum(axis=1)
    return mean(np.clip(np.divide(product, length, out=np.zeros_like(product), where=length > 0), -1, 1))


def among_five(labels: Array, outputs: Array) -> Array:
    """Return which labels are among the five highest scores of their item; of equals, later classes come first."""
    given = _needed_scores("top5", outputs)
    own = np.take_along_axis(given, labels[:, None], axis=1)
    later = np.arange(given.shape[1]) > labels[:, None]
    return np.asarray(((given > own) | ((given == own) & later)).sum(axis=1) < 5)


def ranked(labels: Array, scores: Array, rank: Callable[[Array, Array], Estimate]) -> Estimate:
    """Return the mean of a ranking number over the classes that have items, each against the rest."""
    items = len(labels)
    present = [c for c in range(scores.shape[1]) if 0 < np.count_nonzero(labels == c) < items]
    if not present:
        raise BadInput("ranking needs items of at least two classes: give more data or choose --metric accuracy")
    parts = [rank(labels == c, scores[:, c]) for c in present]
    influence = np.sum([part.influence for part in parts], axis=0) / len(parts)
    return Estimate(float(np.mean([part.value for part in parts])), influence)


def interval(
    estimate: Estimate, bounds: tuple[float, float], groups: Array | None = None, level: float = 0.95
) -> tuple[float, float] | None:
    """Return the two-sided interval of an estimate, None when a single group can't tell.

    Between 0 and 1 it is Wilson's (1927) with the number of items that would give the same variance, which is the
    number of items itself for a plain share of independent items. Otherwise it is the normal (with groups, Student's)
    interval, cut at the bounds. Items of one group count as one observation.
    """
    influence = estimate.influence
    units, factor, quantile = len(influence), 1.0, _quantile(level, None)
    if groups is not None:
        _, number = np.unique(groups, return_inverse=True)
        influence = np.bincount(number.ravel(), weights=influence)
        units = len(influence)
        if units < 2:
            return None
        factor, quantile = units / (units - 1), _quantile(level, units - 1)
    variance = factor * float(np.sum(influence**2))
    value, (lowest, highest) = estimate.value, bounds
    if bounds == (0.0, 1.0):
        certain = variance <= 1e-18 or not 0 < value < 1
        return wilson(value, units if certain else value * (1 - value) / variance, quantile)
    width = quantile * variance**0.5
    return max(lowest, value - width), min(highest, value + width)


@cache
def _quantile(level: float, freedom: int | None) -> float:
    """Return the two-sided quantile of the normal distribution, or of Student's."""
    from scipy.stats import norm, t

    tail = (1 + level) / 2
    return float(norm.ppf(tail) if freedom is None else t.ppf(tail, freedom))


def wilson(share: float, items: float, quantile: float = 1.959963984540054) -> tuple[float, float]:
    """Return Wilson's score interval of a share of that many items."""
    square = quantile**2 / items
    middle = (share + square / 2) / (1 + square)
    width = quantile / (1 + square) * float(np.sqrt(share * (1 - share) / items + square / (4 * items)))
    low = 0.0 if share <= 0 else max(0.0, middle - width)
    return low, 1.0 if share >= 1 else min(1.0, middle + width)


AVERAGES = ("macro", "micro", "weighted")
BY_CLASS = ("accuracy", "precision", "recall", "f1")
_ERRORS = ("mse", "mae", "relative_error", "cost")
_INFINITY = float("inf")

CLASSIFICATION = (*BY_CLASS, *(f"{name}_{mean}" for name in BY_CLASS for mean in AVERAGES))
RANKING = ("roc_auc", "pr_auc")
REGRESSION = ("mse", "mae", "r2", "relative_error", "cosine")
_KNOWN = (*CLASSIFICATION, *RANKING, "top5", "cost", *REGRESSION)


def lower_is_better(metric: str) -> bool:
    """Say whether a smaller value of that metric is the better one."""
    return metric in _ERRORS


def bounds(metric: str) -> tuple[float, float]:
    """Return the lowest and the highest value that a metric can have; of a user's own nothing is known."""
    if ":" in metric:
        return -_INFINITY, _INFINITY
    if metric in _ERRORS:
        return 0.0, _INFINITY
    return {"r2": (-_INFINITY, 1.0), "cosine": (-1.0, 1.0)}.get(metric, (0.0, 1.0))


def metrics(task: Task, outputs: Array) -> tuple[str, ...]:
    """Return the names of the metrics that can be computed for outputs like these."""
    if task.kind in ("regression", "embedding"):
        flat = outputs.reshape(len(outputs), -1)
        return REGRESSION if flat.shape[1] > 1 else tuple(name for name in REGRESSION if name != "cosine")
    found = CLASSIFICATION
    if task.kind == "binary":
        return (*found, *RANKING, *(("cost",) if task.costs else ()))
    classes = score_count(outputs)
    if classes is None:
        return found
    return (*found, *RANKING, *(("top5",) if classes > 5 else ()))


def estimate(task: Task, name: str, labels: Array, outputs: Array) -> Estimate:
    """Return a metric of a model's outputs against labels (or targets), with the influence of every item.

    Plain precision, recall and f1 are those of the positive class for a binary task, and the macro mean otherwise.
    """
    if name in REGRESSION:
        return _regression(name, labels, outputs)
    if name in RANKING:
        rank = {"roc_auc": roc_auc, "pr_auc": pr_auc}[name]
        if task.kind == "binary":
            _two_sided(labels, task.positive)
            return rank(labels == task.positive, positive_scores(task, outputs))
        return ranked(labels, _needed_scores(name, outputs), rank)
    if name == "top5":
        return mean(among_five(labels, outputs))
    given = answers(task, outputs)
    if name == "accuracy":
        return mean(labels == given)
    if name == "cost":
        return mean(costs(task, labels, given))
    base, _, average = name.partition("_")
    if base not in BY_CLASS or average not in ("", *AVERAGES):
        raise _unknown(name)
    which: str | int = average or (task.positive if task.kind == "binary" else "macro")
    return averaged(count(labels, given, class_count(task, labels, outputs)), base, which)


def check_metric(name: str) -> None:
    """Raise `BadInput` for a metric that is neither one of ours nor a user's `module:function`."""
    if not is_metric(name):
        raise _unknown(name)


def is_metric(name: str) -> bool:
    """Say whether a reading of that name tells how good answers are."""
    return name in (*_KNOWN, "agreement") or ":" in name


def readable(task: Task) -> tuple[str, ...]:
    """Return the names of what may be read of the quality of a model on such items."""
    classes = task.kind in ("classification", "binary")
    if not task.splits:
        return ()
    if not task.labelled:
        return ("agreement",) if classes else ("relative_error", "cosine")
    own = (task.metric,) if ":" in task.metric else ()
    if not classes:
        return (*REGRESSION, *own)
    other = ("cost",) * (task.costs is not None) if task.kind == "binary" else ("top5",)
    return (*CLASSIFICATION, *RANKING, *other, "agreement", *own)


def _unknown(name: str) -> BadInput:
    return BadInput(f"there is no metric {name!r}: choose one of {', '.join(_KNOWN)}, or module:function")


def class_count(task: Task, labels: Array, outputs: Array) -> int:
    """Return the number of classes; raise `BadInput` for a label that the model can't answer, or a class below 0."""
    known = 2 if task.kind == "binary" else score_count(outputs)
    if known is None:
        given = answers(task, outputs)
        if given.min() < 0:
            raise BadInput(f"the model answers class {given.min()}, classes count from 0: choose another --output-name")
        known = max(int(labels.max()) + 1, int(given.max()) + 1, len(task.classes))
    strange = np.flatnonzero((labels < 0) | (labels >= known))
    if len(strange):
        raise BadInput(
            f"label {labels[strange[0]]} of item {strange[0]} ({len(strange):,} such in all) is none of the model's "
            f"classes, 0 to {known - 1}: correct or drop these items, or check --labels"
        )
    return known


def costs(task: Task, labels: Array, given: Array) -> Array:
    """Return what each answer costs: a miss, a false alarm or nothing."""
    miss, false_alarm = task.costs or (0.0, 0.0)
    positive = labels == task.positive
    return np.where(labels == given, 0.0, np.where(positive, miss, false_alarm))


def _two_sided(labels: Array, positive: int) -> None:
    if not 0 < np.count_nonzero(labels == positive) < len(labels):
        raise BadInput("ranking needs positive and negative items: give more data or choose --metric accuracy")


def _needed_scores(name: str, outputs: Array) -> Array:
    scores = class_scores(outputs)
    if scores is None:
        raise BadInput(f"{name} needs a score per class, but the model answers class numbers: choose another --metric")
    return scores


def _regression(name: str, labels: Array, outputs: Array) -> Estimate:
    targets = np.asarray(labels, dtype=np.float64).reshape(len(labels), -1)
    given = np.asarray(outputs, dtype=np.float64).reshape(len(outputs), -1)
    if targets.shape != given.shape:
        raise BadInput(f"the targets have {targets.shape[1]} values per item, the model's outputs {given.shape[1]}")
    if name == "mse":
        return mean(((targets - given) ** 2).mean(axis=1))
    if name == "mae":
        return mean(np.abs(targets - given).mean(axis=1))
    return {"r2": r2, "relative_error": relative_error, "cosine": cosine}[name](targets, given)
