from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab import testing
from trimtab.core.errors import BadInput
from trimtab.core.protocols import Samples
from trimtab.core.values import Reading, Task, Trace, Workload
from trimtab.meters.latency import LatencyMeter, cold_start, latency_readings, latency_trace, time_calls


def samples(wall_ms: Any, cores: float = 1.0) -> Samples:
    wall = np.asarray(np.asarray(wall_ms) * 1e6, dtype=np.int64)
    return Samples(wall, (wall * cores).astype(np.int64))


def by_name(found: Any) -> dict[str, Reading]:
    return {reading.name: reading for reading in found if isinstance(reading, Reading)}


def test_reads_what_the_session_takes(fakes: Any, timed_task: Task) -> None:
    session = fakes.process(fakes.variant(), call_ns=lambda number, batch: 2_000_000 + number % 2)
    found = LatencyMeter(calls=700, seconds=60).read(session, session.variant, timed_task, Workload(batch=2))
    readings = by_name(found)
    assert readings["latency_mean"].value == pytest.approx(2e-3, rel=1e-6)
    assert readings["latency_p50"].value == pytest.approx(2e-3, rel=1e-6)
    assert readings["latency_p99"].value == pytest.approx(2e-3, rel=1e-6)
    assert readings["latency_p99"].samples == 700
    assert (readings["cpu_use"].value, readings["cpu_use"].unit) == (pytest.approx(2.0), "cores")
    assert (readings["load_time"].value, readings["first_call"].value) == (0.25, 0.5)
    assert set(session.timed) == {2}
    assert not session.batches


def test_percentiles_with_too_few_calls_are_unavailable_with_the_number_needed() -> None:
    readings = by_name(latency_readings(samples(np.linspace(1, 2, 120)), "scope"))
    assert readings["latency_p99"].value is None
    assert readings["latency_p99"].provenance == "unavailable"
    assert readings["latency_p99"].scope == "n too small: 120 of 662"
    assert readings["latency_p90"].value is not None
    assert readings["latency_p90"].value >= np.quantile(np.linspace(1e-3, 2e-3, 120), 0.9)


def test_numbers_are_those_of_numpy_inside_their_intervals() -> None:
    times = np.random.default_rng(0).gamma(4, size=1000)
    readings = by_name(latency_readings(samples(times), ""))
    assert readings["latency_mean"].value == pytest.approx(times.mean() / 1e3, rel=1e-5)
    assert readings["latency_p50"].value == pytest.approx(np.median(times) / 1e3, rel=1e-5)
    for name in ("latency_mean", "latency_p50", "latency_p90", "latency_p99"):
        reading = readings[name]
        assert reading.low is not None
        assert reading.high is not None
        assert reading.low <= reading.value <= reading.high  # type: ignore[operator]
        assert reading.low < reading.high
        assert reading.unit == "s"


def test_processor_use_is_the_ratio_of_sums() -> None:
    both = Samples(np.array([1_000, 3_000]), np.array([2_000, 2_000]))
    assert by_name(latency_readings(both, ""))["cpu_use"].value == 1.0


def test_the_trace_keeps_at_most_two_thousand_samples_in_order() -> None:
    trace = latency_trace(samples(np.arange(1, 5001)))
    assert len(trace.values) == 2000
    assert list(trace.values) == sorted(trace.values)
    assert (trace.values[0], trace.values[-1]) == (1e-3, 5.0)
    short = latency_trace(samples([1.0, 2.0, 4.0]))
    assert short == Trace(
        name="latency", times=(0.0, pytest.approx(1e-3), pytest.approx(3e-3)), values=(1e-3, 2e-3, 4e-3), unit="s"
    )


def test_a_slow_model_is_timed_only_as_long_as_allowed(fakes: Any) -> None:
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: 1_000_000_000)
    assert len(time_calls(session, {"x": np.zeros((1, 3))}, 700, 3.0).wall_ns) == 3
    assert len(time_calls(session, {"x": np.zeros((1, 3))}, 700, 0.0).wall_ns) == 1
    quick = fakes.session(fakes.variant())
    assert len(time_calls(quick, {"x": np.zeros((1, 3))}, 37, 60.0).wall_ns) == 37


def test_a_model_that_never_settles_is_flagged(fakes: Any, timed_task: Task) -> None:
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: 1_000_000 * (1 + number))
    readings = by_name(LatencyMeter(calls=10).read(session, session.variant, timed_task, Workload()))
    assert "no steady state" in readings["latency_p50"].scope
    settled = fakes.session(fakes.variant())
    readings = by_name(LatencyMeter(calls=10).read(settled, settled.variant, timed_task, Workload()))
    assert "no steady state" not in readings["latency_p50"].scope


