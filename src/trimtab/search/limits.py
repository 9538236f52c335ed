"""What a goal's limits say of readings: which one is broken, which one can't be checked, and why."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.core.values import Limit, Reading
from trimtab.meters.scores import is_metric

_CALLS = ("latency_mean", "latency_p50", "latency_p90", "latency_p99", "latency_end_to_end")
"""Times that are no shorter than the median call (the mean because of the long tail that times have)."""


def broken_limit(readings: Sequence[Reading], limits: Sequence[Limit]) -> str | None:
    """Return which limit the readings break, in words, or None; readings that aren't there break nothing yet."""
    known = {r.name: r.value for r in readings if r.value is not None and r.place is None}
    for limit in limits:
        value = known.get(limit.reading)
        if value is not None and not limit.holds(value):
            return f"{limit.reading} is {value:.6g}, the limit is {limit.relation} {limit.bound:.6g}"
    return None


def hopeless_limit(median_s: float, batch: int, limits: Sequence[Limit]) -> str | None:
    """Return which limit on times is broken when the median call takes that many seconds or more, or None."""
    best = [Reading(name="throughput", value=batch / median_s), *(Reading(name=n, value=median_s) for n in _CALLS)]
    firm = [limit for limit in limits if limit.relation == (">=" if limit.reading == "throughput" else "<=")]
    broken = broken_limit(best, firm)
    return None if broken is None else f"at best {broken} (screened)"


def unread_limit(readings: Sequence[Reading], limits: Sequence[Limit]) -> str | None:
    """Return which limit nothing was read for and why, in words, or None."""
    whole = [reading for reading in readings if reading.place is None]
    known = {reading.name for reading in whole if reading.value is not None}
    why = {reading.name: reading.scope for reading in whole if reading.value is None}
    missing = next((limit.reading for limit in limits if limit.reading not in known), None)
    if missing is None:
        return None
    return f"the limit on {missing} can't be checked: {why.get(missing) or 'no meter could read it'}"


def quality_limits(limits: Sequence[Limit]) -> list[Limit]:
    """Return the limits on how good answers are."""
    return [limit for limit in limits if is_metric(limit.reading)]
