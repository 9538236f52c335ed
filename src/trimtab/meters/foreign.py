"""Meters of other distributions: whatever goes wrong in one of them is told, and nothing else ends with it."""

from __future__ import annotations

from trimtab.core import plugins
from trimtab.core.protocols import Meter, Session
from trimtab.core.values import Options, Reading, Task, Trace, Variant, Workload
from trimtab.meters.readings import failed


def read_foreign(
    name: str, session: Session, variant: Variant, task: Task, workload: Workload, given: Options = ()
) -> list[Reading | Trace]:
    """Return what a meter with the options given reads, or that it is unavailable, with the reason."""
    meter: Meter | None = None
    try:
        meter = plugins.make("meters", name, given)
        return list(meter.read(session, variant, task, workload))
    except Exception as error:  # noqa: BLE001 # the code of others may raise anything
        told = " ".join(f"{type(error).__name__}: {error}".split())
        return [*failed(meter, name, f"the meter {name} failed: {told}")]
