"""Warm-up: when have the times of successive calls settled?

Two successive windows must agree, in the manner of pyperf's warm-up calibration (V. Stinner): the first value of the
older window is no outlier, and mean, quartiles and spread of both windows are close.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

State = Literal["warming", "steady", "unsteady"]

WINDOW = 20
FEWEST_CALLS = 3
MOST_CALLS = 300
MOST_SECONDS = 10.0
_MEAN_CLOSE = 0.10
_CLOSE = 0.05


def state(times_s: ArrayLike) -> State:
    """Say whether calls, with these times in seconds so far, go on warming, are steady, or won't become so.

    "unsteady" means that 300 calls or 10 s have passed (and 3 calls at least): measure then, but flag the result.
    """
    times = np.asarray(times_s, dtype=float)
    if times.size >= 2 * WINDOW and agree(times[-2 * WINDOW : -WINDOW], times[-WINDOW:]):
        return "steady"
    if times.size >= FEWEST_CALLS and (times.size >= MOST_CALLS or times.sum() >= MOST_SECONDS):
        return "unsteady"
    return "warming"


def agree(older: ArrayLike, newer: ArrayLike) -> bool:
    """Say whether two windows of times are alike.

    The first value must not exceed Q3 + 1.5 IQR of its window; the means must agree within 10 % of the median, the
    quartiles and the median absolute deviations within 5 % of it (relative to the median, not to themselves: the
    spread of 20 calls scatters by a fifth on a quiet machine).
    """
    first, second = np.asarray(older, dtype=float), np.asarray(newer, dtype=float)
    low, high = np.quantile(first, (0.25, 0.75))
    if first[0] > high + 1.5 * (high - low):
        return False
    scale = float(np.median(second))
    gap = np.abs(_summary(first) - _summary(second))
    return bool(gap[0] <= _MEAN_CLOSE * scale and np.all(gap[1:] <= _CLOSE * scale))


def _summary(times: NDArray[np.float64]) -> NDArray[np.float64]:
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
    return np.array([times.mean(), low, middle, high, np.median(np.abs(times - middle))])
