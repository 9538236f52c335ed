import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import multinomial, norm

from trimtab.stats.noninferiority import (
    Pairs,
    count,
    exact_error,
    exact_p,
    fewest_items,
    interval,
    items_needed,
    prove,
    tango_z,
)


def score_by_maximisation(n, b, c, difference):
    """Tango's z with the nuisance parameter found numerically: an independent route to the closed form."""

    def minus_log_likelihood(q):
        cells = np.array([q + difference, q, 1 - 2 * q - difference])
        counts = np.array([b, c, n - b - c])
        return -np.sum(counts[counts > 0] * np.log(np.maximum(cells[counts > 0], 1e-300)))

    edges = max(0.0, -difference), (1 - difference) / 2
    q = minimize_scalar(minus_log_likelihood, bounds=edges, method="bounded", options={"xatol": 1e-12}).x
    return (b - c - n * difference) / np.sqrt(n * (2 * q + difference * (1 - difference)))


@pytest.mark.parametrize(("n", "b", "c"), [(300, 3, 5), (1000, 20, 26), (50, 10, 1), (500, 0, 4)])
@pytest.mark.parametrize("difference", [-0.01, -0.05, 0.02])
def test_score_equals_numerical_maximisation_of_the_likelihood(n, b, c, difference):
    assert tango_z(n, b, c, difference) == pytest.approx(score_by_maximisation(n, b, c, difference), abs=2e-4)


def test_score_against_no_difference_is_that_of_mcnemar():
    assert tango_z(100, 12, 5, 0.0) == pytest.approx((12 - 5) / np.sqrt(12 + 5))


def test_interval_holds_exactly_the_differences_that_are_not_refuted():
    low, high = interval(Pairs(items=400, better=7, worse=11), 0.90)
    assert tango_z(400, 7, 11, low) == pytest.approx(norm.ppf(0.95), abs=1e-6)
    assert tango_z(400, 7, 11, high) == pytest.approx(-norm.ppf(0.95), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(20, 3000), st.floats(0, 0.3), st.floats(0, 0.3), st.sampled_from([0.005, 0.01, 0.03]))
def test_what_is_proven_has_its_lower_bound_above_minus_delta(n, gain, loss, delta):
    proof = prove(Pairs(items=n, better=int(n * gain), worse=int(n * loss)), delta)
    assert proof.low <= proof.difference <= proof.high
    if proof.proven:
        assert proof.low > -delta - 1e-8
        assert proof.exact_p <= 0.05


@pytest.mark.parametrize(("delta", "fewest"), [(0.01, 299), (0.005, 598)])
def test_fewest_items_are_those_at_which_no_flip_at_all_is_a_proof(delta, fewest):
    assert fewest_items(delta) == fewest
    assert prove(Pairs(items=fewest, better=0, worse=0), delta).proven
    assert not prove(Pairs(items=fewest - 1, better=0, worse=0), delta).proven


@pytest.mark.parametrize(
    ("psi", "delta", "needed"),
    [(0.02, 0.01, 1237), (0.02, 0.005, 4947), (0.05, 0.01, 3092), (0.05, 0.005, 12366), (0.1, 0.01, 6183)],
)
def test_items_needed_agree_with_the_planning_table(psi, delta, needed):
    assert items_needed(psi, 0.0, delta) == pytest.approx(needed, abs=1)


def test_items_needed_give_the_power_they_promise():
    n, rng = items_needed(0.05, 0.0, 0.01), np.random.default_rng(0)
    draws = rng.multinomial(n, [0.025, 0.025, 0.95], size=4000)
    power = np.mean(tango_z(n, draws[:, 0], draws[:, 1], -0.01) > norm.ppf(0.95))
    assert power == pytest.approx(0.80, abs=0.03)


def test_a_model_below_the_limit_can_not_be_planned_for():
    with pytest.raises(ValueError, match="can't be proven"):
        items_needed(0.05, -0.01, 0.01)
    assert prove(Pairs(items=100, better=0, worse=10), 0.01).needed is None


def region_probability(n, psi, delta, z):
    """P(score > z) by visiting every table of counts: slow and simple."""
    cells = [(psi - delta) / 2, (psi + delta) / 2, 1 - psi]
    tables = np.array([(b, c, n - b - c) for b, c in itertools.product(range(n + 1), repeat=2) if b + c <= n])
    proven = tango_z(n, tables[:, 0], tables[:, 1], -delta) > z
    return multinomial.pmf(tables[proven], n, cells).sum()


