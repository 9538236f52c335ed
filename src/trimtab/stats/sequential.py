"""Evidence, item by item, that a candidate is worse by more than δ: it may be looked at after every item.

D ∈ [−1, 1] is the gain of the candidate on one item (1: only it is right, −1: only the original is, 0: no
difference). A search asks when a candidate may be given up, so the hypothesis to refute is the candidate's
innocence, H₀: mean D ≥ −δ given the past, and the bet is on losses:

    E_t = Π (1 − λ_i (D_i + δ)),   0 ≤ λ_i ≤ ½ / (1 + δ),   λ_i chosen before D_i is seen.

Under H₀ a factor has mean 1 − λ (mean D + δ) ≤ 1, and since D + δ ≤ 1 + δ none is below ½; so E is a non-negative
supermartingale that starts at 1 and, by Ville's inequality, ever reaches 1/α with probability at most α, whatever
the stopping rule. The mirror image Π (1 + λ (D + δ)) with λ ≤ ½ / (1 − δ) refutes H₀: mean D ≤ −δ, and so clears a
candidate of that suspicion: it is the same evidence about −D with the allowance −δ. The bets follow the approximate
growth-rate-adaptive rule of I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting",
JRSS B 86, 2024.

Items of one group are not independent: a group is one value, s D̄ − (1 − s) δ, where D̄ is the mean of its items and
s its size over that of the largest group. That is D̄ itself where groups are equally large; a smaller one counts as if
it were filled up with items that lose just δ, which speak neither way, so that H₀ is still about items. Groups must
come in an order that has nothing to do with their sizes or losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_PRIOR_ITEMS = 10.0
"""The weight, in items, of the belief that bets start from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The evidence against a candidate so far; `watch` returns it grown by more items.

    A candidate that is innocent ever crosses the bound log E = −log α with probability at most α, so once is enough:
    `died_at` is the item at which it was crossed first.
    """

    delta: float
    alpha: float = 0.05
    items: int = 0
    total: float = 0.0
    squares: float = 0.0
    log_value: float = 0.0
    died_at: int | None = None

    def __post_init__(self) -> None:
        if not -1 < self.delta < 1 or not 0 < self.alpha < 1:
            raise ValueError("δ must lie between -1 and 1, and α between 0 and 1")

    @property
    def dead(self) -> bool:
        """Whether the candidate may be given up as worse by more than δ, at risk α."""
        return self.died_at is not None


def watch(evidence: Evidence, gains: ArrayLike) -> Evidence:
    """Return the evidence after more items, given as D ∈ [−1, 1] each; chunks of any size give the same result."""
    d = np.asarray(gains, dtype=float).ravel()
    if not d.size:
        return evidence
    if not np.all(np.abs(d) <= 1):
        raise ValueError("a gain lies between −1 (only the original is right) and 1 (only the candidate is)")
    loss = -(d + evidence.delta)
    sums = evidence.total + np.cumsum(loss)
    squares = evidence.squares + np.cumsum(loss**2)
    seen = evidence.items + np.arange(d.size)
    bets = _bets(seen, sums - loss, squares - loss**2, evidence.delta)
    logs = evidence.log_value + np.cumsum(np.log1p(bets * loss))
    died_at = evidence.died_at
    crossed = np.flatnonzero(logs >= -np.log(evidence.alpha))
    if died_at is None and crossed.size:
        died_at = evidence.items + int(crossed[0]) + 1
    return Evidence(
        delta=evidence.delta,
        alpha=evidence.alpha,
        items=evidence.items + d.size,
        total=float(sums[-1]),
        squares=float(squares[-1]),
        log_value=float(logs[-1]),
        died_at=died_at,
    )


def _bets(
    seen: NDArray[np.int64], sums: NDArray[np.float64], squares: NDArray[np.float64], delta: float
) -> NDArray[np.float64]:
    """Return λ for each item from what was seen before it: mean / mean square of the losses, within [0, ½ / (1 + δ)].

    The prior belief is a loss of |δ| with mean square 2 |δ| + δ²: few items disagree, and most of those are lost.
    """
    prior = abs(delta)
    mean = (_PRIOR_ITEMS * prior + sums) / (_PRIOR_ITEMS + seen)
    square = (_PRIOR_ITEMS * (2 * prior + prior**2) + squares) / (_PRIOR_ITEMS + seen)
    ratio = np.divide(mean, square, out=np.zeros_like(mean), where=square > 0)
    return np.clip(ratio, 0.0, 0.5 / (1 + delta))
