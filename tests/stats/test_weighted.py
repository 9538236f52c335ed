import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from trimtab.stats.weighted import Tally, average, pr_auc, prove_answers, r2, roc_auc, tally, tally_metric, unseen_harm


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    truth = rng.choice(4, size=300, p=[0.6, 0.25, 0.1, 0.05])
    return truth, np.where(rng.random(300) < 0.8, truth, rng.integers(4, size=300)), rng.integers(0, 4, size=(3, 300))


REFERENCE = {"precision": metrics.precision_score, "recall": metrics.recall_score, "f1": metrics.f1_score}


@pytest.mark.parametrize("name", list(REFERENCE))
@pytest.mark.parametrize("averaging", ["macro", "micro", "weighted"])
def test_averages_over_classes_equal_scikit_learn(answers, name, averaging):
    truth, given, weights = answers
    found = tally_metric(f"{name}_{averaging}")(tally(truth, given, 4)(weights.astype(float)))
    expected = [REFERENCE[name](truth, given, average=averaging, sample_weight=row, zero_division=0) for row in weights]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("name", list(REFERENCE))
def test_one_class_equals_scikit_learn(answers, name):
    truth, given, weights = answers
    found = tally_metric(name, positive=2)(tally(truth, given, 4)(weights.astype(float)))
    expected = [REFERENCE[name](truth == 2, given == 2, sample_weight=row, zero_division=0) for row in weights]
    assert found == pytest.approx(expected)


def test_accuracy_equals_scikit_learn(answers):
    truth, given, weights = answers
    found = tally_metric("accuracy")(tally(truth, given, 4)(weights.astype(float)))
    assert found == pytest.approx([metrics.accuracy_score(truth, given, sample_weight=row) for row in weights])


def test_balanced_accuracy_equals_scikit_learn(answers):
    truth, given, weights = answers
    found = tally_metric("accuracy_macro")(tally(truth, given, 4)(weights.astype(float)))
    balanced = metrics.balanced_accuracy_score
    assert found == pytest.approx([balanced(truth, given, sample_weight=row) for row in weights])
    seen = tally([0, 0, 1], [0, 2, 1], 3)(np.ones((1, 3)))
    assert tally_metric("accuracy_macro")(seen)[0] == 0.75, "nothing truly is of class 2"
    for name in ("accuracy_micro", "accuracy_weighted"):
        assert tally_metric(name)(seen)[0] == pytest.approx(2 / 3)


def test_a_class_without_answers_scores_zero_and_one_that_never_occurs_does_not_count():
    found = tally([0, 0, 1], [0, 0, 0], 3)(np.ones((1, 3)))
    assert tally_metric("recall_macro")(found)[0] == pytest.approx(0.5)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="roc_auc"):
        tally_metric("roc_auc")


@pytest.mark.parametrize("digits", [1, 6])
def test_rankings_equal_scikit_learn_with_ties_and_without(answers, digits):
    weights = answers[2].astype(float)
    rng = np.random.default_rng(3)
    positive = rng.random(300) < 0.2
    scores = np.round(positive + rng.standard_normal(300), digits)
    expected = [metrics.roc_auc_score(positive, scores, sample_weight=row) for row in weights]
    assert roc_auc(positive, scores)(weights) == pytest.approx(expected)
    expected = [metrics.average_precision_score(positive, scores, sample_weight=row) for row in weights]
    assert pr_auc(positive, scores)(weights) == pytest.approx(expected)


def test_r2_and_mean_equal_scikit_learn(answers):
    weights = answers[2].astype(float)
    truth, given = np.random.default_rng(4).standard_normal((2, 300))
    given = truth + 0.1 * given
    assert r2(truth, given)(weights) == pytest.approx(
        [metrics.r2_score(truth, given, sample_weight=w) for w in weights]
    )
    expected = [metrics.mean_squared_error(truth, given, sample_weight=w) for w in weights]
    assert average((truth - given) ** 2)(weights) == pytest.approx(expected)


def test_unseen_harm_to_accuracy_is_the_rule_of_three():
    seen = Tally(*(np.array([100.0, 100.0]),) * 3)
    assert unseen_harm(seen, tally_metric("accuracy"), [100, 100]) == pytest.approx(-np.log(0.05) / 200)


def test_unseen_harm_to_macro_recall_sits_in_the_rarest_class():
    seen = Tally(*(np.array([1000.0, 10.0]),) * 3)
    assert unseen_harm(seen, tally_metric("recall_macro"), [1000, 10]) == pytest.approx(-np.log(0.05) / 10 / 2)


@pytest.mark.parametrize(("items", "proven"), [(299, False), (300, True)])
def test_equal_answers_prove_no_more_than_their_number_can(items, proven):
    truth = np.arange(items) % 3
    assert prove_answers(truth, truth, truth, tally_metric("accuracy"), 0.01).proven is proven


def test_equal_answers_in_few_groups_prove_nothing():
    truth = np.arange(700) % 2
    shift = prove_answers(truth, truth, truth, tally_metric("f1_macro"), 0.05, groups=np.repeat(np.arange(7), 100))
    assert (shift.units, shift.proven) == (7, False)


