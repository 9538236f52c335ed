from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.values import Ratio, Reading
from trimtab.reports import words


def ratio(value: float, half: float = 0.03, verdict: str = "faster") -> Ratio:
    return Ratio(
        reading="latency", variant="a", baseline="b", value=value, low=value * (1 - half), high=value * (1 + half),
        level=0.95, margin=0.03, verdict=verdict, blocks=9, processes=5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "unit", "name", "said"),
    [
        (0.00123, "s", "latency_p50", "1.23 ms"),
        (9.4e-5, "s", "latency_p50", "94.0 µs"),
        (0.9996, "s", "latency_p50", "1.00 s"),
        (999.4e-6, "s", "latency_p50", "999 µs"),
        (12.0, "s", "load_time", "12.0 s"),
        (4_740_000, "B", "bytes", "4.74 MB"),
        (512, "bytes", "bytes", "512 B"),
        (4_089_184_256, "1", "macs", "4.09 GMACs"),
        (3_504_872, "1", "parameters", "3.50 M"),
        (0.9844, "1", "accuracy", "98.4 %"),
        (1234.5, "1/s", "throughput", "1,234 items/s"),
        (1.2e12, "MAC/s", "peak_macs", "1,200 GMACs/s"),
        (3.6, "1", "compression_bytes", "3.60×"),
        (-0.5, "1", "r2", "−0.500"),
        (0.0, "s", "latency_p50", "0 s"),
        (math.inf, "s", "latency_p50", "∞ s"),
    ],
)
def test_quantity_has_three_digits_and_a_prefix(value, unit, name, said):
    assert words.quantity(value, unit, name) == said


def test_interval_is_in_the_unit_of_its_value_and_shows_its_own_width():
    wide = Reading(name="latency_p50", value=9.8e-4, low=9.0e-4, high=1.1e-3, unit="s")
    narrow = Reading(name="latency_p50", value=1.0004e-3, low=1.0001e-3, high=1.0007e-3, unit="s")
    assert words.with_interval(wide) == "980 µs (900–1,100)"
    assert words.with_interval(narrow) == "1.000 ms (1.000–1.001)"


def test_interval_at_another_level_says_so():
    assert words.interval(Reading(name="latency_p99", value=2e-3, low=1e-3, high=2e-3, unit="s", level=0.99)).endswith(
        "at 99 %"
    )


def test_unavailable_is_said_in_words_and_never_as_a_number():
    percentile = Reading(name="latency_p99", value=None, provenance="unavailable", scope="400 samples, 662 needed")
    memory = Reading(name="peak_memory", value=None, provenance="unavailable")
    assert words.with_interval(percentile) == "n too small (400 samples, 662 needed)"
    assert words.value(memory) == "unavailable"


def test_every_number_carries_its_evidence():
    assert words.evidence(Reading(name="bytes", value=7e6, unit="B", provenance="counted")) == "exact"
    assert words.evidence(Reading(name="parameters", value=421_642.0, provenance="counted")) == "421,642"
    assert words.evidence(Reading(name="mse", value=0.1)) == "no interval"
    assert words.value(Reading(name="peak_memory", value=9e7, unit="B", provenance="modelled")) == "≈ 90.0 MB"


@pytest.mark.parametrize(
    ("verdict", "value", "said"),
    [
        ("faster", 1 / 2.31, "2.31× faster (2.24–2.38) than it"),
        ("slower", 1.61, "1.61× slower (1.56–1.66) than it"),
        ("equivalent", 1.0, "as fast as it (1.00×, 0.97–1.03)"),
        ("inconclusive", 0.98, "not measurably different from it (1.02×, 0.99–1.05: undecided)"),
    ],
)
def test_ratio_is_said_in_the_direction_of_its_verdict(verdict, value, said):
    assert words.ratio_words(ratio(value, verdict=verdict), "it") == said


@given(st.floats(0.01, 100), st.floats(0.001, 0.5))
def test_speedup_keeps_its_value_inside_its_interval(value, half):
    gain, low, high = words.speedup(ratio(value, half))
    assert low <= gain <= high
    assert gain == pytest.approx(1 / value)


@pytest.mark.parametrize(
    ("difference", "metric", "said"),
    [
        (0.01, "accuracy", "1.0 pt"),
        (-0.00083, "accuracy", "−0.08 pt"),
        (0.0123, "f1_macro", "1.2 pt"),
        (0.0, "recall", "0.0 pt"),
        (0.0123, "mse", "0.0123"),
    ],
)
def test_shares_are_said_in_points_and_other_metrics_in_themselves(difference, metric, said):
    assert words.amount(difference, metric) == said


def test_change_of_a_metric_is_signed_and_in_its_points():
    change = Reading(name="accuracy_change", value=-0.0075, low=-0.014, high=0.002)
    assert words.with_interval(change) == "−0.75 pt (−1.40 to +0.20)"
    assert words.label("accuracy_change") == "change of accuracy"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.25, "250 ms"), (42.0, "42 s"), (125.0, "2 min 5 s"), (3725, "1 h 2 min")]
)
def test_duration_is_said_like_a_clock(seconds, said):
    assert words.duration(seconds) == said
