from __future__ import annotations

import numpy as np
import pytest

from trimtab.meters.warm import warm_up

INPUTS = {"x": np.zeros((1, 3), np.float32)}


def test_a_session_that_is_steady_from_the_start_takes_two_windows(fakes):
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: 2_000_000)
    assert warm_up(session, INPUTS) == (pytest.approx(0.002), "steady")
    assert len(session.timed) <= 4


def test_the_slow_calls_of_the_beginning_are_left_out(fakes):
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: 50_000_000 if number < 30 else 2_000_000)
    latency, state = warm_up(session, INPUTS)
    assert state == "steady"
    assert latency == pytest.approx(0.002)


def test_one_that_never_settles_is_flagged_after_300_calls(fakes):
    calls: list[int] = []
    session = fakes.session(
        fakes.variant(), call_ns=lambda number, batch: calls.append(number) or int(10**6 * 1.01**number)
    )
    _, state = warm_up(session, INPUTS)
    assert state == "unsteady"
    assert 300 <= len(calls) < 340


def test_slow_calls_are_made_one_by_one_and_end_after_ten_seconds(fakes):
    calls: list[int] = []
    session = fakes.session(
        fakes.variant(), call_ns=lambda number, batch: calls.append(number) or 10**9 * (1 + number % 2)
    )
    latency, state = warm_up(session, INPUTS)
    assert state == "unsteady"
    assert latency == pytest.approx(1.5, abs=0.51)
    assert sum(1 + number % 2 for number in calls) in (10, 11)


def test_the_limit_of_a_window_goes_to_the_session(fakes):
    given: list[float | None] = []

    class Watched(fakes.session):  # type: ignore[misc, name-defined] # a fake that a fixture hands out
        def time(self, inputs, calls, timeout_s=None):
            given.append(timeout_s)
            return super().time(inputs, calls, timeout_s)

    warm_up(Watched(fakes.variant()), INPUTS, timeout_s=3.0)
    assert set(given) == {3.0}


def test_the_whole_warm_up_ends_after_the_seconds_that_are_allowed(fakes):
    calls: list[int] = []
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: calls.append(number) or 10**9)
    latency, state = warm_up(session, INPUTS, most_s=2.0)
    assert (latency, state) == (pytest.approx(1.0), "warming"), "too few calls to tell"
    assert len(calls) == 3, "three calls are made whatever is allowed"
