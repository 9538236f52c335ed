import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from trimtab.stats.holm import adjust, by_class


def test_adjustment_of_the_textbook_example():
    assert adjust([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_adjustment_never_exceeds_one_and_keeps_the_order():
    p = np.random.default_rng(0).random(50)
    adjusted = adjust(p)
    assert adjusted.max() <= 1
    assert np.all(np.diff(adjusted[np.argsort(p)]) >= 0)


def test_only_the_harmed_class_is_named():
    truth = np.repeat([0, 1, 2], 200)
    old = truth.copy()
    new = truth.copy()
    new[200:220] = 0
    changes = by_class(truth, old, new)
    assert [change.label for change in changes if change.harmed] == [1]
    assert (changes[1].worse, changes[1].better, changes[1].items) == (20, 0, 200)
    assert changes[1].difference == pytest.approx(-0.1)


def test_p_of_a_single_class_is_the_exact_sign_test():
    truth, old = np.zeros(100, dtype=int), np.r_[np.zeros(90), np.ones(10)].astype(int)
    new = np.r_[np.ones(12), np.zeros(78), np.zeros(4), np.ones(6)].astype(int)
    assert by_class(truth, old, new)[0].p == pytest.approx(binomtest(12, 16, alternative="greater").pvalue)


def test_a_gain_is_no_harm():
    truth = np.zeros(50, dtype=int)
    assert by_class(truth, np.ones(50), truth)[0].p == pytest.approx(1.0)


def test_crops_of_one_photo_vote_once():
    truth, new = np.zeros(120, dtype=int), np.r_[np.ones(40), np.zeros(80)].astype(int)
    assert by_class(truth, truth, new)[0].harmed
    assert not by_class(truth, truth, new, groups=np.repeat(np.arange(3), 40))[0].harmed


def test_chance_alone_names_a_class_in_at_most_five_percent():
    rng, named = np.random.default_rng(0), 0
    truth = np.repeat(np.arange(10), 40)
    for _ in range(500):
        old, new = (np.where(rng.random(400) < 0.8, truth, -1) for _ in range(2))
        named += any(change.harmed for change in by_class(truth, old, new))
    assert named / 500 <= 0.07


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(deadline=None)
def test_adjusted_p_lies_between_the_raw_one_and_bonferronis(p):
    adjusted, raw = adjust(p), np.array(p)
    assert np.all(raw <= adjusted)
    assert np.all(adjusted <= np.minimum(1, raw * len(p)) + 1e-15)
    assert adjusted[np.argmin(raw)] == pytest.approx(min(1, raw.min() * len(p)))


def test_the_order_of_the_classes_does_not_matter():
    p = np.random.default_rng(0).random(20)
    order = np.random.default_rng(1).permutation(20)
    assert adjust(p[order]) == pytest.approx(adjust(p)[order])
    assert adjust([]).tolist() == []


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=60))
@settings(deadline=None)
def test_gains_and_losses_of_the_classes_add_up_to_those_of_all_items(rows):
    truth, old, new = np.array(rows).T
    changes = by_class(truth, old, new)
    assert [change.label for change in changes] == sorted(set(truth.tolist()))
    assert sum(change.items for change in changes) == len(rows)
    assert sum(change.better for change in changes) == np.sum((new == truth) & (old != truth))
    assert sum(change.worse for change in changes) == np.sum((old == truth) & (new != truth))
    for change in changes:
        assert change.difference == pytest.approx((change.better - change.worse) / change.items)


def test_groups_of_one_vote_like_items():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 90)
    old, new = (np.where(rng.random(90) < 0.7, truth, -1) for _ in range(2))
    assert by_class(truth, old, new, groups=rng.permutation(90)) == by_class(truth, old, new)


def test_a_group_of_several_classes_votes_once_in_each():
    truth = np.array([0] * 6 + [1] * 6)
    new = np.full(12, 2)
    changes = by_class(truth, truth, new, groups=np.arange(12) % 6)
    assert [change.p for change in changes] == pytest.approx([2 * 0.5**6] * 2)
    assert all(change.harmed for change in changes)
