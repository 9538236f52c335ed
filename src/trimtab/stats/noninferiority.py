"""Proof that one classifier is not worse than another by more than δ, from answers to the same items.

Of n items, b were answered rightly only by the new model and c only by the old one; d = (b − c) / n is the
difference of their accuracies and ψ = (b + c) / n the share of discordant items. The test is Tango's score test
(T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
design", Statistics in Medicine 17, 1998), which holds at b = c = 0 too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import bdtr, gammaln, xlog1py, xlogy
from scipy.stats import norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """What two models got right of the same items: `better` only the new one, `worse` only the old one.

    With groups the three numbers are effective ones (see `count`), `each` of which takes so many groups.
    """

    items: float
    better: float
    worse: float
    each: float = 1.0

    @property
    def difference(self) -> float:
        """Accuracy of the new model minus that of the old one."""
        return (self.better - self.worse) / self.items

    @property
    def discordant(self) -> float:
        """Share of the items that only one of the two got right."""
        return (self.better + self.worse) / self.items


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The outcome of the test of "worse by δ or more"; `proven` implies `low > -δ`.

    `low`, `high` bound the difference at confidence 1 − 2α; `exact_p` is the largest probability of evidence this
    strong under any model that is worse by δ; `fewest` how many items any proof takes, even when no answer differs;
    `needed` about how many would decide with 80 % power if the true difference and discordance were the observed
    ones, None when none would. With groups both are numbers of groups (of sizes like these), since more items of the
    same groups tell little.
    """

    difference: float
    low: float
    high: float
    exact_p: float
    proven: bool
    fewest: int
    needed: int | None


def count(old_right: ArrayLike, new_right: ArrayLike, groups: ArrayLike | None = None) -> Pairs:
    """Count the discordant items; items of one group (photo, speaker, document) count as one item together.

    With groups the counts are divided by the design effect Σm² / Σm of group sizes m, which is exact when all
    items of a group fare alike and conservative otherwise (L. Kish, "Survey Sampling", 1965; dividing counts by a
    design effect: Rao & Scott, Biometrics 48, 1992). An estimated correlation within groups is not used: where few
    items flip it is blind to a group that fails as a whole, which is the very risk.
    """
    old, new = np.asarray(old_right, dtype=bool), np.asarray(new_right, dtype=bool)
    if old.shape != new.shape or old.ndim != 1 or not old.size:
        raise ValueError("the answers of both models must be one row of the same, non-zero length")
    better, worse = int((new & ~old).sum()), int((old & ~new).sum())
    if groups is None:
        return Pairs(items=old.size, better=better, worse=worse)
    if np.asarray(groups).shape != old.shape:
        raise ValueError("every item must have a group")
    effective, each = effective_groups(groups)
    effect = old.size / effective
    return Pairs(items=effective, better=better / effect, worse=worse / effect, each=each)


def effective_groups(groups: ArrayLike) -> tuple[float, float]:
    """Return as how many equal groups these count, (Σm)² / Σm² of their sizes m, and how many groups each takes.

    Groups of one size count in full; where one holds half of all items they are four at most, however many there are.
    """
    sizes = np.unique(np.asarray(groups), return_counts=True)[1].astype(float)
    effective = float(sizes.sum() ** 2 / (sizes**2).sum())
    return effective, sizes.size / effective


def in_groups(units: float, each: float) -> int:
    """Return how many groups stand for so many independent units, of which each takes so many groups."""
    return math.ceil(units * each - 1e-9)


def tango_z(n: ArrayLike, b: ArrayLike, c: ArrayLike, difference: float) -> NDArray[np.float64]:
    """Return Tango's score for "the true difference is `difference`"; positive when the data lie above it."""
    n, b, c = (np.asarray(x, dtype=float) for x in (n, b, c))
    linear = -b - c + (2 * n - b + c) * difference
    constant = -c * difference * (1 - difference)
    # q is the likeliest share of c-items if the difference is as supposed; rounding may take it below its bounds.
    q = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = np.maximum(n * (2 * q + difference * (1 - difference)), 0.0)
    distance = b - c - n * difference
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / np.sqrt(variance))


def interval(pairs: Pairs, level: float = 0.90) -> tuple[float, float]:
    """Return Tango's two-sided interval for the difference of accuracies: all Δ with |z(Δ)| below the quantile."""
    z = float(norm.ppf((1 + level) / 2))
    n, b, c = pairs.items, pairs.better, pairs.worse

    def excess(difference: float, bound: float) -> float:
        return float(tango_z(n, b, c, difference)) - bound

    edge = 1 - 1e-12
    low = -1.0 if excess(-edge, z) <= 0 else brentq(excess, -edge, pairs.difference, args=(z,), xtol=1e-10)
    high = 1.0 if excess(edge, -z) >= 0 else brentq(excess, pairs.difference, edge, args=(-z,), xtol=1e-10)
    return float(low), float(high)


def prove(pairs: Pairs, delta: float, alpha: float = 0.05) -> Proof:
    """Test one-sided, at risk α, whether the new model is worse by less than δ.

    Tango's score must pass, and so must the exact p-value: the score alone is an approximation that errs in up to
    6.8 % where few items flip (268 items, δ of one point).
    """
    _check(delta, alpha)
    z = float(tango_z(pairs.items, pairs.better, pairs.worse, -delta))
    low, high = interval(pairs, 1 - 2 * alpha)
    exact = exact_p(pairs, delta)
    fewest, needed = in_groups(fewest_items(delta, alpha), pairs.each), None
    if pairs.difference > -delta:
        wanted = items_needed(max(pairs.discordant, delta), pairs.difference, delta, alpha)
        needed = max(in_groups(wanted, pairs.each), fewest)
    return Proof(
        difference=pairs.difference,
        low=low,
        high=high,
        exact_p=exact,
        proven=z > float(norm.ppf(1 - alpha)) and exact <= alpha,
        fewest=fewest,
        needed=needed,
    )