@pytest.mark.parametrize(("n", "psi", "delta"), [(40, 0.3, 0.1), (60, 0.1, 0.1), (90, 0.5, 0.05)])
def test_exact_error_equals_visiting_every_table(n, psi, delta):
    found = exact_error(n, psi, delta, score_only=True)
    assert found == pytest.approx(region_probability(n, psi, delta, norm.ppf(0.95)), abs=1e-8)


@pytest.mark.parametrize("n", [300, 1000, 5000])
@pytest.mark.parametrize("psi", [0.01, 0.02, 0.05, 0.10])
def test_exact_error_at_one_point_is_at_most_5_1_percent(n, psi):
    assert 0.02 < exact_error(n, psi, 0.01) <= 0.051


@pytest.mark.parametrize("n", [60, 268, 280, 299, 3000])
@pytest.mark.parametrize("psi", [0.01, 0.013, 0.04])
def test_no_size_and_no_discordance_errs_in_more_than_alpha(n, psi):
    assert exact_error(n, psi, 0.01) <= 0.0501


def test_the_score_alone_errs_in_more_where_few_items_flip():
    assert exact_error(268, 0.01, 0.01, score_only=True) > 0.065


def test_exact_error_refuses_a_discordance_below_the_difference():
    with pytest.raises(ValueError, match="the discordance lies between"):
        exact_error(300, 0.005, 0.01)


def test_exact_p_with_no_flip_is_the_chance_of_no_flip():
    assert exact_p(Pairs(items=280, better=0, worse=0), 0.01) == pytest.approx(0.99**280, rel=1e-6)


def test_exact_p_is_the_worst_case_over_the_discordance():
    pairs = Pairs(items=60, better=3, worse=2)
    z = float(tango_z(60, 3, 2, -0.1)) - 1e-9
    assert exact_p(pairs, 0.1) >= max(region_probability(60, psi, 0.1, z) for psi in (0.1, 0.2, 0.4)) - 1e-3


def test_score_falls_with_every_further_loss():
    for b in (0, 3, 40):
        assert np.all(np.diff(tango_z(200, b, np.arange(0, 200 - b), -0.02)) < 0)


def test_count_tells_gains_from_losses():
    old, new = [True, True, False, False, True], [True, False, True, False, False]
    pairs = count(old, new)
    assert (pairs.items, pairs.better, pairs.worse) == (5, 1, 2)
    assert pairs.difference == pytest.approx(-0.2)
    assert pairs.discordant == pytest.approx(0.6)


def test_crops_of_seven_photos_are_seven_items():
    groups = np.repeat(np.arange(7), 100)
    right = np.ones(700, dtype=bool)
    assert count(right, right, groups).items == pytest.approx(7)
    assert not prove(count(right, right, groups), 0.01).proven
    assert prove(count(right, right), 0.01).proven


def test_groups_of_one_change_nothing():
    rng = np.random.default_rng(0)
    old, new = rng.random((2, 50)) < 0.8
    assert count(old, new, np.arange(50)) == count(old, new)


def test_groups_of_unequal_size_count_less_than_their_number():
    right = np.ones(102, dtype=bool)
    assert count(right, right, np.r_[np.zeros(100), 1, 2]).items < 1.1


@pytest.mark.parametrize("size", [1, 4, 25])
def test_what_is_needed_counts_in_groups_whatever_their_size(size):
    old, new = np.arange(400) % 50 != 0, np.arange(400) % 50 != 1
    alone = prove(count(old, new), 0.01)
    grouped = prove(count(*(np.repeat(right, size) for right in (old, new)), np.repeat(np.arange(400), size)), 0.01)
    assert (grouped.fewest, grouped.needed) == (alone.fewest, alone.needed) == (299, alone.needed)
    assert alone.needed > 400


