"""Reads how many items per second go through, over growing batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from trimtab.core.errors import BadInput, WorkerError
from trimtab.core.protocols import Renewable, Samples, Session
from trimtab.core.values import Reading, Task, Trace, Variant, Workload
from trimtab.meters.feed import timing_inputs
from trimtab.meters.latency import time_calls
from trimtab.meters.predict import fixed_batch
from trimtab.meters.readings import WORKER_CLOCK, unavailable
from trimtab.stats import percentiles

_GAIN = 1.03


class ThroughputMeter:
    """Reads items per second at the workload's batch (no place) and at 1, 2, 4 … (place "batch=8").

    Growing ends when two doublings in a row gain less than 3 %, when the time is over, or when a batch fails. A
    session that can is asked for a process of its own, so that a batch too large takes no other measurement along.

    Args:
        largest: the largest batch to try.
        seconds: for all batch sizes together.
    """

    name = "throughput"
    readings: ClassVar = {"throughput": "1/s"}

    def __init__(self, largest: int = 64, seconds: float = 10.0) -> None:
        self._largest = largest
        self._seconds = seconds

    def read(self, session: Session, variant: Variant, task: Task, workload: Workload) -> Sequence[Reading | Trace]:
        """Return a reading per batch size, the last one unavailable with the reason when that batch failed."""
        if not isinstance(session, Renewable):
            return self._grow(session, variant, task, workload)
        own = session.fresh()
        try:
            return self._grow(own, variant, task, workload)
        finally:
            own.close()

    def _grow(self, session: Session, variant: Variant, task: Task, workload: Workload) -> list[Reading]:
        found: list[Reading] = []
        sizes = batch_sizes(variant, workload, self._largest)
        left_s = self._seconds
        for done, size in enumerate(sizes):
            try:
                inputs = timing_inputs(variant, task, replace(workload, batch=size))
                warm = time_calls(session, inputs, 3, left_s)
                samples = time_calls(session, inputs, 50, min(left_s, self._seconds / len(sizes)))
            except (WorkerError, BadInput) as error:
                found.append(unavailable("throughput", str(error), "1/s", f"batch={size}"))
                break
            found.append(throughput_reading(samples, size))
            left_s -= float(warm.wall_ns.sum() + samples.wall_ns.sum()) / 1e9
            next_s = 2 * 4 * float(np.median(samples.wall_ns)) / 1e9
            if done + 1 < len(sizes) and (left_s < next_s or _flat(found)) and size >= workload.batch:
                break
        asked = [r for r in found if r.place == f"batch={workload.batch}"] or [r for r in found if r.value is None]
        return [*(replace(reading, place=None) for reading in asked), *found]


def batch_sizes(variant: Variant, workload: Workload, largest: int) -> list[int]:
    """Return 1, 2, 4 … up to the largest, and the workload's own; a model with a fixed batch has only that one."""
    fixed = fixed_batch(variant.model.signature)
    if fixed is not None:
        return [fixed]
    powers = {2**power for power in range(largest.bit_length())}
    return sorted({size for size in powers if size <= largest} | {workload.batch})


def throughput_reading(samples: Samples, batch: int) -> Reading:
    """Return items per second over all calls, with the interval of their mean time."""
    times = percentiles.mean(samples.wall_ns / 1e9)
    return Reading(
        name="throughput",
        value=batch / times.value,
        unit="1/s",
        direction="higher",
        low=batch / times.high,
        high=batch / times.low,
        level=times.level,
        samples=times.samples,
        source=WORKER_CLOCK,
        scope="items per second, one call at a time",
        place=f"batch={batch}",
    )


def _flat(found: list[Reading]) -> bool:
    """Say whether neither of the last two doublings brought anything over the best before them."""
    values = [reading.value or 0.0 for reading in found]
    return len(values) > 2 and max(values[-2:]) < _GAIN * max(values[:-2])
