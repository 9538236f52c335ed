"""A metric of the user's own, given as `module:function` and called with (labels, outputs)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.core.values import Reading
from trimtab.data.python import call, find_function

RESAMPLES = 200
"""Enough for a 95 % interval to be read, few enough for a slow function."""


def user_metric(reference: str) -> Callable[[Array, Array], float]:
    """Return the function (labels, outputs) -> number; whatever goes wrong in it is one clear `BadInput`."""
    function = find_function(reference)

    def metric(labels: Array, outputs: Array) -> float:
        value = call(function, labels, outputs)
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise BadInput(f"the metric {reference} returned {value!r}: return one number") from None
        if not np.isfinite(number):
            raise BadInput(f"the metric {reference} returned {number}: return a finite number")
        return number

    return metric


def user_reading(
    reference: str, labels: Array, outputs: Array, groups: Array | None, scope: str, level: float = 0.95
) -> Reading:
    """Return a user's metric with its bootstrap percentile interval; items of one group are drawn together."""
    metric = user_metric(reference)
    value = metric(labels, outputs)
    values = [metric(labels[rows], outputs[rows]) for rows in _resamples(len(labels), groups)]
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return Reading(
        name=reference,
        value=value,
        direction="higher",
        low=min(float(low), value),
        high=max(float(high), value),
        level=level,
        samples=len(labels),
        source=f"{reference}, {RESAMPLES} bootstrap resamples",
        scope=scope,
    )


def _resamples(items: int, groups: Array | None) -> Iterator[Array]:
    """Yield the row numbers of every resample, groups whole, drawn with a fixed seed."""
    draw = np.random.default_rng(0)
    unit = np.arange(items) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    units = int(unit.max()) + 1
    for _ in range(RESAMPLES):
        times = np.bincount(draw.integers(units, size=units), minlength=units)
        yield np.repeat(np.arange(items), times[unit])
