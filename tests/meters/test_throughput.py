from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trimtab.core.errors import WorkerOutOfMemory
from trimtab.core.protocols import Samples
from trimtab.core.values import Reading, Task, Workload
from trimtab.meters.throughput import ThroughputMeter, batch_sizes, throughput_reading


def read(session: Any, task: Task, workload: Workload | None = None, **options: Any) -> dict[str | None, Reading]:
    meter = ThroughputMeter(**{"seconds": 1e6, **options})
    found = meter.read(session, session.variant, task, workload or Workload())
    return {reading.place: reading for reading in found if isinstance(reading, Reading)}


def test_counts_items_per_second_at_every_batch(fakes: Any, timed_task: Task) -> None:
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: 1_000_000)
    found = read(session, timed_task)
    assert list(found) == [None, *(f"batch={size}" for size in (1, 2, 4, 8, 16, 32, 64))]
    assert found["batch=64"].value == pytest.approx(64_000)
    assert found[None].value == found["batch=1"].value == pytest.approx(1_000)
    assert found["batch=64"].unit == "1/s"


def test_stops_growing_when_larger_batches_bring_nothing(fakes: Any, timed_task: Task) -> None:
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: 1_000_000 * max(batch, 2))
    assert max(session_batches(read(session, timed_task))) == 8


def test_reaches_the_batch_that_was_asked_for_though_it_is_flat(fakes: Any, timed_task: Task) -> None:
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: 1_000_000 * batch)
    found = read(session, timed_task, Workload(batch=24))
    assert found[None].value == found["batch=24"].value == pytest.approx(1_000)
    assert max(session_batches(found)) == 24


def test_stops_growing_when_the_time_is_over(fakes: Any, timed_task: Task) -> None:
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: 1_000_000_000)
    assert max(session_batches(read(session, timed_task, seconds=30))) < 64


def test_a_batch_that_fails_ends_it_with_the_reason(fakes: Any, timed_task: Task) -> None:
    def call_ns(number: int, batch: int) -> int:
        if batch > 4:
            raise WorkerOutOfMemory("was killed")
        return 1_000_000

    found = read(fakes.session(fakes.variant(), call_ns=call_ns), timed_task)
    assert list(found) == [None, "batch=1", "batch=2", "batch=4", "batch=8"]
    assert (found["batch=8"].value, found["batch=8"].scope) == (None, "was killed")


def test_takes_a_process_of_its_own_and_closes_it(fakes: Any, timed_task: Task) -> None:
    session = fakes.process(fakes.variant())
    read(session, timed_task)
    assert session.timed == []
    assert [other.closed for other in session.opened] == [True]


def test_a_fixed_batch_is_the_only_one(fakes: Any) -> None:
    assert batch_sizes(fakes.variant(batch=8), Workload(), 64) == [8]
    assert batch_sizes(fakes.variant(), Workload(batch=3), 8) == [1, 2, 3, 4, 8]


def test_the_interval_holds_the_value(fakes: Any, timed_task: Task) -> None:
    times = np.random.default_rng(0).integers(900_000, 1_100_000, size=10_000)
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: int(times[number]))
    for reading in read(session, timed_task).values():
        assert reading.low is not None
        assert reading.high is not None
        assert reading.low < reading.value < reading.high  # type: ignore[operator]


def session_batches(found: dict[str | None, Reading]) -> list[int]:
    return [int(place.removeprefix("batch=")) for place in found if place]


def test_a_batch_that_was_never_reached_is_unavailable_with_the_reason(fakes: Any, timed_task: Task) -> None:
    def call_ns(number: int, batch: int) -> int:
        if batch > 2:
            raise WorkerOutOfMemory("was killed")
        return 1_000_000

    found = read(fakes.session(fakes.variant(), call_ns=call_ns), timed_task, Workload(batch=8))
    assert (found["batch=2"].value, found["batch=4"].value) == (pytest.approx(2000), None)
    assert (found[None].value, found[None].scope) == (None, "was killed")


def test_the_reading_of_the_asked_batch_is_that_of_its_size(fakes: Any, timed_task: Task) -> None:
    found = read(fakes.session(fakes.variant()), timed_task, Workload(batch=3), largest=4)
    assert list(found) == [None, "batch=1", "batch=2", "batch=3", "batch=4"]
    assert found[None] == replace(found["batch=3"], place=None)


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (5, [1, 2, 4]), (64, [1, 2, 4, 8, 16, 32, 64])])
def test_batches_double_up_to_the_largest(fakes: Any, largest: int, sizes: list[int]) -> None:
    assert batch_sizes(fakes.variant(), Workload(), largest) == sizes


def test_a_throughput_is_items_over_the_mean_time() -> None:
    wall = np.array([1_000_000, 2_000_000, 3_000_000])
    reading = throughput_reading(Samples(wall, wall), 10)
    assert (reading.value, reading.place, reading.samples) == (pytest.approx(10 / 0.002), "batch=10", 3)
    assert reading.low is not None
    assert reading.high is not None
    assert 9.99 / 0.003 <= reading.low <= reading.value <= reading.high <= 10.01 / 0.001
