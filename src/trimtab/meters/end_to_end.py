"""Reads how long an answer takes from raw items: preprocessing and the call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from trimtab.core.protocols import Session
from trimtab.core.values import Model, Reading, Split, Task, Trace, Variant, Workload
from trimtab.data.arrays import open_array
from trimtab.data.batches import Feed, feeds, prepare_raw
from trimtab.data.steps import is_once
from trimtab.meters.feed import timing_inputs, timing_split
from trimtab.meters.latency import time_calls
from trimtab.meters.predict import left_to_do
from trimtab.meters.readings import timed, unavailable
from trimtab.meters.warm import warm_up
from trimtab.stats import percentiles

_NAME = "latency_end_to_end"


class EndToEndMeter:
    """Reads the time from items as a user has them to the answer, at the workload's batch.

    Texts are tokenized, and images that were read from files resized and cropped, as `prepare` of a bundle does it;
    decoding the files is left out. Preprocessing is timed here and the call in the worker process; what only measuring
    costs, the way between the two processes, is left out.

    Args:
        calls: how many batches are prepared and how many calls are timed.
        seconds: each of both ends after about this long, though fewer were done.
    """

    name = "end-to-end"
    readings: ClassVar = {"latency_end_to_end": "s"}

    def __init__(self, calls: int = 100, seconds: float = 2.0) -> None:
        self._calls = calls
        self._seconds = seconds

    def read(self, session: Session, variant: Variant, task: Task, workload: Workload) -> Sequence[Reading | Trace]:
        """Return `latency_end_to_end`: the median of preprocessing plus call, and the share of preprocessing."""
        split = timing_split(task)
        if split is None:
            return [unavailable(_NAME, "the task has no items to prepare", "s")]
        inputs = timing_inputs(variant, task, workload)
        prepare = preparation(left_to_do(task, variant), split, variant.model)
        prepared_s = preprocessing_times(prepare, workload.batch, self._calls, self._seconds)
        warm_up(session, inputs)
        call_s = time_calls(session, inputs, len(prepared_s), self._seconds).wall_ns / 1e9
        both = min(len(prepared_s), len(call_s))
        total_s = percentiles.median(prepared_s[:both] + call_s[:both])
        share = float(np.median(prepared_s)) / total_s.value
        scope = f"median, batch {workload.batch}, {share:.0%} of it is preprocessing{_left_out(task, split)}"
        return [timed(_NAME, total_s, scope, "wall clock: preprocessing here, the call inside the worker process")]


def preparation(task: Task, split: Split, model: Model) -> Callable[[NDArray[np.int64]], Feed]:
    """Return what makes model inputs of items by their numbers, from before any step where the split holds such."""
    if split.raw is None:
        return lambda rows: feeds(task, split, rows % len(split))
    raw, name = open_array(split.raw), model.signature.data_inputs[0].name
    return lambda rows: prepare_raw({name: raw[rows % len(raw)]}, task.preprocessing, model)


def preprocessing_times(
    prepare: Callable[[NDArray[np.int64]], object], batch: int, calls: int, seconds: float
) -> NDArray[np.float64]:
    """Return the seconds that each of some batches took from raw items to model inputs; at least two of them."""
    prepare(np.arange(batch))  # the first one may import and cache
    times: list[float] = []
    while len(times) < 2 or (len(times) < calls and sum(times) < seconds):
        rows = np.arange(batch) + batch * len(times)
        start = time.perf_counter()
        prepare(rows)
        times.append(time.perf_counter() - start)
    return np.array(times)


def _left_out(task: Task, split: Split) -> str:
    """Return in words what was done when the data was opened, and so is not timed."""
    once = [step.technique for step in task.preprocessing if is_once(step)]
    if split.raw is not None:
        return ", without decoding files" if len(split.raw.shape) > 1 else ""
    return f", without {', '.join(once)} (done once when the data was opened)" if once else ""
