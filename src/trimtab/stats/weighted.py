"""Metrics as functions of item weights, for the bootstrap: replicates × items in, one value per replicate out.

Definitions, including what an empty class scores (0), are those of scikit-learn. Larger is better for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from trimtab.stats.bootstrap import Shift, Statistic, Weights, prove

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Per class (last axis): answers that are right, answers given, items that truly are of the class."""

    right: Values
    given: Values
    true: Values


def tally(truth: ArrayLike, answers: ArrayLike, classes: int) -> Callable[[Weights], Tally]:
    """Return the tally of class numbers as a function of item weights."""
    labels, given = np.asarray(truth, dtype=np.intp), np.asarray(answers, dtype=np.intp)
    hit = labels == given

    def counter(places: NDArray[np.intp], kept: NDArray[np.bool_]) -> csr_array:
        rows = np.flatnonzero(kept)
        return csr_array((np.ones(rows.size), (places[rows], rows)), shape=(classes, labels.size))

    every = np.ones(labels.size, dtype=bool)
    right, answered, true = counter(labels, hit), counter(given, every), counter(labels, every)
    return lambda weights: Tally((right @ weights.T).T, (answered @ weights.T).T, (true @ weights.T).T)


def tally_metric(name: str, positive: int = 1) -> Callable[[Tally], Values]:
    """Return accuracy, precision, recall or f1, plain (of class `positive`) or _macro, _micro or _weighted.

    `accuracy_macro` is balanced accuracy: the mean recall of the classes that occur among the true ones.
    """
    base, _, average = name.partition("_")
    if base not in ("accuracy", "precision", "recall", "f1") or average not in ("", "macro", "micro", "weighted"):
        raise ValueError(f"{name!r} is not computed from a tally of right, given and true answers")
    if average == "micro" or (base == "accuracy" and average != "macro"):
        return lambda t: _ratio(t.right.sum(axis=-1), t.true.sum(axis=-1))

    def value(t: Tally) -> Values:
        below = {"accuracy": t.true, "precision": t.given, "recall": t.true, "f1": (t.given + t.true) / 2}[base]
        scores = _ratio(t.right, below)
        if average == "weighted":
            return _ratio((scores * t.true).sum(axis=-1), t.true.sum(axis=-1))
        if average == "macro":
            present = t.true > 0 if base == "accuracy" else (t.given > 0) | (t.true > 0)
            return _ratio(scores.sum(axis=-1), present.sum(axis=-1).astype(float))
        return scores[..., positive]

    return value


def average(values: ArrayLike) -> Statistic:
    """Return the weighted mean of one value per item (hits of top-5, minus squared errors …)."""
    given = np.asarray(values, dtype=float)

    def value(weights: Weights) -> Values:
        found: Values = weights @ given / weights.sum(axis=-1)
        return found

    return value


def r2(truth: ArrayLike, answers: ArrayLike) -> Statistic:
    """Return the coefficient of determination of one number per item."""
    y, residual = np.asarray(truth, dtype=float), np.asarray(truth, dtype=float) - np.asarray(answers, dtype=float)
    y = y - y.mean()

    def value(weights: Weights) -> Values:
        total = weights.sum(axis=-1)
        spread = weights @ y**2 - (weights @ y) ** 2 / total
        with np.errstate(divide="ignore", invalid="ignore"):  # targets that are all equal have no spread
            explained: Values = 1 - weights @ residual**2 / spread
        return explained

    return value


def roc_auc(positive: ArrayLike, scores: ArrayLike) -> Statistic:
    """Return the area under the receiver operating characteristic; ties count half."""
    ranked = _ranked(positive, scores)

    def value(weights: Weights) -> Values:
        hits, alarms = ranked(weights)
        before = np.cumsum(alarms, axis=-1) - alarms
        below = alarms.sum(axis=-1, keepdims=True) - before - alarms
        won = (hits * (below + alarms / 2)).sum(axis=-1)
        area: Values = won / (hits.sum(axis=-1) * alarms.sum(axis=-1))
        return area

    return value


