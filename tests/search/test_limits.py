from __future__ import annotations

import pytest

from trimtab.core.values import Limit, Reading
from trimtab.search.limits import broken_limit, hopeless_limit, quality_limits, unread_limit


@pytest.mark.parametrize(("value", "broken"), [(5.0, False), (5.1, True)])
def test_limits_hold_up_to_their_bound(value: float, broken: bool) -> None:
    readings = [Reading(name="bytes", value=value), Reading(name="bytes", value=99.0, place="elsewhere")]
    found = broken_limit(readings, [Limit(reading="bytes", relation="<=", bound=5.0)])
    assert (found is not None) == broken


def test_an_unavailable_reading_breaks_no_limit() -> None:
    readings = [Reading(name="bytes", value=None, provenance="unavailable")]
    assert broken_limit(readings, [Limit(reading="bytes", relation="<=", bound=5.0)]) is None


def test_limits_are_about_the_whole_model_not_about_one_place() -> None:
    readings = [Reading(name="recall", value=0.1, place="cat"), Reading(name="bytes", value=4.0)]
    limits = [Limit(reading="bytes", relation="<=", bound=5.0), Limit(reading="recall", relation=">=", bound=0.9)]
    assert broken_limit(readings, limits) is None
    assert unread_limit(readings, limits[:1]) is None
    assert unread_limit(readings, limits) == "the limit on recall can't be checked: no meter could read it"
    assert unread_limit([Reading(name="bytes", value=None)], limits[:1]) is not None


def test_a_limit_that_can_not_be_checked_is_told_with_the_reason_of_its_reading() -> None:
    short = Reading(name="latency_p99", value=None, provenance="unavailable", scope="n too small: 500 of 662")
    found = unread_limit([short], [Limit(reading="latency_p99", relation="<=", bound=0.02)])
    assert found == "the limit on latency_p99 can't be checked: n too small: 500 of 662"


def test_a_broken_limit_is_told_with_the_reading_and_the_bound() -> None:
    found = broken_limit([Reading(name="recall", value=0.85)], [Limit(reading="recall", relation=">=", bound=0.9)])
    assert found == "recall is 0.85, the limit is >= 0.9"


@pytest.mark.parametrize(
    ("reading", "relation", "bound", "hopeless"),
    [
        ("latency_p50", "<=", 0.02, True),
        ("latency_p99", "<=", 0.029, True),
        ("latency_mean", "<=", 0.029, True),
        ("latency_p99", "<=", 0.03, False),
        ("latency_p50", ">=", 0.04, False),
        ("throughput", ">=", 270.0, True),
        ("throughput", ">=", 260.0, False),
        ("throughput", "<=", 1.0, False),
        ("load_time", "<=", 0.001, False),
        ("bytes", "<=", 0.0, False),
    ],
)
def test_a_median_of_30_ms_for_8_items_breaks_what_no_luck_can_mend(
    reading: str, relation: str, bound: float, hopeless: bool
) -> None:
    found = hopeless_limit(0.03, 8, [Limit(reading=reading, relation=relation, bound=bound)])
    assert (found is not None) == hopeless


def test_what_is_hopeless_is_told_with_the_best_it_can_be() -> None:
    found = hopeless_limit(0.03, 1, [Limit(reading="latency_p99", relation="<=", bound=0.02)])
    assert found == "at best latency_p99 is 0.03, the limit is <= 0.02 (screened)"


def test_limits_on_quality_are_those_on_metrics() -> None:
    names = ["bytes", "accuracy", "recall_macro", "latency_p99", "agreement", "top5", "own.module:function"]
    limits = [Limit(reading=name, relation=">=", bound=0.5) for name in names]
    found = [limit.reading for limit in quality_limits(limits)]
    assert found == ["accuracy", "recall_macro", "agreement", "top5", "own.module:function"]
