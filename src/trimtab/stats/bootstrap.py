"""The paired bootstrap: how far does the difference of any metric scatter if the items had been others?

Both models are resampled together, item by item, within strata (classes) and in whole groups (photos, speakers,
documents). A metric is a function of item weights, so that a thousand replicates are a few matrix products and equal
items may be merged into one with a count. Intervals are BCa: bias-corrected and accelerated (B. Efron, "Better
bootstrap confidence intervals", JASA 82, 1987), the acceleration from a stratified jackknife.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from trimtab.stats.noninferiority import effective_groups, fewest_items, in_groups

Weights = NDArray[np.float64]
"""Replicates × items: how often each item was drawn."""

Statistic = Callable[[Weights], NDArray[np.float64]]
"""Item weights (replicates × items) to one value per replicate."""

_CHUNK_CELLS = 4_000_000
_JACKKNIFE_BLOCKS = 1_000
_UNSEEN_SHARE = 0.05  # of all inputs: what fails on more than these must have shown in the items of a proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """The value of a statistic, its two-sided BCa interval and its standard error."""

    value: float
    low: float
    high: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """The outcome of the test of "the metric falls by δ or more"; `proven` is `low > -delta` on enough units.

    `difference` is new − old with its interval at confidence 1 − 2α; `units` the items or groups that were resampled;
    `fewest` how many of them any proof takes (see `fewest_units`), `needed` about how many would decide with 80 %
    power, None when the difference is −δ or below.
    """

    difference: float
    low: float
    high: float
    error: float
    units: int
    proven: bool
    fewest: int
    needed: int | None


def fewest_units(alpha: float = 0.05) -> int:
    """Return on how many independent items, or groups, any proof by resampling takes: 59 at a risk of 5 %.

    Nothing bounds what one item may lose of an error or a similarity, and resampling knows only the losses it was
    shown: five items on which nothing changed would prove anything. Inputs on which the new model fails, a share p
    of all, are missing from n items with probability (1 − p)ⁿ. With this many items a share of 5 % goes unseen with
    probability α at most: the worst item seen bounds 95 % of all inputs at confidence 1 − α (S. S. Wilks,
    "Determination of sample sizes for setting tolerance limits", Annals of Mathematical Statistics 12, 1941).
    What fails more rarely may stay unseen, and a proof claims nothing about it.
    """
    return fewest_items(_UNSEEN_SHARE, alpha)


def prove(
    statistic: Statistic,
    delta: float,
    counts: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    unseen: float = 0.0,
    alpha: float = 0.05,
    seed: int = 0,
) -> Shift:
    """Test one-sided, at risk α, whether a metric (larger is better) falls by less than δ.

    Fewer units than `fewest_units` prove nothing, however alike their answers; groups of unequal size count less than
    their number.

    Args:
        statistic: the difference new − old as a function of item weights.
        delta: the largest drop that is still accepted, in the metric's unit.
        counts: how often each item occurs; all ones unless equal items were merged.
        strata: the class of each item; resampling keeps the number of each.
        groups: the group of each item; then every count must be one, and a group belongs to the stratum that most of
            its items are in.
        unseen: what changes of a kind that never occurred in these items could take from the metric at most, with
            confidence 1 − α (see `weighted.unseen_harm`). A bootstrap can't resample what it has not seen: without
            it, ten equal answers would prove anything.
        alpha: the risk of a wrong proof.
        seed: equal seeds give equal results.
    """
    if unseen < 0:
        raise ValueError("the harm of what was not seen can't be negative")
    number = np.asarray(counts, dtype=np.int64)
    layers = np.zeros(number.size, dtype=np.intp) if strata is None else _numbered(strata)
    each = 1.0
    if groups is not None:
        statistic, number, layers = _by_group(statistic, number, layers, _numbered(groups))
        each = effective_groups(groups)[1]
    found = bca(statistic, number, strata=layers, level=1 - 2 * alpha, seed=seed)
    # Two independent uncertainties, of what was seen and of what was not, add in quadrature.
    low = found.value - math.hypot(max(0.0, found.value - found.low), unseen)
    units, fewest, needed = int(number.sum()), in_groups(fewest_units(alpha), each), None
    room = delta + found.value
    if room > 0:
        z = float(norm.ppf(1 - alpha) + norm.ppf(0.8))
        needed = max(fewest, math.ceil(units * max((z * found.error / room) ** 2, unseen / room)))
    return Shift(
        difference=found.value,
        low=low,
        high=max(found.high, found.value),
        error=found.error,
        units=units,
        proven=low > -delta and units >= fewest,
        fewest=fewest,
        needed=needed,
    )


def bca(
    statistic: Statistic,
    counts: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Scatter:
    """Return the statistic with its BCa interval. Replicates without a value (NaN) are an error of the statistic."""
    number = np.asarray(counts, dtype=np.int64)
    layers = np.zeros(number.size, dtype=np.intp) if strata is None else _numbered(strata)
    if number.size == 0 or number.min() < 0 or layers.shape != number.shape:
        raise ValueError("counts must be one row of non-negative numbers, with a stratum for each")
    value = float(statistic(number[None, :].astype(float))[0])
    replicates = _replicates(statistic, number, layers, resamples, np.random.default_rng(seed))
    if not np.all(np.isfinite(replicates)):
        raise ValueError("the metric has no value on some resamples; stratify by class or give more items")
    if np.ptp(replicates) <= 1e-12 * max(1.0, abs(value)):
        return Scatter(value=value, low=value, high=value, error=0.0)
    # Half of the ties count as below: metrics of counts take few values.
    below = np.mean(replicates < value) + 0.5 * np.mean(replicates == value)
    bias = norm.ppf(np.clip(below, 1 / resamples, 1 - 1 / resamples))
    acceleration = _acceleration(statistic, number, layers)
    z = bias + norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(replicates, norm.cdf(bias + z / (1 - acceleration * z)))
    return Scatter(value=value, low=float(low), high=float(high), error=float(replicates.std(ddof=1)))


def _replicates(
    statistic: Statistic, counts: NDArray[np.int64], strata: NDArray[np.intp], resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    size = max(1, _CHUNK_CELLS // counts.size)
    sizes = [min(size, resamples - start) for start in range(0, resamples, size)]
    return np.concatenate([statistic(_draw(counts, strata, rows, rng)) for rows in sizes])


def _draw(counts: NDArray[np.int64], strata: NDArray[np.intp], resamples: int, rng: np.random.Generator) -> Weights:
    """Draw each stratum with replacement to its own size."""
    weights = np.zeros((resamples, counts.size))
    for stratum in range(int(strata.max()) + 1):
        members = np.flatnonzero(strata == stratum)
        total = int(counts[members].sum())
        if total:
            weights[:, members] = _multinomial(total, counts[members] / total, resamples, rng)
    return weights


def _multinomial(
    total: int, shares: NDArray[np.float64], resamples: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    kinds = shares.size
    if kinds < total // 4:
        return rng.multinomial(total, shares, size=resamples)
    # With about as many kinds as draws, drawing items and counting them is ten times faster.
    ends = np.cumsum(np.rint(shares * total).astype(np.int64))
    drawn = np.searchsorted(ends, rng.integers(total, size=(resamples, total)), side="right")
    offsets = kinds * np.arange(resamples)[:, None]
    return np.bincount((drawn + offsets).ravel(), minlength=kinds * resamples).reshape(resamples, kinds)


def _acceleration(statistic: Statistic, counts: NDArray[np.int64], strata: NDArray[np.intp]) -> float:
    """Return the BCa acceleration: a sixth of the skewness of what single items contribute.

    Each item in turn is left out and its stratum scaled back to its size. Beyond 1,000 items random blocks are left
    out instead: third moments of independent contributions add.
    """
    cubes, squares = 0.0, 0.0
    rng = np.random.default_rng(0)
    for stratum in range(int(strata.max()) + 1):
        members = np.flatnonzero((strata == stratum) & (counts > 0))
        total = int(counts[members].sum())
        if members.size < 2:
            continue
        blocks = np.arange(members.size)
        if members.size > _JACKKNIFE_BLOCKS:
            blocks = rng.permutation(members.size) % _JACKKNIFE_BLOCKS
        effect, times = _left_out(statistic, counts, members, blocks, total)
        effect -= np.average(effect, weights=times)
        cubes += float((times * effect**3).sum())
        squares += float((times * effect**2).sum())
    return cubes / (6 * squares**1.5) if squares > 0 else 0.0


def _left_out(
    statistic: Statistic, counts: NDArray[np.int64], members: NDArray[np.intp], blocks: NDArray[np.intp], total: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what each left-out block contributes (up to a constant), and how often each occurs."""
    number = int(blocks.max()) + 1
    single = number == members.size
    times = counts[members].astype(float) if single else np.ones(number)
    values = np.empty(number)
    size = max(1, _CHUNK_CELLS // counts.size)
    for start in range(0, number, size):
        chosen = np.arange(start, min(start + size, number))
        weights = np.repeat(counts[None, :].astype(float), chosen.size, axis=0)
        without = (blocks[None, :] == chosen[:, None]) * (1.0 if single else counts[members])
        rest = total - without.sum(axis=1, keepdims=True)
        weights[:, members] = (counts[members] - without) * total / np.maximum(rest, 1.0)
        values[chosen] = statistic(weights) * -(rest[:, 0] / total)
    return values, times


def _by_group(
    statistic: Statistic, counts: NDArray[np.int64], strata: NDArray[np.intp], groups: NDArray[np.intp]
) -> tuple[Statistic, NDArray[np.int64], NDArray[np.intp]]:
    """Return the same statistic of group weights, one of each group, and each group's most frequent stratum."""
    if np.any(counts != 1) or groups.shape != counts.shape:
        raise ValueError("with groups every item needs a group and counts of one")
    table = np.zeros((int(groups.max()) + 1, int(strata.max()) + 1), dtype=np.int64)
    np.add.at(table, (groups, strata), 1)
    majority = _numbered(table.argmax(axis=1))
    return lambda weights: statistic(weights[:, groups]), np.ones(len(table), dtype=np.int64), majority


def _numbered(labels: ArrayLike) -> NDArray[np.intp]:
    return np.unique(np.asarray(labels), return_inverse=True)[1].ravel()
