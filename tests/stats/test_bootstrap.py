import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trimtab.stats.bootstrap import bca, fewest_units, prove


def mean_of(values):
    return lambda weights: weights @ values / weights.sum(axis=-1)


@pytest.fixture
def skewed():
    return np.random.default_rng(0).exponential(size=150)


def test_interval_agrees_with_scipy(skewed):
    found = bca(mean_of(skewed), np.ones(150), resamples=10_000)
    reference = stats.bootstrap((skewed,), np.mean, method="BCa", n_resamples=10_000, rng=np.random.default_rng(1))
    low, high = reference.confidence_interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)
    assert found.error == pytest.approx(reference.standard_error, rel=0.05)


def test_equal_seeds_give_equal_results_and_others_do_not(skewed):
    first, second, other = (bca(mean_of(skewed), np.ones(150), seed=seed) for seed in (7, 7, 8))
    assert first == second
    assert first != other


def test_counts_stand_for_that_many_equal_items():
    values, counts = np.array([0.0, 1.0, 5.0]), np.array([40, 30, 10])
    merged = bca(mean_of(values), counts, resamples=8000)
    apart = bca(mean_of(np.repeat(values, counts)), np.ones(80), resamples=8000)
    assert merged.value == apart.value
    assert (merged.low, merged.high) == pytest.approx((apart.low, apart.high), abs=0.05)


def test_strata_keep_their_sizes():
    strata, seen = np.repeat([0, 1], [90, 10]), []

    def statistic(weights):
        seen.append(weights[:, strata == 1].sum(axis=1))
        return weights @ np.arange(100.0) / 100

    bca(statistic, np.ones(100), strata=strata)
    assert np.concatenate(seen) == pytest.approx(10)


def test_strata_take_out_the_scatter_between_them():
    strata = np.repeat([0, 1], 50)
    values = 10.0 * strata + np.random.default_rng(0).standard_normal(100)
    assert bca(mean_of(values), np.ones(100), strata=strata).error < 0.15
    assert bca(mean_of(values), np.ones(100)).error > 0.4


def test_groups_are_resampled_whole():
    groups = np.repeat(np.arange(20), 30)
    values = np.random.default_rng(0).standard_normal(20)[groups]
    grouped = prove(mean_of(values), 0.1, np.ones(600), groups=groups)
    alone = prove(mean_of(values), 0.1, np.ones(600))
    assert (grouped.units, alone.units) == (20, 600)
    assert grouped.error == pytest.approx(alone.error * np.sqrt(30), rel=0.1)


def test_proven_is_the_same_as_a_lower_bound_above_minus_delta():
    values = np.random.default_rng(0).normal(-0.02, 0.2, size=600)
    for delta in (0.02, 0.03, 0.04):
        shift = prove(mean_of(values), delta, np.ones(600))
        assert shift.proven == (shift.low > -delta)
    assert prove(mean_of(values), 0.05, np.ones(600)).proven
    assert not prove(mean_of(values), 0.02, np.ones(600)).proven


def test_needed_items_are_about_what_the_normal_approximation_says():
    values = np.random.default_rng(0).normal(0.0, 1.0, size=500)
    values -= values.mean()
    shift = prove(mean_of(values), 0.05, np.ones(500))
    assert shift.needed == pytest.approx((1.645 + 0.842) ** 2 * values.var() / 0.05**2, rel=0.1)
    assert prove(mean_of(values - 0.06), 0.05, np.ones(500)).needed is None


def test_what_was_not_seen_widens_the_interval():
    equal = prove(mean_of(np.zeros(50)), 0.1, np.ones(50), unseen=0.06)
    assert (equal.low, equal.high) == (-0.06, 0.0)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    samples = rng.exponential(size=(400, 60))
    bounds = [bca(mean_of(values), np.ones(60), level=0.9, resamples=600, seed=i) for i, values in enumerate(samples)]
    covered = np.mean([b.low <= 1 <= b.high for b in bounds])
    assert 0.85 <= covered <= 0.94


def test_leaving_out_blocks_of_many_items_gives_the_interval_of_leaving_out_each():
    values = np.random.default_rng(0).lognormal(sigma=1.5, size=1500)
    found = bca(mean_of(values), np.ones(1500), resamples=5000)
    reference = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=5000, rng=np.random.default_rng(1))
    low, high = reference.confidence_interval
    assert found.high - found.value > 1.1 * (found.value - found.low)
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.015)


def test_a_metric_without_a_value_on_some_resamples_is_refused():
    with pytest.raises(ValueError, match="no value on some resamples"):
        bca(lambda weights: np.where(weights[:, 0] > 0, 1.0, np.nan), np.ones(20))


