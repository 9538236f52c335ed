from __future__ import annotations

from typing import Any

from trimtab.core.values import Reading, Task, Workload
from trimtab.meters.memory import MemoryMeter


def read(session: Any, task: Task, **options: Any) -> Reading:
    (found,) = MemoryMeter(**options).read(session, session.variant, task, Workload(batch=2))
    assert isinstance(found, Reading)
    return found


def test_reads_a_fresh_process_that_ran_once(fakes: Any, timed_task: Task) -> None:
    session = fakes.process(fakes.variant())
    found = read(session, timed_task)
    assert (found.name, found.value, found.unit, found.direction) == ("peak_memory", 9e7, "B", "lower")
    assert "30 MB before loading" in found.scope
    assert session.batches == []
    assert [(other.batches, other.closed) for other in session.opened] == [([2], True)]


def test_several_processes_give_a_median_and_a_range(fakes: Any, timed_task: Task) -> None:
    class Growing(fakes.process):  # type: ignore[misc, name-defined]
        def fresh(self) -> Any:
            other = super().fresh()
            other.told = {**self.told, "peak_memory_bytes": 1e8 + len(self.opened)}
            return other

    found = read(Growing(fakes.variant()), timed_task, processes=3)
    assert (found.value, found.low, found.high, found.samples) == (1e8 + 2, 1e8 + 1, 1e8 + 3, 3)


def test_the_process_is_closed_though_the_run_fails(fakes: Any, timed_task: Task) -> None:
    def fail(inputs: Any) -> Any:
        raise ValueError("no")

    session = fakes.process(fakes.variant(), fail)
    try:
        read(session, timed_task)
    except ValueError:
        assert session.opened[0].closed


def test_a_session_that_can_not_start_again_leaves_it_unavailable(fakes: Any, timed_task: Task) -> None:
    found = read(fakes.session(fakes.variant()), timed_task)
    assert (found.value, found.provenance) == (None, "unavailable")


def test_a_session_that_does_not_tell_its_memory_leaves_it_unavailable(fakes: Any, timed_task: Task) -> None:
    class Silent(fakes.session):  # type: ignore[misc, name-defined]
        def fresh(self) -> Any:
            self.opened = fakes.session(self.variant)
            return self.opened

    session = Silent(fakes.variant())
    found = read(session, timed_task)
    assert (found.value, found.unit, found.scope) == (None, "B", "this session does not tell its memory")
    assert session.opened.closed


def test_one_process_has_no_range(fakes: Any, timed_task: Task) -> None:
    found = read(fakes.process(fakes.variant()), timed_task, processes=0)
    assert (found.samples, found.low, found.high) == (1, None, None)