def test_merging_equal_items_leaves_the_interval_as_it_was(answers):
    truth, old, _ = answers
    new = np.where(np.random.default_rng(5).random(300) < 0.95, old, truth)
    merged = prove_answers(truth, old, new, tally_metric("f1_macro"), 0.05)
    apart = prove_answers(truth, old, new, tally_metric("f1_macro"), 0.05, groups=np.arange(300))
    assert merged.difference == pytest.approx(apart.difference)
    assert merged.low == pytest.approx(apart.low, abs=0.004)
    assert merged.high == pytest.approx(apart.high, abs=0.004)


@pytest.mark.slow
@pytest.mark.parametrize(("items", "psi"), [(300, 0.02), (1000, 0.05)])
def test_a_model_worse_by_the_limit_is_certified_in_at_most_about_five_percent(items, psi):
    assert certified_share(items, psi, 0.01, trials=800) <= 0.065


def certified_share(items, psi, delta, trials):
    rng, certified = np.random.default_rng(0), 0
    for seed in range(trials):
        truth = rng.choice(3, size=items, p=[0.6, 0.3, 0.1])
        change = rng.choice(3, size=items, p=[1 - psi, (psi - delta) / 2, (psi + delta) / 2])
        wrong = (truth + 1) % 3
        base = np.where(rng.random(items) < 0.9, truth, wrong)
        old = np.choose(change, [base, wrong, truth])
        new = np.choose(change, [base, truth, wrong])
        certified += prove_answers(truth, old, new, tally_metric("accuracy"), delta, seed=seed).proven
    return certified / trials


tallies = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60)
counted = st.sampled_from(["accuracy", "f1_macro", "recall_macro", "precision_macro", "f1_weighted", "recall", "f1"])


@given(tallies, counted)
@settings(max_examples=60, deadline=None)
def test_unseen_harm_is_never_a_gain_and_never_more_than_there_is_to_lose(pairs, name):
    truth, answers = np.array(pairs).T
    seen, metric = tally(truth, answers, 3)(np.ones((1, len(pairs)))), tally_metric(name)
    harm = unseen_harm(seen, metric, np.bincount(truth, minlength=3))
    assert 0 <= harm <= metric(seen)[0] + 1e-12


@given(tallies, counted, st.integers(2, 20))
@settings(max_examples=40, deadline=None)
def test_more_items_of_the_same_kind_leave_less_unseen(pairs, name, times):
    truth, answers = np.array(pairs).T
    harms = []
    for count in (1, times):
        seen = tally(np.repeat(truth, count), np.repeat(answers, count), 3)(np.ones((1, count * len(pairs))))
        harms.append(unseen_harm(seen, tally_metric(name), count * np.bincount(truth, minlength=3)))
    assert harms[1] <= harms[0] + 1e-12


def test_a_smaller_risk_leaves_more_unseen():
    seen = Tally(*(np.array([50.0, 50.0]),) * 3)
    harms = [unseen_harm(seen, tally_metric("f1_macro"), [50, 50], alpha) for alpha in (0.1, 0.05, 0.01)]
    assert harms == sorted(harms)


@given(st.permutations(range(40)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_items_proves_nothing(order):
    truth, old = np.arange(40) % 3, np.where(np.arange(40) < 4, 0, np.arange(40) % 3)
    new, rows = np.where(np.arange(40) > 37, 1, old), np.array(order)
    first, second = (
        prove_answers(truth[r], old[r], new[r], tally_metric("f1_macro"), 0.1) for r in (np.arange(40), rows)
    )
    assert first == second


def test_a_binary_metric_stands_items_without_a_positive_one():
    answers = np.zeros(50, dtype=int)
    shift = prove_answers(answers, answers, answers, tally_metric("precision", positive=1), 0.01)
    assert (shift.difference, shift.low) == (0.0, 0.0)


@pytest.mark.parametrize("nonsense", [np.array([], dtype=int), np.array([0, -1])])
def test_class_numbers_below_zero_or_none_at_all_are_refused(nonsense):
    with pytest.raises(ValueError, match="none negative"):
        prove_answers(nonsense, nonsense, nonsense, tally_metric("accuracy"), 0.01)


@pytest.mark.parametrize("statistic", [roc_auc, pr_auc])
def test_doubling_every_weight_changes_no_ranking(statistic):
    rng = np.random.default_rng(1)
    positive, scores = rng.random(80) < 0.4, rng.integers(0, 9, 80).astype(float)
    weights = rng.integers(1, 4, (5, 80)).astype(float)
    assert statistic(positive, scores)(2 * weights) == pytest.approx(statistic(positive, scores)(weights))
    assert statistic(positive, 3 * scores - 7)(weights) == pytest.approx(statistic(positive, scores)(weights))


def test_r2_of_targets_that_are_all_equal_has_no_value():
    assert not np.isfinite(r2(np.ones(4), np.arange(4.0))(np.ones((1, 4)))).any()
