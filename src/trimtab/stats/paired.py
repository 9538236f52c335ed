"""Differences and ratios of paired runs: two recipes under the same seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its two-sided interval; without enough pairs the interval is everything."""

    value: float
    low: float
    high: float
    pairs: int

    def verdict(self, neutral: float = 0.0) -> str:
        """Return "higher" or "lower" where the interval lies on one side of no difference, else "unclear"."""
        return "higher" if self.low > neutral else "lower" if self.high < neutral else "unclear"


def difference(these: Array, others: Array, level: float = 0.95) -> Interval:
    """Return the mean of these − others, shape (pairs,) each, with Student's interval for paired samples."""
    if these.shape != others.shape or these.ndim != 1 or not len(these):
        raise BadInput(f"paired runs need one value each of both, not {these.shape} and {others.shape}")
    apart = these.astype(np.float64) - others.astype(np.float64)
    mean, pairs = float(apart.mean()), len(apart)
    if pairs < 2:
        return Interval(value=mean, low=-np.inf, high=np.inf, pairs=pairs)
    half = float(student.ppf((1 + level) / 2, pairs - 1) * apart.std(ddof=1) / np.sqrt(pairs))
    return Interval(value=mean, low=mean - half, high=mean + half, pairs=pairs)


def ratio(these: Array, others: Array, level: float = 0.95) -> Interval:
    """Return the geometric mean of these / others (all above 0) with its interval, found on logarithms."""
    if not (np.all(these > 0) and np.all(others > 0)):
        raise BadInput("a ratio of paired runs needs values above 0")
    found = difference(np.log(these), np.log(others), level)
    return Interval(
        value=float(np.exp(found.value)),
        low=float(np.exp(found.low)),
        high=float(np.exp(found.high)),
        pairs=found.pairs,
    )
