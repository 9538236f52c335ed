from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trimtab.stats.ratios import precise, ratio, verdict


def machine(seed, processes=5, blocks=40, slower=1.0, bursts=True):
    """Block times with known truth: process effects of 0.5 %, block noise of 3 %, shared drift, heavy bursts."""
    rng, both = np.random.default_rng(seed), ([], [])
    for _ in range(processes):
        drift = np.cumsum(0.01 * rng.standard_normal(blocks))
        for side, factor in zip(both, (slower, 1.0), strict=True):
            log = drift + 0.005 * rng.standard_normal() + 0.03 * rng.standard_normal(blocks)
            if bursts:
                log += (rng.random(blocks) < 0.05) * rng.exponential(0.3, blocks)
                start = rng.integers(blocks)
                log[start : start + blocks // 10] += abs(0.3 * rng.standard_normal())
            side.append(1e-3 * factor * np.exp(log))
    return both


def test_interval_covers_the_truth_in_at_least_93_percent():
    found = [ratio(*machine(seed, slower=1.05)) for seed in range(300)]
    assert np.mean([f.low <= 1.05 <= f.high for f in found]) >= 0.93


def test_a_against_a_hardly_ever_is_faster_or_slower():
    verdicts = [ratio(*machine(seed)).verdict for seed in range(200)]
    assert sum(v in ("faster", "slower") for v in verdicts) <= 4
    assert sum(v == "equivalent" for v in verdicts) >= 150


def test_ten_percent_are_found_with_the_right_sign():
    verdicts = [ratio(*machine(seed, slower=1.10)).verdict for seed in range(60)]
    assert sum(v == "slower" for v in verdicts) >= 54
    assert "faster" not in verdicts


def test_swapping_the_sides_turns_the_ratio_and_the_verdict_around():
    a, b = machine(0, slower=1.2)
    there, back = ratio(a, b), ratio(b, a)
    assert back.value == pytest.approx(1 / there.value)
    assert (there.verdict, back.verdict) == ("slower", "faster")


def test_estimate_is_the_median_of_the_ratios_of_pairs():
    found = ratio([[2.0, 3.0, 40.0]], [[1.0, 2.0, 20.0]])
    assert found.value == pytest.approx(2.0)
    assert (found.blocks, found.processes) == (3, 1)


def test_a_drift_that_both_sides_share_cancels():
    rise = np.linspace(1, 5, 30)
    found = ratio([1.5 * rise] * 5, [rise] * 5)
    assert (found.value, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))


def test_process_effects_widen_the_interval_beyond_what_blocks_show():
    rng = np.random.default_rng(0)
    a = [np.full(500, 1 + 0.05 * rng.standard_normal()) for _ in range(5)]
    found = ratio(a, [np.ones(500)] * 5)
    assert found.high - found.low > 0.05


def test_equal_seeds_give_equal_results():
    a, b = machine(0)
    assert ratio(a, b, seed=3) == ratio(a, b, seed=3)


def test_noise_audit_sees_time_taken_by_others():
    a, b = machine(0, bursts=False)
    rng = np.random.default_rng(1)
    steal = [(1 + 0.3 * rng.random(x.size)) * x for x in a]
    assert ratio(a, b, cpu_a=a, cpu_b=b).noise == pytest.approx(1.0)
    assert ratio(steal, b, cpu_a=a, cpu_b=b).noise > 1.5
    assert ratio(a, b).noise is None


def test_a_processor_clock_that_reads_zero_gives_no_audit():
    a, b = machine(0)
    assert ratio(a, b, cpu_a=[np.zeros_like(x) for x in a], cpu_b=b).noise is None


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (1.00, 0.98, 1.02, "equivalent"),
        (0.98, 0.975, 0.985, "equivalent"),
        (0.90, 0.85, 0.95, "faster"),
        (1.10, 1.01, 1.20, "slower"),
        (0.98, 0.965, 0.995, "inconclusive"),
        (0.90, 0.79, 1.01, "inconclusive"),
        (1.00, 0.90, 1.10, "inconclusive"),
    ],
)
def test_four_verdicts(value, low, high, expected):
    assert verdict(value, low, high, 0.03) == expected


