from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core import words
from trimtab.core.errors import BadInput
from trimtab.core.values import Limit


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90s", 90), ("10m", 600), ("10min", 600), ("1h", 3600), ("20ms", 0.02), (" 1.5 h ", 5400),
     ("5us", 5e-6), ("5µs", 5e-6), ("1e3ns", 1e-6), (".5s", 0.5)],
)  # fmt: skip
def test_durations_are_seconds(text, expected):
    assert words.seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "ten minutes", "10 x", "10MB", "1:30", "m", "10m5s", "--1s", "1e", "nan", "inf"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(BadInput, match="is not a duration such as 90s, 10m or 1h"):
        words.seconds(text)


@pytest.mark.parametrize(("text", "expected"), [("1pt", 0.01), ("0.5 pts", 0.005), ("2%", 0.02), ("0.01", 0.01)])
def test_drops_are_shares(text, expected):
    assert words.drop(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "allows nothing or everything"),
        ("-1pt", "allows nothing or everything"),
        ("1", "allows nothing or everything"),
        ("100pt", "allows nothing or everything"),
        ("50pt", "half of the quality"),
        ("0.6", "half of the quality"),
        ("1s", "is not a drop such as 1pt"),
        ("little", "is not a drop such as 1pt"),
    ],
)
def test_a_drop_that_can_not_be_meant_is_refused(text, expected):
    with pytest.raises(BadInput, match=expected):
        words.drop(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size <= 5MB", Limit(reading="bytes", relation="<=", bound=5e6)),
        ("size<=5MiB", Limit(reading="bytes", relation="<=", bound=5 * 2.0**20)),
        ("p99 <= 20ms", Limit(reading="latency_p99", relation="<=", bound=0.02)),
        ("latency <= 1 s", Limit(reading="latency_p50", relation="<=", bound=1.0)),
        ("memory <= 1GB", Limit(reading="peak_memory", relation="<=", bound=1e9)),
        ("macs <= 300M", Limit(reading="macs", relation="<=", bound=3e8)),
        ("macs_nonzero <= 300M", Limit(reading="macs_nonzero", relation="<=", bound=3e8)),
        ("first_call <= 2s", Limit(reading="first_call", relation="<=", bound=2.0)),
        ("parameters <= 1e6", Limit(reading="parameters", relation="<=", bound=1e6)),
        ("compression_bytes >= 4", Limit(reading="compression_bytes", relation=">=", bound=4.0)),
        ("throughput >= 2k", Limit(reading="throughput", relation=">=", bound=2000.0)),
        ("accuracy >= 95%", Limit(reading="accuracy", relation=">=", bound=0.95)),
        ("recall >= 0.9", Limit(reading="recall", relation=">=", bound=0.9)),
    ],
)
def test_limits_are_in_si_units(text, expected):
    found = words.limit(text)
    assert (found.reading, found.relation) == (expected.reading, expected.relation)
    assert found.bound == pytest.approx(expected.bound)


@pytest.mark.parametrize("text", ["", "size", "size = 5MB", "size < 5MB", "<= 5MB", "5MB >= size", "size <="])
def test_a_limit_without_its_three_parts_is_refused(text):
    with pytest.raises(BadInput, match="type it like"):
        words.limit(text)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("size <= 5 apples", "B, kB"),
        ("size <= 5", "B, kB"),
        ("p99 <= 20", "ns, us"),
        ("p99 <= 20MB", "ns, us"),
        ("macs <= 3s", "k, K, M, G"),
        ("accuracy >= many", "pt, pts, %"),
    ],
)
def test_a_bound_in_a_wrong_unit_is_refused_with_the_right_ones(text, units):
    with pytest.raises(BadInput, match=f"is not a bound for .* in one of: {units}"):
        words.limit(text)


@given(st.floats(0.001, 1e6), st.sampled_from(["ns", "us", "ms", "s", "m", "h"]))
def test_a_limit_on_a_time_is_the_duration_itself(number, unit):
    assert words.limit(f"p90 <= {number!r}{unit}").bound == words.seconds(f"{number!r}{unit}")


@given(st.text(max_size=20))
def test_no_text_does_anything_but_fit_or_be_refused(text):
    for read in (words.seconds, words.drop, words.limit, words.costs):
        try:
            read(text)
        except BadInput as error:
            assert str(error)


def test_costs_in_any_order_and_spelling():
    assert words.costs("miss=10, false-alarm=1") == (10.0, 1.0)
    assert words.costs("false_alarm = 0.5,miss = 3") == (3.0, 0.5)
    assert words.costs("miss=0,false-alarm=1") == (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is not understood"),
        ("miss", "is not understood"),
        ("miss=10", "needs both amounts"),
        ("miss=1,miss=2", "is not understood"),
        ("hit=1,false-alarm=2", "is not understood"),
        ("miss=ten,false-alarm=1", "amount of money"),
        ("miss=10$,false-alarm=1", "amount of money"),
        ("miss=-1,false-alarm=1", "none negative"),
        ("miss=0,false-alarm=0", "needs both amounts"),
    ],
)
def test_costs_that_say_nothing_are_refused(text, expected):
    with pytest.raises(BadInput, match=expected):
        words.costs(text)


def test_short_names_stand_for_readings_and_others_for_themselves():
    assert (words.reading_name("size"), words.reading_name("p99")) == ("bytes", "latency_p99")
    assert words.reading_name("roc_auc") == "roc_auc"


@given(st.floats(0.0, 1e6), st.floats(1e-3, 1e6))
def test_what_a_mistake_costs_is_taken_as_it_was_typed(miss, alarm):
    assert words.costs(f"miss={miss!r}, false-alarm={alarm!r}") == (miss, alarm)
    assert words.costs(f"false-alarm={alarm!r},miss={miss!r}") == (miss, alarm)


@given(st.floats(0.001, 49.0))
def test_points_percent_and_bare_numbers_are_one_drop(points):
    assert words.drop(f"{points!r}pt") == words.drop(f"{points!r} %") == pytest.approx(points / 100)
    assert words.drop(repr(points / 100)) == pytest.approx(words.drop(f"{points!r}pts"))


@pytest.mark.parametrize("word", words.SHORT_NAMES)
def test_a_short_name_in_a_limit_means_the_reading_that_it_stands_for(word):
    unit = "MB" if words.reading_name(word) in ("bytes", "bytes_compressed", "peak_memory") else "ms"
    assert words.limit(f"{word} <= 5{unit}") == words.limit(f"{words.reading_name(word)} <= 5{unit}")
