from __future__ import annotations

import math
import unicodedata
from dataclasses import replace

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
    rate = Reading(name="throughput", value=2.0, low=1.0, high=2.0, unit="1/s", level=0.99)
    assert words.interval(rate).endswith("at 99 %")


@pytest.mark.parametrize("name", ["latency_p90", "latency_p99"])
def test_an_upper_bound_is_never_told_as_the_percentile_itself(name):
    bound = Reading(name=name, value=7.85e-3, low=4.1e-3, high=7.85e-3, unit="s", level=0.99)
    assert (words.value(bound), words.interval(bound)) == ("at most 7.85 ms", "99 % sure; seen 4.10")
    assert words.with_interval(bound) == "at most 7.85 ms (99 % sure; seen 4.10)"
    assert words.value(replace(bound, name="latency_p50")) == "7.85 ms"


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


FINITE = st.floats(-1e12, 1e12, allow_subnormal=False)
METRICS = st.sampled_from(["accuracy", "recall", "mse", "roc_auc", "cost", "agreement"])


def number(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-").replace("+", ""))


@pytest.mark.parametrize(
    ("name", "unit", "factors"),
    [
        ("latency_p50", "s", {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}),
        ("bytes", "bytes", {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0}),
        ("macs", "1", {"GMACs": 1e9, "MMACs": 1e6, "kMACs": 1e3, "MACs": 1.0}),
    ],
)
@given(value=st.floats(1e-9, 1e12))
def test_what_is_read_is_the_number_to_three_digits(name, unit, factors, value):
    shown, symbol = words.quantity(value, unit, name).split(" ")
    read = number(shown) * factors[symbol]
    assert read == pytest.approx(value, rel=5.1e-3, abs=0.51e-3 * min(factors.values()))


@given(FINITE, METRICS)
def test_zero_has_no_sign_and_everything_else_has_its_own(difference, metric):
    said = words.amount(difference, metric, signed=True).removesuffix(" pt")
    assert "-" not in said, "a minus is a minus, not a hyphen"
    if number(said) == 0:
        assert not said.startswith("−")
    else:
        assert said[0] == ("+" if difference > 0 else "−")


@given(FINITE, st.floats(0, 10), st.floats(0, 10), METRICS)
def test_the_interval_of_a_difference_is_in_the_unit_of_its_value(difference, below, above, metric):
    change = Reading(
        name=f"{metric}_change", value=difference, low=difference - below, high=difference + above, direction="higher"
    )
    low, high = map(number, words.interval(change).split(" to "))
    turn = 100 if words.is_share(metric) else 1
    size = turn * max(abs(difference - below), abs(difference + above))
    assert low == pytest.approx((difference - below) * turn, abs=max(6e-3, 6e-3 * size))
    assert high == pytest.approx((difference + above) * turn, abs=max(6e-3, 6e-3 * size))


@given(st.floats(1e-6, 1e3), st.floats(0, 0.5), st.floats(0, 0.5))
def test_the_interval_of_a_time_holds_its_value(value, below, above):
    reading = Reading(name="latency_p50", value=value, low=value * (1 - below), high=value * (1 + above), unit="s")
    shown = number(words.value(reading).split(" ")[0])
    low, high = map(number, words.interval(reading).split("–"))
    assert low <= shown <= high


@given(st.text(max_size=60))
def test_nothing_printable_steers_a_terminal(text):
    said = words.printable(text)
    assert not any(unicodedata.category(character) == "Cc" for character in said)
    assert words.printable(said) == said
    assert len(said) == len(text)
    assert all(new in (old, "�") for old, new in zip(text, said, strict=True))


def test_undefined_numbers_are_words():
    assert words.quantity(math.nan, "s", "latency_p50") == "undefined s"
    assert words.amount(-math.inf, "mse") == "−∞"


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.95, "95 %"), (0.995, "99.5 %"), (0.05, "5 %"), (1.0, "100 %"), (0.0, "0 %"), (1 / 3, "33.3 %")],
)
def test_percent_has_only_digits_that_say_something(share, said):
    assert words.percent(share) == said