def test_measuring_stops_on_precision_not_on_the_verdict():
    found = ratio(*machine(0, processes=8, blocks=200, bursts=False))
    half = (found.high - found.low) / (2 * found.value)
    assert precise(found, margin=2.1 * half) == (half <= max(0.01, 1.05 * half))
    assert not precise(ratio(*machine(0, processes=2, blocks=5)), margin=0.001)


def test_times_without_partners_are_refused():
    with pytest.raises(ValueError, match="in pairs"):
        ratio([[1.0, 2.0]], [[1.0]])
    with pytest.raises(ValueError, match="same number of processes"):
        ratio([[1.0]], [[1.0], [1.0]])
    with pytest.raises(ValueError, match="above 0"):
        ratio([[0.0]], [[1.0]])


@given(st.integers(0, 2**16), st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_the_unit_of_time_does_not_matter(seed, factor):
    a, b = machine(seed, processes=2, blocks=12)
    found, scaled = ratio(a, b), ratio([factor * x for x in a], [factor * x for x in b])
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx((found.value, found.low, found.high))
    assert found.low <= found.value <= found.high


def test_a_machine_that_is_twice_as_slow_for_both_in_one_process_changes_nothing():
    a, b = machine(3)
    slow = [2 * a[0], *a[1:]], [2 * b[0], *b[1:]]
    assert ratio(*slow) == ratio(a, b)


@given(st.floats(0.5, 2), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0.005, 0.2))
@settings(max_examples=80, deadline=None)
def test_swapping_the_sides_swaps_faster_and_slower(value, below, above, margin):
    low, high = value * (1 - below), value * (1 + above)
    other = {"faster": "slower", "slower": "faster"}
    assume(np.min(np.abs(np.abs(np.log([value, low, high])) - np.log1p(margin))) > 1e-9)  # rounding at the very edge
    there, back = verdict(value, low, high, margin), verdict(1 / value, 1 / high, 1 / low, margin)
    assert back == other.get(there, there)


@given(st.floats(0.005, 0.2), st.floats(0.005, 0.2))
@settings(max_examples=30, deadline=None)
def test_a_wider_margin_never_finds_a_difference_that_a_narrow_one_did_not(first, second):
    narrow, wide = sorted((first, second))
    for value, low, high in ((0.95, 0.93, 0.97), (1.04, 1.01, 1.08), (1.0, 0.99, 1.02), (0.9, 0.7, 1.1)):
        if verdict(value, low, high, wide) in ("faster", "slower"):
            assert verdict(value, low, high, narrow) in ("faster", "slower")
        if verdict(value, low, high, narrow) == "equivalent":
            assert verdict(value, low, high, wide) == "equivalent"


@pytest.mark.parametrize(("half", "margin", "enough"), [(0.009, 0.01, True), (0.011, 0.01, False), (0.019, 0.04, True)])
def test_measuring_may_stop_at_one_percent_or_half_of_the_margin(half, margin, enough):
    found = replace(ratio([[1.0]], [[1.0]]), value=2.0, low=2.0 * (1 - half), high=2.0 * (1 + half))
    assert precise(found, margin) is enough


def test_a_single_pair_of_blocks_has_a_value_and_a_margin_must_be_one():
    found = ratio([[3.0]], [[2.0]])
    assert (found.value, found.blocks, found.processes) == (pytest.approx(1.5), 1, 1)
    for margin in (0.0, -0.03):
        with pytest.raises(ValueError, match=r"the margin must be above 0, .*; 0\.03 is 3 %"):
            verdict(1.0, 0.9, 1.1, margin)
    with pytest.raises(ValueError, match="same number of processes, at least one"):
        ratio([], [])
