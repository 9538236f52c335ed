"""The batch of a throughput goal that names none: the one at which the model as given has the most throughput."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimtab.core.errors import BadInput
from trimtab.core.memo import remembered
from trimtab.core.process import Limits
from trimtab.core.values import Goal, Reading, Task, Variant, Workload
from trimtab.meters.throughput import ThroughputMeter
from trimtab.runtimes.session import open_session

LARGEST = 64
_SECONDS = 10.0  # for all batches together, of a budget of ten minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Items per call, and the items per second of the model as given there and (None: it can't) one at a time."""

    size: int
    rate: float
    alone: float | None

    def words(self) -> str:
        """Return what is compared, and why."""
        alone = "" if self.alone is None or self.size == 1 else f", against {self.alone:,.0f} one at a time"
        items = f"{self.size} items" if self.size > 1 else "1 item"
        return (
            f"no --batch was given: throughput is compared at {items} per call, where the model as given has the most "
            f"({self.rate:,.0f} items/s{alone})"
        )


def is_open(goal: Goal) -> bool:
    """Say whether a goal leaves its batch open: with one item at a time throughput would be latency."""
    return goal.objective == "throughput" and goal.workload.batch == 1


def open_batch(
    goal: Goal, original: Variant, task: Task, work: Path, *, seconds: float, limits: Limits | None = None
) -> Batch | None:
    """Return the batch that a goal leaves open, None where it doesn't; kept in the folder of the run.

    `seconds` is the budget of the run, of which reading the throughput takes a share.
    """
    if not is_open(goal):
        return None
    share = max(0.2, min(1.0, seconds / 600))
    log = work / "logs" / "batch.log"

    def read() -> Batch:
        return _most(original, task, goal.workload, share * _SECONDS, log, limits or Limits())

    return remembered(work / "batch.json", Batch, read)


def _most(original: Variant, task: Task, workload: Workload, seconds: float, log: Path, limits: Limits) -> Batch:
    with open_session(original, log, limits) as session:
        read = ThroughputMeter(largest=LARGEST, seconds=seconds).read(session, original, task, workload)
    readings = [item for item in read if isinstance(item, Reading) and item.place is not None]
    rates = {int(r.place.removeprefix("batch=")): r.value for r in readings if r.place and r.value is not None}
    if not rates:
        raise BadInput(f"the throughput of the model as given can't be read: {readings[0].scope}")
    size = max(rates, key=lambda size: rates[size])
    return Batch(size=size, rate=rates[size], alone=rates.get(1))