@pytest.mark.parametrize(("times", "proven"), [(174, False), (175, True)])
def test_groups_of_unequal_size_must_be_more(times, proven):
    groups = np.repeat(np.arange(4 * times), np.tile([1, 1, 1, 9], times))  # (Σm)² / Σm² is 12 / 7 of each four
    right = np.ones(groups.size, dtype=bool)
    found = prove(count(right, right, groups), 0.01)
    assert (found.proven, found.fewest) == (proven, 698)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_error_with_groups_stays_at_the_risk_however_much_items_of_a_group_agree(correlation):
    rng, delta, errors, trials = np.random.default_rng(1), 0.05, 0, 1500
    groups = np.repeat(np.arange(100), rng.integers(1, 6, 100))
    for _ in range(trials):
        shared = rng.random(100)[groups]
        chance = np.where(rng.random(100)[groups] < correlation, shared, rng.random(groups.size))
        old, new = chance >= 0.02, ~((chance >= 0.02) & (chance < 0.09))
        errors += prove_quickly(count(old, new, groups), delta)
    assert errors / trials <= 0.065


def prove_quickly(pairs, delta):
    return bool(tango_z(pairs.items, pairs.better, pairs.worse, -delta) > norm.ppf(0.95))


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="same, non-zero length"):
        count([True], [True, False])
    with pytest.raises(ValueError, match="δ must lie"):
        prove(Pairs(items=10, better=0, worse=0), 0.0)


counts = st.tuples(st.integers(1, 500), st.floats(0, 0.5), st.floats(0, 0.5)).map(
    lambda given: (given[0], int(given[0] * given[1]), int(given[0] * given[2]))
)


@given(counts, st.floats(0.5, 0.999))
@settings(max_examples=60, deadline=None)
def test_swapping_the_models_mirrors_the_interval(numbers, level):
    n, b, c = numbers
    low, high = interval(Pairs(items=n, better=b, worse=c), level)
    mirrored = interval(Pairs(items=n, better=c, worse=b), level)
    assert mirrored == pytest.approx((-high, -low), abs=1e-6)
    assert -1 <= low <= (b - c) / n <= high <= 1


@given(counts, st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_more_of_the_same_items_narrow_the_interval(numbers, times):
    few, many = (Pairs(items=k * numbers[0], better=k * numbers[1], worse=k * numbers[2]) for k in (1, times))
    (low, high), (closer_low, closer_high) = interval(few), interval(many)
    assert low - 1e-9 <= closer_low <= closer_high <= high + 1e-9


@given(counts)
@settings(max_examples=25, deadline=None)
def test_what_is_proven_for_a_small_drop_is_proven_for_a_larger_one(numbers):
    pairs = Pairs(items=numbers[0], better=numbers[1], worse=numbers[2])
    proofs = [prove(pairs, delta) for delta in (0.01, 0.03, 0.1)]
    assert [proof.proven for proof in proofs] == sorted(proof.proven for proof in proofs)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (5, 5), (10, 14)])
def test_about_as_many_items_as_are_needed_do_prove(better, worse):
    found = prove(Pairs(items=1000, better=better, worse=worse), 0.01)
    assert found.needed is not None
    share = 1.3 * found.needed / 1000
    enough = Pairs(items=round(1000 * share), better=round(better * share), worse=round(worse * share))
    assert prove(enough, 0.01).proven


def test_a_smaller_risk_asks_for_more_items():
    assert fewest_items(0.01, 0.05) == 299
    assert fewest_items(0.01, 0.01) == 459
    assert items_needed(0.02, 0.0, 0.01, 0.01) > items_needed(0.02, 0.0, 0.01, 0.05)


def test_one_item_is_too_few_for_any_proof_and_no_reason_to_fail():
    proof = prove(Pairs(items=1, better=0, worse=0), 0.5)
    assert (proof.proven, proof.difference) == (False, 0.0)
    assert exact_p(Pairs(items=0.4, better=0, worse=0), 0.01) == 1.0


@pytest.mark.parametrize(
    ("old", "new", "groups", "message"),
    [
        ([], [], None, "same, non-zero length"),
        ([[True]], [[True]], None, "one row"),
        ([True, True], [True, True], [1], "every item must have a group"),
    ],
)
def test_answers_that_can_not_be_paired_are_refused(old, new, groups, message):
    with pytest.raises(ValueError, match=message):
        count(old, new, groups)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.2])
def test_a_risk_that_is_none_is_refused(alpha):
    with pytest.raises(ValueError, match=r"the risk α must lie between 0 and 0\.5"):
        fewest_items(0.01, alpha)
