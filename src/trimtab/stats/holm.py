"""Harm by class: in which classes does the new model lose more answers than it gains, beyond chance?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassChange:
    """What became of one class: its items, those only the new or only the old model got right, and the test.

    `difference` is the change of the class's recall; `p` is adjusted for all classes; `harmed` is p ≤ α.
    """

    label: int
    items: int
    better: int
    worse: int
    difference: float
    p: float
    harmed: bool


def adjust(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values adjusted for their number by Holm's step-down rule (S. Holm, Scand. J. Statist. 6, 1979)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((p.size - np.arange(p.size)) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def by_class(
    truth: ArrayLike, old: ArrayLike, new: ArrayLike, groups: ArrayLike | None = None, alpha: float = 0.05
) -> tuple[ClassChange, ...]:
    """Test each class that occurs in `truth` for harm; the result is in the order of the classes' numbers.

    The test is the exact one-sided sign test of McNemar on the items that only one model got right. Items of one
    group vote once, with the sign of their sum, since they tend to change together.
    """
    labels, old_answers, new_answers = np.asarray(truth), np.asarray(old), np.asarray(new)
    units = np.arange(labels.size) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    gains = (new_answers == labels).astype(int) - (old_answers == labels).astype(int)
    classes = np.unique(labels)
    p = adjust([_sign_test(gains[labels == label], units[labels == label]) for label in classes])
    changes = []
    for label, adjusted in zip(classes, p, strict=True):
        of_class = gains[labels == label]
        changes.append(
            ClassChange(
                label=int(label),
                items=of_class.size,
                better=int((of_class > 0).sum()),
                worse=int((of_class < 0).sum()),
                difference=float(of_class.mean()),
                p=float(adjusted),
                harmed=bool(adjusted <= alpha),
            )
        )
    return tuple(changes)


def _sign_test(gains: NDArray[np.int_], units: NDArray[np.intp]) -> float:
    votes = np.bincount(units, weights=gains)
    up, down = int((votes > 0).sum()), int((votes < 0).sum())
    return float(binom.sf(down - 1, up + down, 0.5)) if up + down else 1.0
