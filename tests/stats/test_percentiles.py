import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trimtab.stats.percentiles import mean, median, samples_needed, upper_bound


@pytest.mark.parametrize(("share", "needed"), [(0.90, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_samples_needed_are_those_of_mlperf(share, needed):
    times = np.arange(needed, dtype=float)
    assert samples_needed(share) == needed
    assert upper_bound(times, share) == needed - 1
    assert upper_bound(times[:-1], share) is None


@pytest.mark.parametrize(("share", "n"), [(0.9, 64), (0.9, 500), (0.99, 2000)])
def test_bound_holds_at_the_confidence_it_claims(share, n):
    samples = np.random.default_rng(0).exponential(size=(2000, n))
    truth = -np.log(1 - share)
    held = np.mean([upper_bound(row, share) >= truth for row in samples])
    assert held >= 0.985


def test_bound_leaves_out_as_many_samples_as_the_binomial_law_allows():
    times = np.random.default_rng(0).permutation(10_000).astype(float)
    above = 10_000 - upper_bound(times, 0.99)
    assert stats.binom.cdf(above, 10_000, 0.01) <= 0.01 < stats.binom.cdf(above + 1, 10_000, 0.01)


def test_bound_comes_nearer_with_more_samples():
    times = np.random.default_rng(0).exponential(size=50_000)
    few, many = upper_bound(times[:1000], 0.99), upper_bound(times, 0.99)
    assert abs(many - np.quantile(times, 0.99)) < abs(few - np.quantile(times[:1000], 0.99))


def test_order_of_the_samples_does_not_matter_and_they_are_left_alone():
    times = np.random.default_rng(0).exponential(size=700)
    kept = times.copy()
    assert upper_bound(times, 0.99) == upper_bound(times[::-1], 0.99)
    assert np.array_equal(times, kept)


@pytest.mark.parametrize("n", [8, 25, 200])
def test_interval_of_the_median_covers_it(n):
    samples = np.random.default_rng(1).lognormal(size=(3000, n))
    found = [median(row) for row in samples]
    covered = np.mean([f.low <= 1.0 <= f.high for f in found])
    assert 0.94 <= covered <= 0.995


def test_median_of_a_hand_count():
    found = median([5.0, 1.0, 2.0, 4.0, 3.0, 6.0])
    assert (found.value, found.low, found.high, found.samples) == (3.5, 1.0, 6.0, 6)


def test_mean_has_the_interval_of_the_bootstrap():
    times = np.random.default_rng(0).lognormal(size=400)
    found = mean(times)
    reference = stats.bootstrap((times,), np.mean, n_resamples=4000, rng=np.random.default_rng(1)).confidence_interval
    assert found.value == pytest.approx(times.mean())
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), rel=0.02)


def test_one_sample_has_an_interval_of_no_width():
    assert (mean([2.0]).low, median([2.0]).high) == (2.0, 2.0)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        median([])
    with pytest.raises(ValueError, match="a share between 0 and 1"):
        upper_bound([1.0], 99)


times_s = st.lists(st.floats(1e-6, 10), min_size=1, max_size=300)


@given(times_s)
@settings(max_examples=60, deadline=None)
def test_a_bound_is_one_of_the_samples_and_no_less_than_the_percentile_observed(times):
    for share in (0.5, 0.9, 0.95):
        bound = upper_bound(times, share)
        assert (bound is None) == (len(times) < samples_needed(share))
        if bound is not None:
            assert bound in times
            assert bound >= np.quantile(times, share, method="lower")


@given(times_s)
@settings(max_examples=60, deadline=None)
def test_the_interval_of_the_median_lies_between_samples_and_holds_it(times):
    found = median(times)
    assert min(times) <= found.low <= found.value <= found.high <= max(times)
    assert {found.low, found.high} <= set(times)
    assert (found.value, found.level, found.samples) == (pytest.approx(np.median(times)), 0.95, len(times))


@pytest.mark.parametrize("factor", [1e-3, 60.0])
def test_another_unit_of_time_changes_nothing_but_the_unit(factor):
    times = np.random.default_rng(0).gamma(3, size=300)
    for summary in (mean, median):
        found, scaled = summary(times), summary(factor * times)
        assert (scaled.value, scaled.low, scaled.high) == pytest.approx(
            (factor * found.value, factor * found.low, factor * found.high)
        )
    assert upper_bound(factor * times, 0.9) == pytest.approx(factor * upper_bound(times, 0.9))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_percentile_that_is_no_share_is_refused(share):
    with pytest.raises(ValueError, match=r"0\.99 is p99"):
        samples_needed(share)
