"""Readings that several meters make alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trimtab.core.values import Reading

if TYPE_CHECKING:  # scipy takes half a second, and sizes are read without it
    from trimtab.stats.percentiles import Estimate

WORKER_CLOCK = "wall clock inside the worker process"


def timed(name: str, estimate: Estimate, scope: str, source: str = WORKER_CLOCK) -> Reading:
    """Return seconds with their interval, from that many samples."""
    return Reading(
        name=name,
        value=estimate.value,
        unit="s",
        direction="lower",
        low=estimate.low,
        high=estimate.high,
        level=estimate.level,
        samples=estimate.samples,
        source=source,
        scope=scope,
    )


def unavailable(name: str, reason: str, unit: str = "1", place: str | None = None, samples: int = 0) -> Reading:
    """Return a reading that could not be had; its scope is the reason."""
    return Reading(
        name=name, value=None, unit=unit, provenance="unavailable", samples=samples, scope=reason, place=place
    )


def failed(meter: object, name: str, reason: str) -> list[Reading]:
    """Return what a meter of that name would have read as unavailable.

    Which readings these are a meter says in its attribute `readings`, the unit of each by its name; one that doesn't
    say is a reading of its own name.
    """
    units: Mapping[str, str] = getattr(meter, "readings", {name.replace("-", "_"): "1"})
    return [unavailable(each, reason, unit) for each, unit in units.items()]
