"""What trainings are expected to take."""

from __future__ import annotations

import pytest

from trimtab.search.cost import TrainingCost


def test_before_anything_was_trained_an_epoch_costs_what_the_original_takes_to_answer_twice_over() -> None:
    cost = TrainingCost(answer_s=30.0)
    assert cost.epoch_s(1.0) == pytest.approx(60, rel=0.1)
    assert cost.epoch_s(0.5) < 0.6 * cost.epoch_s(1.0)
    assert cost.setup_s > 0


def test_trainings_tell_setup_and_epochs_apart() -> None:
    cost = TrainingCost(answer_s=30.0)
    for work, epochs in [(0.2, 1), (0.2, 3), (0.8, 1), (0.8, 9), (0.4, 3)]:
        cost.learn(work, epochs, 20.0 + 8.0 * (work + 0.05) * epochs)
    assert cost.setup_s == pytest.approx(20, rel=0.15)
    assert cost.epoch_s(0.95) == pytest.approx(8, rel=0.15)


def test_one_short_training_does_not_make_a_long_one_look_endless() -> None:
    """Seconds to begin are no seconds of an epoch."""
    cost = TrainingCost(answer_s=3.0)
    cost.learn(0.1, 0.9, 15.0)
    assert cost.epoch_s(0.1) * 9 < 30


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_what_took_no_time_teaches_nothing(seconds: float) -> None:
    """It was made by an earlier process."""
    cost = TrainingCost(answer_s=30.0)
    before = cost.epoch_s(1.0)
    cost.learn(1.0, 1.0, seconds)
    assert cost.epoch_s(1.0) == before


def test_no_part_is_ever_less_than_nothing() -> None:
    cost = TrainingCost(answer_s=30.0)
    for work in (0.1, 0.9):
        cost.learn(work, 1.0, 10.0)
    assert cost.setup_s >= 0
    assert cost.epoch_s(1.0) > 0
