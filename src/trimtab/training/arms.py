"""Recipes of training side by side: what they reach under the same seeds, and how soon they reach a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.core.values import Run
from trimtab.stats.paired import Interval, difference, ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One recipe under several seeds.

    `best` are the best validated scores, `reached_s` the seconds of processor time to the target, None of a run that
    never got there. Against the first arm: `gain` in the metric's own unit and direction, and `cost`, the ratio of the
    times to the target, None where a run of either did not reach it.
    """

    name: str
    runs: tuple[Run, ...]
    best: tuple[float, ...]
    reached_s: tuple[float | None, ...]
    gain: Interval
    cost: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipes:
    """Recipes side by side; the first one is what the others are compared with."""

    metric: str
    target: float | None
    arms: tuple[Arm, ...]


def side_by_side(
    found: Mapping[str, tuple[Run, ...]], metric: str, target: float | None, *, lower_is_better: bool
) -> Recipes:
    """Return every recipe's runs with what they reached, compared with the first recipe's."""
    sign = -1.0 if lower_is_better else 1.0
    best = {name: np.array([sign * max(sign * value for value in _scores(run, metric)) for run in runs])
            for name, runs in found.items()}  # fmt: skip
    reached = {name: tuple(_reached(run, metric, target, sign) for run in runs) for name, runs in found.items()}
    first = next(iter(found))
    arms = tuple(
        Arm(
            name=name,
            runs=runs,
            best=tuple(best[name].tolist()),
            reached_s=reached[name],
            gain=difference(best[name], best[first]),
            cost=_cost(reached[name], reached[first]),
        )
        for name, runs in found.items()
    )
    return Recipes(metric=metric, target=target, arms=arms)


def _scores(run: Run, metric: str) -> Sequence[float]:
    trace = run.trace(metric)
    if trace is None or not trace.values:
        raise BadInput("a training ended before its first epoch; give a larger --budget and run again")
    return trace.values


def _reached(run: Run, metric: str, target: float | None, sign: float) -> float | None:
    """Return the seconds of processor time until the metric was at the target, None where it never was."""
    spent = run.trace("epoch_cpu_time")
    if target is None or spent is None:
        return None
    there = [sign * value >= sign * target for value in _scores(run, metric)]
    return float(np.cumsum(spent.values)[there.index(True)]) if True in there else None


def _cost(these: Sequence[float | None], others: Sequence[float | None]) -> Interval | None:
    known: list[Array] = [np.array([each for each in side if each is not None]) for side in (these, others)]
    if any(len(side) < len(these) for side in known):
        return None
    return ratio(known[0], known[1])
