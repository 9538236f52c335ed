from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from trimtab.core.errors import BadInput
from trimtab.stats.paired import Interval, difference, ratio

THESE, OTHERS = np.array([0.91, 0.93, 0.90, 0.95, 0.92]), np.array([0.90, 0.90, 0.89, 0.91, 0.92])


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_is_that_of_students_paired_test(level: float) -> None:
    known = ttest_rel(THESE, OTHERS).confidence_interval(level)
    found = difference(THESE, OTHERS, level)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    assert found.value == pytest.approx(np.mean(THESE - OTHERS))
    assert found.pairs == 5


def test_a_ratio_is_a_difference_of_logarithms() -> None:
    known = ttest_rel(np.log(THESE), np.log(OTHERS)).confidence_interval(0.95)
    found = ratio(THESE, OTHERS)
    assert (found.low, found.high) == pytest.approx((np.exp(known.low), np.exp(known.high)))
    assert ratio(OTHERS, THESE).value == pytest.approx(1 / found.value)


def test_one_pair_tells_nothing() -> None:
    found = difference(THESE[:1], OTHERS[:1])
    assert (found.low, found.high, found.verdict()) == (-np.inf, np.inf, "unclear")
    assert ratio(THESE[:1], OTHERS[:1]).high == np.inf


@pytest.mark.parametrize(("low", "high", "verdict"), [(0.1, 0.2, "higher"), (-0.2, -0.1, "lower"), (-1, 1, "unclear")])
def test_the_verdict_is_on_which_side_the_interval_lies(low: float, high: float, verdict: str) -> None:
    found = Interval(value=(low + high) / 2, low=low, high=high, pairs=3)
    assert found.verdict() == verdict
    assert Interval(value=1.0, low=0.9, high=1.1, pairs=3).verdict(neutral=1.0) == "unclear"


def test_what_can_not_be_paired_or_divided_is_refused() -> None:
    with pytest.raises(BadInput, match="one value each of both"):
        difference(THESE, OTHERS[:3])
    with pytest.raises(BadInput, match="above 0"):
        ratio(THESE, OTHERS - 1)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        others = rng.normal(size=5)
        found = difference(others + 0.3 + rng.normal(size=5), others)
        held += found.low <= 0.3 <= found.high
    assert 0.94 <= held / 2000 <= 0.96
