from __future__ import annotations

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


def test_the_deadline_lies_ahead_by_what_is_left() -> None:
    import time

    assert abs(Budget(seconds=50).deadline() - time.monotonic() - 50) < 1
