"""Several finalists, one set of items: a fixed sequence of tests, each at full α.

The order is set beforehand, on other items; the first failure ends it. The chance that any finalist is certified
wrongly is at most α without dividing it, because the first wrong one in the order has to pass its own test
(W. Maurer, L. A. Hothorn & W. Lehmacher, 1995; B. L. Wiens, Pharmaceutical Statistics 2, 2003).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Outcome = TypeVar("Outcome")


def safest_first(scores: ArrayLike) -> NDArray[np.intp]:
    """Return the order in which to test finalists: highest score on the select split first, ties as they came."""
    return np.argsort(-np.asarray(scores, dtype=float), kind="stable")


def fixed_sequence(tests: Iterable[Outcome], passes: Callable[[Outcome], bool]) -> list[Outcome]:
    """Return the outcomes up to the first that doesn't pass, and that one; nothing is drawn from `tests` after it."""
    made = []
    for outcome in tests:
        made.append(outcome)
        if not passes(outcome):
            break
    return made
