from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trimtab.search.budget import Budget


def test_what_was_spent_before_counts() -> None:
    assert Budget(seconds=100, spent_s=30).left() <= 70
    assert Budget(seconds=100, spent_s=130).left() == 0


def test_the_reserve_is_kept_back() -> None:
    budget = Budget(seconds=100, reserve_s=40)
    assert 59 < budget.left() <= 60
    assert not budget.over(10**6)


def test_no_trial_begins_after_the_last_second_or_the_last_trial() -> None:
    assert Budget(seconds=10, spent_s=10).over(0)
    assert Budget(seconds=10, trials=3).over(3)
    assert not Budget(seconds=10, trials=3).over(2)


@given(seconds=st.floats(0, 1e5), spent=st.floats(0, 2e5), reserve=st.floats(0, 1e5), trials=st.integers(0, 50))
def test_what_is_left_is_never_negative_and_never_more_than_was_given(seconds, spent, reserve, trials) -> None:
    budget = Budget(seconds=seconds, spent_s=spent, reserve_s=reserve, trials=20)
    assert 0 <= budget.left() <= max(0.0, seconds - spent - reserve)
    assert budget.elapsed() >= spent
    assert budget.over(trials) == (trials >= 20 or budget.left() == 0)
