import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.stats.steady import MOST_CALLS, agree, state


def calls(number, sigma=0.03, seed=0):
    return 1e-3 * np.exp(sigma * np.random.default_rng(seed).standard_normal(number))


def verdict_after(times):
    for number in range(20, len(times) + 1, 20):
        found = state(times[:number])
        if found != "warming":
            return found, number
    return state(times), len(times)


def test_a_quiet_machine_is_steady_after_two_windows():
    assert state(calls(39)) == "warming"
    assert state(calls(40)) == "steady"


@pytest.mark.parametrize("seed", range(5))
def test_a_slow_start_is_waited_for(seed):
    times = calls(300, sigma=0.01, seed=seed) * (1 + 3 * np.exp(-np.arange(300) / 30))
    found, number = verdict_after(times)
    assert found == "steady"
    assert times[number - 20 : number].mean() < 1.1e-3


def test_a_first_call_that_compiles_is_waited_for():
    times = calls(300)
    times[0] *= 50
    assert verdict_after(times) == ("steady", 60)


def test_times_that_never_settle_are_flagged_after_300_calls():
    times = calls(400) * np.linspace(1, 20, 400)
    assert verdict_after(times) == ("unsteady", MOST_CALLS)


def test_slow_calls_are_flagged_after_ten_seconds_but_not_before_the_third():
    assert state([6.0, 6.0]) == "warming"
    assert state([6.0, 6.0, 6.0]) == "unsteady"
    assert state([1.0] * 9) == "warming"


def test_windows_that_differ_in_spread_alone_do_not_agree():
    quiet = np.linspace(0.98, 1.02, 20)
    assert agree(quiet, quiet)
    assert not agree(quiet, np.linspace(0.7, 1.3, 20))


def test_nothing_is_decided_before_the_first_call():
    assert state([]) == "warming"


@given(st.floats(1e-6, 0.2), st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_windows_agree_or_not_in_any_unit_of_time(scale, seed):
    rng = np.random.default_rng(seed)
    older, newer = rng.gamma(20, size=(2, 20))
    assert agree(scale * older, scale * newer) == agree(older, newer)


def test_a_first_value_far_above_its_window_is_no_steady_start():
    window = np.linspace(0.98, 1.02, 20)
    assert not agree(np.r_[1.1, window[1:]], window)
    assert agree(np.r_[window[0], 1.1, window[2:]], window), "later ones may happen any time"


def test_windows_of_another_level_do_not_agree():
    window = np.linspace(0.98, 1.02, 20)
    assert not agree(window, 1.06 * window)
    assert agree(window, 1.02 * window)


def test_equal_times_are_steady_at_once():
    assert state(np.full(40, 0.003)) == "steady"
    assert state(np.full(39, 0.003)) == "warming"
