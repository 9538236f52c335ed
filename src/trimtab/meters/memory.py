"""Reads how much memory a process needs that loads the variant and runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from trimtab.core.protocols import Informed, Renewable, Session
from trimtab.core.values import Reading, Task, Trace, Variant, Workload
from trimtab.meters.feed import timing_inputs
from trimtab.meters.readings import unavailable


class MemoryMeter:
    """Reads the peak resident memory of a fresh process that loads the variant and runs it at the workload's batch.

    Args:
        processes: how many fresh processes are looked at; the value is the median, the interval their range.
    """

    name = "memory"
    readings: ClassVar = {"peak_memory": "B"}

    def __init__(self, processes: int = 1) -> None:
        self._processes = max(1, processes)

    def read(self, session: Session, variant: Variant, task: Task, workload: Workload) -> Sequence[Reading | Trace]:
        """Return `peak_memory` in bytes; its scope tells what the process took before it loaded anything."""
        if not isinstance(session, Renewable):
            return [unavailable("peak_memory", "this session can't be opened in a fresh process", "B")]
        inputs = timing_inputs(variant, task, workload)
        told: list[tuple[float, float]] = []
        for _ in range(self._processes):
            fresh = session.fresh()
            try:
                if not isinstance(fresh, Informed):
                    return [unavailable("peak_memory", "this session does not tell its memory", "B")]
                fresh.run(inputs)
                info = fresh.info()
            finally:
                fresh.close()
            told.append((info["peak_memory_bytes"], info["empty_memory_bytes"]))
        peaks = sorted(peak for peak, _ in told)
        empty = min(before for _, before in told)
        scope = f"peak resident memory of a fresh process, of which {empty / 1e6:.0f} MB before loading"
        several = len(peaks) > 1
        return [
            Reading(
                name="peak_memory",
                value=peaks[len(peaks) // 2],
                unit="B",
                direction="lower",
                low=peaks[0] if several else None,
                high=peaks[-1] if several else None,
                samples=len(peaks),
                source="VmHWM of the worker process",
                scope=scope,
            )
        ]