def pr_auc(positive: ArrayLike, scores: ArrayLike) -> Statistic:
    """Return average precision, scikit-learn's area under the precision-recall curve (no interpolation)."""
    ranked = _ranked(positive, scores)

    def value(weights: Weights) -> Values:
        hits, alarms = ranked(weights)
        found = np.cumsum(hits, axis=-1)
        precision = _ratio(found, found + np.cumsum(alarms, axis=-1))
        mean: Values = (hits * precision).sum(axis=-1) / hits.sum(axis=-1)
        return mean

    return value


def prove_answers(
    truth: ArrayLike,
    old: ArrayLike,
    new: ArrayLike,
    metric: Callable[[Tally], Values],
    delta: float,
    *,
    groups: ArrayLike | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> Shift:
    """Test whether a metric of class numbers falls by less than δ, stratified by class.

    Items with equal truth and equal answers are merged, so that 10,000 items cost no more than a few hundred. What may
    have gone unseen (`unseen_harm`) is added.
    """
    cells = np.stack([np.asarray(x, dtype=np.intp) for x in (truth, old, new)], axis=1)
    if not cells.size or cells.min() < 0:
        raise ValueError("class numbers must be given, and none negative")
    classes, labels = max(2, int(cells.max()) + 1), cells[:, 0]
    units = np.bincount(labels, minlength=classes)
    if groups is not None:
        pairs = np.unique(np.stack([labels, np.unique(np.asarray(groups), return_inverse=True)[1].ravel()]), axis=1)
        units = np.bincount(pairs[0], minlength=classes)
    seen = tally(labels, cells[:, 2], classes)(np.ones((1, len(cells))))
    counts = np.ones(len(cells), dtype=np.int64)
    if groups is None:
        cells, counts = np.unique(cells, axis=0, return_counts=True)
    before, after = (tally(cells[:, 0], cells[:, column], classes) for column in (1, 2))
    return prove(
        lambda weights: metric(after(weights)) - metric(before(weights)),
        delta,
        counts,
        strata=cells[:, 0],
        groups=groups,
        unseen=unseen_harm(seen, metric, units, alpha),
        alpha=alpha,
        seed=seed,
    )


def unseen_harm(seen: Tally, metric: Callable[[Tally], Values], units: ArrayLike, alpha: float = 0.05) -> float:
    """Return the most a metric loses if right answers turn wrong as often as may go unseen, in one class.

    A change that did not occur in m items (or groups: `units`, per class) occurs in less than −ln α / m of them, at
    confidence 1 − α: the "rule of three" (Hanley & Lippman-Hand, JAMA 249, 1983). The wrong answers go to the class
    that suffers most from false alarms; there must be two classes at least.
    """
    right, given, true = (np.asarray(x, dtype=float).ravel() for x in (seen.right, seen.given, seen.true))
    share = np.minimum(1.0, -math.log(alpha) / np.maximum(np.asarray(units, dtype=float), 1.0))
    lost = np.minimum(share * true, right)
    suffers = right / np.maximum(given + true, 1.0) ** 2
    order = np.argsort(-suffers, kind="stable")
    everyone = np.arange(right.size)
    taker = np.where(everyone == order[0], order[1], order[0])
    shift_right, shift_given = np.diag(lost), np.diag(lost)
    shift_given[everyone, taker] -= lost
    after = metric(Tally(right - shift_right, given - shift_given, np.broadcast_to(true, shift_right.shape)))
    before = float(metric(Tally(right[None], given[None], true[None]))[0])
    return max(0.0, before - float(after.min()))


def _ranked(positive: ArrayLike, scores: ArrayLike) -> Callable[[Weights], tuple[Values, Values]]:
    """Return the weights of positives and negatives at each distinct score, highest first."""
    is_positive, given = np.asarray(positive, dtype=bool), np.asarray(scores, dtype=float)
    order = np.argsort(-given, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(given[order]) != 0])
    sorted_positive = is_positive[order]

    def split(weights: Weights) -> tuple[Values, Values]:
        ordered = weights[:, order]
        hits = np.add.reduceat(ordered * sorted_positive, starts, axis=1)
        return hits, np.add.reduceat(ordered, starts, axis=1) - hits

    return split


def _ratio(above: Values, below: Values) -> Values:
    found: Values = np.divide(above, below, out=np.zeros_like(above, dtype=float), where=below > 0)
    return found