@pytest.mark.parametrize(
    ("name", "place", "said"),
    [
        ("latency_p50", None, "median latency"),
        ("load_time", None, "load time"),
        ("recall", "class 4", "recall, class 4"),
        ("f1_macro", None, "f1 macro"),
        ("roc_auc_change", "a", "change of ROC AUC, a"),
    ],
)
def test_readings_have_names_that_people_use(name, place, said):
    assert words.label(name, place) == said


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        (Reading(name="layers", value=12.0, provenance="counted"), "12"),
        (Reading(name="bytes", value=1234.0, unit="bytes", provenance="counted"), "1.23 kB"),
        (Reading(name="peak_memory", value=9e7, low=8e7, high=1e8, unit="B", provenance="modelled"),
         "≈ 90.0 MB (80.0–100.0 modelled)"),
        (Reading(name="cosine", value=0.5, low=-0.1, high=0.7), "0.500 (−0.100 to 0.700)"),
        (Reading(name="throughput", value=1234.5, unit="1/s", low=1200.0, high=1270.0, level=0.99),
         "1,234 items/s (1,200–1,270 at 99 %)"),
        (Reading(name="joules", value=2.5, unit="J", provenance="assumed"), "≈ 2.50 J (assumed)"),
    ],
    ids=lambda value: value.name if isinstance(value, Reading) else "",
)  # fmt: skip
def test_a_reading_is_told_with_what_stands_behind_it(reading, said):
    assert words.with_interval(reading) == said


def test_a_proof_is_told_with_what_was_seen_and_what_would_decide(result):
    proof = result.certificate.no_worse
    assert words.proof_words(proof, "b", "a") == (
        "b is proven with 95 % confidence to lose at most 1.0 pt of accuracy against a: "
        "−0.08 pt (−0.42 to +0.21 at 90 %) on 1,200 items"
    )
    open_question = words.proof_words(replace(proof, proven=False, needed=1), "b", "a")
    assert open_question.startswith("b is not proven to lose at most 1.0 pt")
    assert open_question.endswith("; about 1 item would decide")
    assert "would decide" not in words.proof_words(replace(proof, needed=1), "b", "a"), "it is decided"


@pytest.mark.parametrize(
    ("value", "half", "verdict", "said"),
    [
        (1.0, 0.01, "equivalent", "1.00× (0.99–1.01): no difference, as it should be"),
        (1.0, 0.2, "inconclusive", "1.00× (0.83–1.25): no difference seen, as it should be, but noise leaves room for "
         "25 %; with more --seconds it narrows"),
        (1.2, 0.05, "slower", "1.20× (1.14–1.26), slower: it failed; rely on no ratio of this run, time again on a "
         "quieter machine"),
    ],
    ids=["equal", "noisy", "failed"],
)  # fmt: skip
def test_a_control_says_what_the_run_could_have_seen(value, half, verdict, said):
    assert words.control_words(ratio(value, half, verdict), "more --seconds") == said


def test_a_text_is_shortened_only_where_it_is_too_long():
    assert words.shortened("a" * 64) == "a" * 64
    assert words.shortened("fails on this model", 10) == "fails on…"
    assert len(words.shortened("x" * 999)) == 64


def test_what_would_decide_is_told_in_groups_where_items_belong_together(result):
    grouped = replace(result.certificate.no_worse, proven=False, needed=640, groups=70)
    assert words.proof_words(grouped, "b", "a").endswith("; about 640 groups would decide")


def test_a_change_tells_the_level_of_its_interval():
    change = Reading(name="accuracy_change", value=-0.0075, low=-0.014, high=0.002, level=1 - 2 * 0.05)
    assert words.with_interval(change) == "−0.75 pt (−1.40 to +0.20 at 90 %)"