def items_needed(psi: float, d: float, delta: float, alpha: float = 0.05) -> int:
    """Return about how many items prove "not worse by δ" with 80 % power, if discordance is ψ and the difference d.

    n = (z_α + z_β)² (ψ − d²) / (δ + d)², the normal approximation.
    """
    if d <= -delta:
        raise ValueError(f"a model that is worse by {-d:g} can't be proven to be worse by less than {delta:g}")
    z = float(norm.ppf(1 - alpha) + norm.ppf(0.80))
    return max(1, math.ceil(z**2 * (psi - d**2) / (delta + d) ** 2))


def fewest_items(delta: float, alpha: float = 0.05) -> int:
    """Return the smallest n at which the test can prove anything, even if not a single answer differs.

    A model that is δ worse and never better shows no difference on n items with probability (1 − δ)ⁿ, which must not
    exceed α: 299 items for one point. (Tango's score alone would be content with 268.)
    """
    _check(delta, alpha)
    return math.ceil(math.log(alpha) / math.log1p(-delta) - 1e-9)


def exact_error(n: int, psi: float, delta: float, alpha: float = 0.05, *, score_only: bool = False) -> float:
    """Return the exact probability that a model worse by exactly δ, with discordance ψ ≥ δ, is certified on n items.

    The trinomial probabilities of (b, c) are summed over the region of proof; tails cut off (1e-9) count as errors.
    `score_only` is for comparison: the region of Tango's score without the exact p-value.
    """
    _check(delta, alpha)
    if not delta <= psi <= 1:
        raise ValueError(f"with a difference of {delta:g} the discordance lies between {delta:g} and 1, not at {psi:g}")
    z = float(norm.ppf(1 - alpha)) if score_only else _critical(n, delta, alpha)
    return _chance(_most_losses(n, delta, z), psi, delta)


def _critical(n: int, delta: float, alpha: float) -> float:
    """Return the score from which on both Tango's test and the exact one prove."""
    low = float(norm.ppf(1 - alpha))
    if _worst(n, delta, low) <= alpha:
        return low
    high = low + 2.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if _worst(n, delta, middle) <= alpha else (middle, high)
    return high


def _worst(n: int, delta: float, z: float) -> float:
    """Return the chance of a score above z under the worst discordance, over a grid of 80."""
    most = _most_losses(n, delta, z)
    return max(_chance(most, psi, delta) for psi in np.geomspace(delta, 1.0, 80))


def exact_p(pairs: Pairs, delta: float) -> float:
    """Return the exact unconditional p-value: the chance of a score this high under the worst discordance.

    Hsueh, Liu & Chen, "Unconditional exact tests for equivalence or noninferiority for paired binary endpoints",
    Biometrics 57, 2001. The maximum is taken over a grid of 80 discordances. Effective counts are rounded against
    the new model.
    """
    n = math.floor(pairs.items + 1e-9)
    if n < 1:
        return 1.0
    worse = min(n, math.ceil(pairs.worse - 1e-9))
    better = min(n - worse, math.floor(pairs.better + 1e-9))
    # Ties with the observed score must count, in spite of rounding.
    z = float(tango_z(n, better, worse, -delta)) - 1e-9
    return _worst(n, delta, z)


def _chance(most: NDArray[np.int64], psi: float, delta: float) -> float:
    """Return the probability that c ≤ most[b] when the discordance is ψ and the true difference −δ."""
    n, gain, loss = most.size - 1, (psi - delta) / 2, (psi + delta) / 2
    reach = 7 * math.sqrt(n * gain) + 16  # by Bernstein's inequality, tails beyond it hold less than 1e-9
    first, last = max(0, math.floor(n * gain - reach)), min(n, math.ceil(n * gain + reach))
    better = np.arange(first, last + 1)
    ways = gammaln(n + 1) - gammaln(better + 1) - gammaln(n - better + 1)
    mass = np.exp(ways + xlogy(better, gain) + xlog1py(n - better, -gain))
    within = most[first : last + 1]
    below = np.where(within < 0, 0.0, bdtr(np.maximum(within, 0), n - better, min(loss / (1 - gain), 1.0)))
    return float(min(1.0, (mass * below).sum() + max(0.0, 1 - mass.sum())))


def _most_losses(n: int, delta: float, z: float) -> NDArray[np.int64]:
    """Return, for each b from 0 to n, the largest c whose score still exceeds z (−1 if none does), by bisection.

    The score falls as c grows at fixed b, which is what makes the region of proof an interval.
    """
    better = np.arange(n + 1)
    passing, failing = np.full(n + 1, -1), n - better + 1
    while np.any(undecided := failing - passing > 1):
        middle = (passing + failing) // 2
        passes = tango_z(n, better, np.maximum(middle, 0), -delta) > z
        passing = np.where(undecided & passes, middle, passing)
        failing = np.where(undecided & ~passes, middle, failing)
    return passing


def _check(delta: float, alpha: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"δ must lie between 0 and 1, not at {delta:g}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"the risk α must lie between 0 and 0.5, not at {alpha:g}")