@given(st.floats(-5, 5), st.integers(2, 100), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_what_never_varies_has_an_interval_of_no_width_but_for_what_was_not_seen(value, items, unseen):
    shift = prove(lambda weights: np.full(len(weights), value), 0.1, np.ones(items), unseen=unseen)
    assert (shift.difference, shift.high, shift.error) == (value, value, 0.0)
    assert shift.low == pytest.approx(value - unseen)
    assert shift.proven == (shift.low > -0.1 and items >= 59)


@pytest.mark.parametrize(("alpha", "fewest"), [(0.05, 59), (0.01, 90), (0.1, 45)])
def test_fewest_units_are_those_of_wilks_at_a_coverage_of_95_percent(alpha, fewest):
    assert fewest_units(alpha) == fewest
    assert 0.95**fewest <= alpha < 0.95 ** (fewest - 1)


@pytest.mark.parametrize("items", [1, 5, 58, 59])
def test_unchanged_items_prove_nothing_where_they_are_too_few(items):
    shift = prove(mean_of(np.zeros(items)), 0.05, np.ones(items))
    assert shift.proven == (items == 59)
    assert (shift.fewest, shift.needed) == (59, 59)


def test_a_single_group_is_one_unit_however_many_items_it_has():
    shift = prove(mean_of(np.zeros(1000)), 0.05, np.ones(1000), groups=np.zeros(1000))
    assert (shift.units, shift.proven, shift.needed) == (1, False, 59)


def test_groups_of_unequal_size_must_be_more():
    few, enough = (np.repeat(np.arange(3 * k), np.tile([1, 1, 4], k)) for k in (29, 30))  # 3 groups count as 2
    for groups, proven in ((few, False), (enough, True)):
        shift = prove(mean_of(np.zeros(groups.size)), 0.05, np.ones(groups.size), groups=groups)
        assert (shift.fewest, shift.proven) == (89, proven)
        assert shift.units == (90 if proven else 87)


def test_what_is_needed_counts_in_groups():
    values = np.random.default_rng(0).normal(0.0, 1.0, size=500)
    alone = prove(mean_of(values - values.mean()), 0.05, np.ones(500))
    groups = np.repeat(np.arange(500), 4)
    grouped = prove(mean_of((values - values.mean())[groups]), 0.05, np.ones(2000), groups=groups)
    assert grouped.needed == pytest.approx(alone.needed, rel=0.1)


@given(st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_the_interval_holds_the_value_and_moves_with_it(seed):
    values = np.random.default_rng(seed).standard_normal(40)
    found, moved = (
        bca(mean_of(values), np.ones(40), resamples=300),
        bca(mean_of(values + 3), np.ones(40), resamples=300),
    )
    assert found.low <= found.value <= found.high
    assert (moved.low, moved.high) == pytest.approx((found.low + 3, found.high + 3))


def test_a_skewed_statistic_has_a_skewed_interval(skewed):
    found = bca(mean_of(skewed), np.ones(150))
    assert found.high - found.value > 1.05 * (found.value - found.low)
    mirrored = bca(mean_of(-skewed), np.ones(150))
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=0.01)


def test_a_larger_harm_than_the_room_asks_for_more_items_in_proportion():
    shifts = [prove(mean_of(np.zeros(50)), 0.02, np.ones(50), unseen=harm) for harm in (0.06, 0.12)]
    assert [shift.needed for shift in shifts] == [150, 300]


@pytest.mark.parametrize(
    ("counts", "more", "message"),
    [
        (np.ones(0), {}, "one row of non-negative numbers"),
        ([1, -1], {}, "one row of non-negative numbers"),
        ([1, 1], {"strata": [0, 0, 1]}, "with a stratum for each"),
        ([1, 2], {"groups": [0, 1]}, "every item needs a group and counts of one"),
        ([1, 1], {"groups": [0, 1, 1]}, "every item needs a group and counts of one"),
        ([1, 1], {"unseen": -0.1}, "can't be negative"),
    ],
)
def test_items_that_can_not_be_resampled_are_refused(counts, more, message):
    with pytest.raises(ValueError, match=message):
        prove(lambda weights: weights.sum(axis=1), 0.1, counts, **more)


def test_a_group_belongs_to_the_stratum_of_most_of_its_items():
    groups, strata = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2]), np.array([0, 0, 1, 1, 1, 0, 1, 1, 1])
    seen = []

    def statistic(weights):
        seen.append(weights[:, [0, 3, 6]])
        return weights.sum(axis=1)

    prove(statistic, 0.1, np.ones(9), strata=strata, groups=groups)
    drawn = seen[1]  # the first call is with every item once
    assert (drawn[:, 0] == 1).all(), "alone in its stratum, it is drawn every time"
    assert set(drawn[:, 1].tolist()) == {0.0, 1.0, 2.0}
