from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trimtab.core.values import Reading, Step, Task, Workload
from trimtab.meters.end_to_end import EndToEndMeter, preprocessing_times


def read(session: Any, task: Task, workload: Workload | None = None) -> Reading:
    (found,) = EndToEndMeter(calls=8).read(session, session.variant, task, workload or Workload())
    assert isinstance(found, Reading)
    return found


def test_is_never_less_than_the_call_alone(fakes: Any, timed_task: Task) -> None:
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: 50_000_000)
    found = read(session, timed_task, Workload(batch=2))
    assert found.name == "latency_end_to_end"
    assert found.value is not None
    assert found.value > 0.05
    assert found.low is not None
    assert found.low > 0.05
    assert set(session.timed) == {2}


def test_preprocessing_runs_on_every_batch(timed_task: Task) -> None:
    times = preprocessing_times(timed_task, timed_task.splits[0], 3, calls=6, seconds=60)
    assert len(times) == 6
    assert (times > 0).all()
    assert len(preprocessing_times(timed_task, timed_task.splits[0], 3, calls=6, seconds=0)) == 2


def test_says_which_steps_it_could_not_time(fakes: Any, timed_task: Task) -> None:
    step = Step(technique="resize", options=(("once", True), ("size", 4)))
    session = fakes.session(fakes.variant())
    assert "without resize" in read(session, replace(timed_task, preprocessing=(step,))).scope
    assert "without" not in read(session, timed_task).scope


def test_without_items_there_is_nothing_to_prepare(fakes: Any) -> None:
    found = read(fakes.session(fakes.variant()), Task())
    assert (found.value, found.provenance, found.unit) == (None, "unavailable", "s")
    assert found.scope == pytest.approx("the task has no items to prepare")
