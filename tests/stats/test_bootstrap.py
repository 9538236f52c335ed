import numpy as np
import pytest
from scipy import stats

from trimtab.stats.bootstrap import bca, prove


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
    values = np.random.default_rng(0).normal(-0.02, 0.2, size=1000)
    for delta in (0.02, 0.03, 0.04):
        shift = prove(mean_of(values), delta, np.ones(1000))
        assert shift.proven == (shift.low > -delta)
    assert prove(mean_of(values), 0.05, np.ones(1000)).proven
    assert not prove(mean_of(values), 0.02, np.ones(1000)).proven


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
    found = bca(mean_of(values), np.ones(1500), resamples=8000)
    reference = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=8000, rng=np.random.default_rng(1))
    low, high = reference.confidence_interval
    assert found.high - found.value > 1.1 * (found.value - found.low)
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.015)


def test_a_metric_without_a_value_on_some_resamples_is_refused():
    with pytest.raises(ValueError, match="no value on some resamples"):
        bca(lambda weights: np.where(weights[:, 0] > 0, 1.0, np.nan), np.ones(20))
