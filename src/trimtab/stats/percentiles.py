"""Percentiles of latencies as upper bounds that hold, medians and means with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc
from scipy.stats import binom

from trimtab.stats.bootstrap import bca
from trimtab.stats.weighted import average

CONFIDENCE = 0.99
"""Of upper bounds of percentiles."""

LEVEL = 0.95
"""Of the intervals of means and medians."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its two-sided interval at confidence `level`, from that many samples."""

    value: float
    low: float
    high: float
    level: float
    samples: int


def upper_bound(times: ArrayLike, percentile: float) -> float | None:
    """Return a value that the percentile (0.99 for p99) doesn't exceed at 99 % confidence; None when n is too small.

    MLPerf's early-stopping rule: of n samples the largest t with I_p(n − t, t + 1) ≤ 1 − c may lie above the bound
    (I is the regularised incomplete beta function), and t must be at least 1; the t-th largest sample is reported,
    as LoadGen does.
    """
    values = np.sort(np.asarray(times, dtype=float))
    allowed = _overlatency(values.size, percentile)
    return None if allowed < 1 else float(values[values.size - allowed])


def samples_needed(percentile: float) -> int:
    """Return the fewest samples that bound the percentile: 64 for p90, 130 for p95, 662 for p99, 6,636 for p99.9."""
    low, high = 1, 2
    while _overlatency(high, percentile) < 1:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _overlatency(middle, percentile) >= 1 else (middle, high)
    return high


def median(times: ArrayLike) -> Estimate:
    """Return the median with its distribution-free interval between two order statistics.

    With fewer than 6 samples (at 95 %) the interval is the whole range and its confidence smaller than `level`.
    """
    values = np.sort(_some(times))
    n = values.size
    # ppf is the first k with P(X ≤ k) at or above the tail; the k-th smallest (k ≥ 1) keeps each tail within it.
    rank = max(int(binom.ppf((1 - LEVEL) / 2, n, 0.5)), 1)
    return Estimate(
        value=float(np.median(values)),
        low=float(values[rank - 1]),
        high=float(values[n - rank]),
        level=LEVEL,
        samples=n,
    )


def mean(times: ArrayLike) -> Estimate:
    """Return the mean with its BCa bootstrap interval (B. Efron, JASA 82, 1987)."""
    values = _some(times)
    ones = np.ones(values.size, dtype=np.int64)
    found = bca(average(values), ones, level=LEVEL)
    return Estimate(value=float(values.mean()), low=found.low, high=found.high, level=LEVEL, samples=values.size)


def _overlatency(n: int, percentile: float) -> int:
    """Return the largest t with I_p(n − t, t + 1) ≤ 1 − c, −1 when not even 0 will do."""
    if not 0 < percentile < 1:
        raise ValueError("a percentile is a share between 0 and 1: 0.99 is p99")
    if n < 1:
        return -1
    t = np.arange(int(n * (1 - percentile)) + 1)
    passing = np.flatnonzero(betainc(n - t, t + 1.0, percentile) <= 1 - CONFIDENCE)
    return int(passing[-1]) if passing.size else -1


def _some(times: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(times, dtype=float).ravel()
    if not values.size:
        raise ValueError("no samples to summarise")
    return values
