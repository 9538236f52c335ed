"""How much faster is one variant than another? Ratios of times taken in pairs, with four verdicts.

Machines drift and burst, so two readings made apart are never divided. Both variants run in turn, block by block, in
several pairs of fresh processes; every pair of blocks gives one log ratio, and the estimate is their median. Samples
are never deleted.

The interval is hierarchical, over processes and blocks within them. With a handful of processes resampling *them* is
dishonest: the percentile bootstrap covered 91 % instead of 95 in simulation with 5 processes. So blocks are
resampled within their processes, processes enter through the spread of their medians with Student's t on processes − 1
degrees of freedom (T. Kalibera & R. Jones, "Rigorous benchmarking in reasonable time", ISMM 2013), and the larger of
the two standard errors counts. This covers 95 to 99 % (tests/stats/test_ratios.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, t

from trimtab.core.values import SpeedVerdict

_RESAMPLES = 400
_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Time of A over time of B (below 1: A is faster), its interval at `level`, and the verdict against a margin.

    `noise` is the spread of wall-clock ratios over that of processor-time ratios: 1 on a quiet machine, more where
    others took the processor away; None when processor time was not given or tells nothing.
    """

    value: float
    low: float
    high: float
    level: float
    verdict: SpeedVerdict
    blocks: int
    processes: int
    noise: float | None


def ratio(
    a: Sequence[ArrayLike],
    b: Sequence[ArrayLike],
    *,
    cpu_a: Sequence[ArrayLike] | None = None,
    cpu_b: Sequence[ArrayLike] | None = None,
    margin: float = 0.03,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Compare the block times of two variants: per pair of processes one array each, block i of both taken in turn.

    Without a second process the interval can't contain what differs between processes; it is for screening only.
    """
    logs = _log_ratios(a, b)
    middle = float(np.median(np.concatenate(logs)))
    half = _half_width(logs, level, seed)
    noise = None if cpu_a is None or cpu_b is None else _audit(logs, cpu_a, cpu_b)
    low, high = math.exp(middle - half), math.exp(middle + half)
    return Estimate(
        value=math.exp(middle),
        low=low,
        high=high,
        level=level,
        verdict=verdict(math.exp(middle), low, high, margin),
        blocks=sum(log.size for log in logs),
        processes=len(logs),
        noise=noise,
    )


def verdict(value: float, low: float, high: float, margin: float) -> SpeedVerdict:
    """Return the verdict on a ratio of times and its interval; the margin of 0.03 lies between 1 / 1.03 and 1.03.

    Equivalent: the whole interval lies within the margin. Faster or slower: the interval excludes 1 and the
    estimate lies beyond the margin. Inconclusive: anything else; it takes more processes or blocks to tell.
    """
    if not margin > 0:
        raise ValueError(f"the margin must be above 0, not {margin:g}; 0.03 is 3 %")
    if 1 / (1 + margin) <= low and high <= 1 + margin:
        return "equivalent"
    if high < 1 and value < 1 / (1 + margin):
        return "faster"
    if low > 1 and value > 1 + margin:
        return "slower"
    return "inconclusive"


def precise(found: Estimate, margin: float) -> bool:
    """Say whether measuring may stop: the half-width is at most max(1 %, margin / 2), whatever the verdict."""
    return (found.high - found.low) / (2 * found.value) <= max(0.01, margin / 2)


def _log_ratios(a: Sequence[ArrayLike], b: Sequence[ArrayLike]) -> list[NDArray[np.float64]]:
    if not a or len(a) != len(b):
        raise ValueError("both variants need the same number of processes, at least one")
    logs = []
    for first, second in zip(a, b, strict=True):
        x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
        if x.shape != y.shape or x.ndim != 1 or not x.size:
            raise ValueError("times must come in pairs: the same number of blocks of both variants in every process")
        if min(x.min(), y.min()) <= 0:
            raise ValueError("every time must be above 0")
        logs.append(np.log(x / y))
    return logs


def _half_width(logs: list[NDArray[np.float64]], level: float, seed: int) -> float:
    """Return half the width of the interval of the median log ratio."""
    tail = (1 + level) / 2
    within = _block_error(logs, seed)
    if len(logs) == 1:
        return float(norm.ppf(tail)) * within
    medians = np.array([np.median(log) for log in logs])
    between = float(medians.std(ddof=1)) / math.sqrt(len(logs))
    return float(t.ppf(tail, len(logs) - 1)) * max(between, within)


def _block_error(logs: list[NDArray[np.float64]], seed: int) -> float:
    """Return the standard error of the pooled median when blocks are resampled within their processes."""
    rng = np.random.default_rng(seed)
    total = sum(log.size for log in logs)
    size = max(1, _CHUNK_CELLS // total)
    medians = []
    for start in range(0, _RESAMPLES, size):
        rows = min(size, _RESAMPLES - start)
        drawn = [log[rng.integers(log.size, size=(rows, log.size))] for log in logs]
        medians.append(np.median(np.concatenate(drawn, axis=1), axis=1))
    return float(np.concatenate(medians).std(ddof=1))


def _audit(wall: list[NDArray[np.float64]], cpu_a: Sequence[ArrayLike], cpu_b: Sequence[ArrayLike]) -> float | None:
    """Return how much wider wall-clock ratios scatter than processor-time ratios, within processes."""
    if min(float(np.min(times)) for times in (*cpu_a, *cpu_b)) <= 0:
        return None  # the processor clock ticks more coarsely than a block lasts
    scatter = (np.concatenate([log - np.median(log) for log in logs]) for logs in (wall, _log_ratios(cpu_a, cpu_b)))
    spreads = [float(np.subtract(*np.quantile(logs, (0.75, 0.25)))) for logs in scatter]
    return spreads[0] / spreads[1] if spreads[1] > 0 else None
