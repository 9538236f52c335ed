"""Several finalists, one set of items: a fixed sequence of tests, each at full α.

The order is set beforehand, on other items; the first failure ends it. The chance that any finalist is certified
wrongly is at most α without dividing it, because the first wrong one in the order has to pass its own test
(W. Maurer, L. A. Hothorn & W. Lehmacher, 1995; B. L. Wiens, Pharmaceutical Statistics 2, 2003).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray


def safest_first(scores: ArrayLike) -> NDArray[np.intp]:
    """Return the order in which to test finalists: highest score on the select split first, ties as they came."""
    return np.argsort(-np.asarray(scores, dtype=float), kind="stable")


def fixed_sequence(proofs: Iterable[bool]) -> int:
    """Return how many finalists are proven before the first that is not; nothing is drawn from `proofs` after it."""
    proven = 0
    for proof in proofs:
        if not proof:
            break
        proven += 1
    return proven