def test_a_session_that_tells_nothing_leaves_the_cold_start_unavailable(fakes: Any, timed_task: Task) -> None:
    session = fakes.session(fakes.variant())
    readings = by_name(LatencyMeter(calls=10).read(session, session.variant, timed_task, Workload()))
    assert readings["load_time"].provenance == readings["first_call"].provenance == "unavailable"


def test_without_items_the_inputs_are_made_up(fakes: Any) -> None:
    session = fakes.session(fakes.variant())
    readings = by_name(LatencyMeter(calls=10).read(session, session.variant, Task(), Workload(batch=7)))
    assert readings["latency_p50"].value == 1e-3
    assert set(session.timed) == {7}


def test_never_times_on_the_certify_split(fakes: Any, split: Any) -> None:
    task = Task(splits=(split(np.full((4, 3), 7, dtype=np.float32), name="certify"),))
    seen: list[float] = []
    session = fakes.session(fakes.variant())
    original = session.time
    session.time = lambda inputs, calls, timeout_s=None: (
        seen.append(float(inputs["x"].max())),
        original(inputs, calls),
    )[1]
    LatencyMeter(calls=10).read(session, session.variant, task, Workload())
    assert 7.0 not in seen


def test_refuses_another_batch_than_the_model_takes(fakes: Any, timed_task: Task) -> None:
    session = fakes.session(fakes.variant(batch=4))
    with pytest.raises(BadInput, match=r"4 items per call.*--batch 4"):
        LatencyMeter().read(session, session.variant, timed_task, Workload(batch=1))


def test_one_call_alone_has_a_mean_and_no_percentile() -> None:
    readings = by_name(latency_readings(samples([2.0]), "scope"))
    assert (readings["latency_mean"].value, readings["latency_mean"].samples) == (pytest.approx(2e-3), 1)
    for name, needed in (("latency_p90", 64), ("latency_p99", 662)):
        assert (readings[name].value, readings[name].scope) == (None, f"n too small: 1 of {needed}")
    (trace,) = [latency_trace(samples([2.0]))]
    assert (trace.times, trace.values) == ((0.0,), (2e-3,))


def test_the_interval_of_processor_use_shrinks_with_the_calls() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for calls in (50, 1500):
        wall = rng.integers(900_000, 1_100_000, calls)
        use = by_name(latency_readings(Samples(wall, rng.integers(0, 2_000_000, calls)), ""))["cpu_use"]
        assert use.low is not None
        assert use.high is not None
        assert 0 <= use.low <= use.value <= use.high  # type: ignore[operator]
        widths.append(use.high - use.low)
    assert widths[1] < widths[0] / 4


def test_a_process_that_was_never_called_tells_its_load_time_alone(fakes: Any) -> None:
    session = fakes.process(fakes.variant())
    session.told = {**session.told, "first_call_s": math.nan}
    load, first = cold_start(session)
    assert (load.name, load.value) == ("load_time", 0.25)
    assert (first.value, first.scope) == (None, "the session does not tell how long the first call took")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 200), st.integers(1, 10**9), st.floats(0, 3))
def test_no_more_calls_are_timed_than_were_asked_for_and_one_at_least(calls: int, call_ns: int, seconds: float) -> None:
    session = testing.FakeSession(variant=None, answer=dict, call_ns=lambda number, batch: call_ns)
    made = len(time_calls(session, {"x": np.zeros((1, 3))}, calls, seconds).wall_ns)
    assert 1 <= made <= calls
    assert made == calls or made * call_ns / 1e9 >= seconds - 1e-9


@pytest.mark.parametrize(("percentile", "name", "calls"), [(0.99, "latency_p99", 662), (0.9, "latency_p90", 64)])
def test_a_percentile_that_is_asked_for_is_read_of_a_slow_model_whatever_the_seconds(
    fakes: Any, timed_task: Task, percentile: float, name: str, calls: int
) -> None:
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: 1_000_000_000)
    found = LatencyMeter(seconds=5.0, percentile=percentile).read(session, session.variant, timed_task, Workload())
    reading = by_name(found)[name]
    assert (reading.value, reading.samples) == (1.0, calls)
    hurried = LatencyMeter(seconds=5.0).read(session, session.variant, timed_task, Workload())
    assert by_name(hurried)[name].value is None


def test_a_quick_model_is_timed_no_less_for_a_percentile(fakes: Any, timed_task: Task) -> None:
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: 1_000_000)
    found = LatencyMeter(calls=700, percentile=0.9).read(session, session.variant, timed_task, Workload())
    assert by_name(found)["latency_p50"].samples == 700
