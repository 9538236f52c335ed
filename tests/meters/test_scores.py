from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from trimtab.core.errors import BadInput
from trimtab.core.values import Task
from trimtab.meters import scores

CLASSES = Task(kind="classification")
BINARY = Task(kind="binary", positive=1, costs=(10.0, 1.0))
NUMBERS = Task(kind="regression", metric="mse")


def some_classes(items: int = 300, classes: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores that are right more often than not; the last class never occurs."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes - 1, size=items)
    outputs = draw.normal(size=(items, classes))
    outputs[np.arange(items), labels] += 1.2
    return labels, outputs.astype(np.float32)


def some_binary(items: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = (draw.random(items) < 0.3).astype(np.int64)
    # one decimal makes many equal scores
    return labels, np.round(draw.normal(size=items) + labels, 1)


def value(task: Task, name: str, labels: np.ndarray, outputs: np.ndarray) -> float:
    return scores.estimate(task, name, labels, outputs).value


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_averages_are_those_of_scikit_learn(average: str) -> None:
    labels, outputs = some_classes()
    given_answers = outputs.argmax(axis=1)
    expected = reference.precision_recall_fscore_support(labels, given_answers, average=average, zero_division=0)[:3]
    found = [value(CLASSES, f"{name}_{average}", labels, outputs) for name in ("precision", "recall", "f1")]
    assert found == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_every_average_agrees_with_scikit_learn_on_rare_and_missing_classes(pairs: list[tuple[int, int]]) -> None:
    labels, given_answers = np.array(pairs).T
    counts = scores.count(labels, given_answers, 4)
    for average in ("macro", "micro", "weighted"):
        expected = reference.precision_recall_fscore_support(labels, given_answers, average=average, zero_division=0)
        found = [scores.averaged(counts, name, average).value for name in ("precision", "recall", "f1")]
        assert found == pytest.approx(expected[:3], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_balanced_accuracy_leaves_out_classes_without_items_as_scikit_learn_does(pairs: list[tuple[int, int]]) -> None:
    labels, given_answers = np.array(pairs).T
    right = labels == given_answers
    expected = np.mean([right[labels == number].mean() for number in np.unique(labels)])
    counts = scores.count(labels, given_answers, 4)
    assert scores.averaged(counts, "accuracy", "macro").value == pytest.approx(expected)
    assert scores.averaged(counts, "accuracy", "micro").value == right.mean()
    assert scores.averaged(counts, "accuracy", "weighted").value == pytest.approx(right.mean())


def test_one_class_is_that_of_scikit_learn() -> None:
    labels, outputs = some_classes()
    given_answers = outputs.argmax(axis=1)
    counts = scores.count(labels, given_answers, 7)
    expected = reference.precision_recall_fscore_support(labels, given_answers, labels=range(7), zero_division=0)
    for row, name in enumerate(("precision", "recall", "f1")):
        assert [scores.averaged(counts, name, c).value for c in range(7)] == pytest.approx(expected[row], abs=1e-12)


def test_plain_precision_recall_and_f1_are_of_the_positive_class_or_the_macro_mean() -> None:
    labels, outputs = some_binary()
    given_answers = outputs >= 0
    for name in ("precision", "recall", "f1"):
        expected = getattr(reference, f"{name}_score")(labels, given_answers)
        assert value(BINARY, name, labels, outputs) == pytest.approx(expected)
    labels, outputs = some_classes()
    assert value(CLASSES, "f1", labels, outputs) == value(CLASSES, "f1_macro", labels, outputs)


def test_ranking_metrics_are_those_of_scikit_learn() -> None:
    labels, outputs = some_binary()
    assert value(BINARY, "roc_auc", labels, outputs) == pytest.approx(reference.roc_auc_score(labels, outputs))
    assert value(BINARY, "pr_auc", labels, outputs) == pytest.approx(reference.average_precision_score(labels, outputs))
    labels, outputs = some_classes(classes=4)
    labels[:20] = 3
    shares = np.exp(outputs.astype(float))
    shares /= shares.sum(axis=1, keepdims=True)
    expected = reference.roc_auc_score(labels, shares, multi_class="ovr", average="macro")
    assert value(CLASSES, "roc_auc", labels, outputs) == pytest.approx(expected)
    expected = reference.average_precision_score(np.eye(4)[labels], shares, average="macro")
    assert value(CLASSES, "pr_auc", labels, outputs) == pytest.approx(expected)


def test_top5_is_that_of_scikit_learn_even_with_equal_scores() -> None:
    labels, outputs = some_classes(classes=9)
    outputs = np.round(outputs)
    expected = reference.top_k_accuracy_score(labels, outputs, k=5, labels=range(9))
    assert value(CLASSES, "top5", labels, outputs) == expected


def test_regression_metrics_are_those_of_scikit_learn_and_by_hand() -> None:
    draw = np.random.default_rng(0)
    targets = draw.normal(size=(200, 3))
    outputs = targets + 0.3 * draw.normal(size=(200, 3))
    assert value(NUMBERS, "mse", targets, outputs) == pytest.approx(reference.mean_squared_error(targets, outputs))
    assert value(NUMBERS, "mae", targets, outputs) == pytest.approx(reference.mean_absolute_error(targets, outputs))
    assert value(NUMBERS, "r2", targets, outputs) == pytest.approx(reference.r2_score(targets, outputs))
    assert value(NUMBERS, "relative_error", np.array([3.0, 4.0]), np.array([[3.0], [1.0]])) == pytest.approx(0.6)
    both = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[2.0, 0.0], [1.0, -1.0]])
    assert value(NUMBERS, "cosine", *both) == pytest.approx(0.5)


def test_cost_is_money_per_item() -> None:
    labels, outputs = np.array([1, 1, 0, 0]), np.array([-1.0, 1.0, 1.0, -1.0])
    assert value(BINARY, "cost", labels, outputs) == (10.0 + 1.0) / 4


ALL = [
    *((CLASSES, name) for name in (*scores.CLASSIFICATION, *scores.RANKING, "top5")),
    *((BINARY, name) for name in (*scores.CLASSIFICATION, *scores.RANKING, "cost")),
    *((NUMBERS, name) for name in scores.REGRESSION),
]


def data_for(task: Task, items: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    if task is CLASSES:
        return some_classes(items, seed=seed)
    if task is BINARY:
        return some_binary(items, seed=seed)
    draw = np.random.default_rng(seed)
    targets = draw.normal(size=(items, 3))
    return targets, targets + 0.3 * draw.normal(size=(items, 3))


@pytest.mark.parametrize(("task", "name"), ALL)
def test_influence_is_what_doubling_an_item_does(task: Task, name: str) -> None:
    labels, outputs = data_for(task)
    found = scores.estimate(task, name, labels, outputs)
    assert found.influence.sum() == pytest.approx(0, abs=1e-9)
    for item in (0, 1, 2, 17, 101):
        more = np.append(np.arange(len(labels)), item)
        changed = value(task, name, labels[more], outputs[more]) - found.value
        assert changed == pytest.approx(found.influence[item], abs=0.15 * np.abs(found.influence).max() + 1e-5)


@pytest.mark.parametrize(("task", "name"), ALL)
def test_spread_of_influence_is_that_of_the_bootstrap(task: Task, name: str) -> None:
    labels, outputs = data_for(task, items=600)
    draw = np.random.default_rng(1)
    rows = [draw.integers(len(labels), size=len(labels)) for _ in range(200)]
    bootstrap = np.std([value(task, name, labels[row], outputs[row]) for row in rows])
    found = scores.estimate(task, name, labels, outputs)
    assert np.sqrt((found.influence**2).sum()) == pytest.approx(bootstrap, rel=0.2)


def test_a_share_gets_wilsons_interval() -> None:
    from scipy.stats import binomtest

    right = np.arange(200) < 187
    expected = binomtest(187, 200).proportion_ci(method="wilson")
    assert scores.interval(scores.mean(right), (0.0, 1.0)) == pytest.approx((expected.low, expected.high))
    labels, outputs = some_classes()
    counts = scores.count(labels, outputs.argmax(axis=1), 7)
    expected = binomtest(int(counts.hits[2]), int(counts.true[2])).proportion_ci(method="wilson")
    found = scores.interval(scores.averaged(counts, "recall", 2), (0.0, 1.0))
    assert found == pytest.approx((expected.low, expected.high))


def test_without_an_error_the_interval_still_has_a_width() -> None:
    labels = np.arange(50) % 2
    low, high = scores.interval(scores.averaged(scores.count(labels, labels, 2), "f1", "macro"), (0.0, 1.0)) or (1, 1)
    assert low < 0.95
    assert high == 1.0


def test_items_of_one_group_count_once() -> None:
    right = np.arange(200) % 4 != 0
    alone = scores.interval(scores.mean(right), (0.0, 1.0))
    same = np.repeat(right, 5)
    grouped = scores.interval(scores.mean(same), (0.0, 1.0), groups=np.repeat(np.arange(200), 5))
    assert alone is not None
    assert grouped == pytest.approx(alone, abs=2e-3)
    assert scores.interval(scores.mean(right), (0.0, 1.0), groups=np.zeros(200)) is None


@pytest.mark.parametrize(("task", "name"), [(CLASSES, "f1_macro"), (BINARY, "pr_auc"), (NUMBERS, "r2")])
def test_intervals_cover_the_truth_about_as_often_as_they_say(task: Task, name: str) -> None:
    truth = value(task, name, *data_for(task, items=200_000, seed=99))
    covered = 0
    for seed in range(200):
        found = scores.interval(scores.estimate(task, name, *data_for(task, 150, seed)), scores.bounds(name))
        covered += found is not None and found[0] <= truth <= found[1]
    assert 0.88 <= covered / 200 <= 0.995


def test_refuses_what_is_not_defined() -> None:
    labels, outputs = some_classes()
    with pytest.raises(BadInput, match="no metric 'f2'"):
        value(CLASSES, "f2", labels, outputs)
    with pytest.raises(BadInput, match="label 9 of item 0"):
        value(CLASSES, "f1", np.full(len(labels), 9), outputs)
    with pytest.raises(BadInput, match="at least two classes"):
        value(CLASSES, "roc_auc", np.zeros_like(labels), outputs)
    with pytest.raises(BadInput, match="positive and negative"):
        value(BINARY, "roc_auc", np.zeros(5, int), np.zeros(5))
    with pytest.raises(BadInput, match="score per class"):
        value(CLASSES, "top5", labels, labels)
    with pytest.raises(BadInput, match="1 values per item"):
        value(NUMBERS, "mse", np.zeros(4), np.zeros((4, 2)))
    with pytest.raises(BadInput, match="all zero"):
        value(NUMBERS, "relative_error", np.zeros(4), np.ones(4))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-2, 2)), min_size=2, max_size=40))
def test_rankings_agree_with_scikit_learn_whatever_is_tied(pairs: list[tuple[bool, int]]) -> None:
    positive, given_scores = np.array([p for p, _ in pairs]), np.array([float(s) for _, s in pairs])
    if positive.all() or not positive.any():
        return
    assert scores.roc_auc(positive, given_scores).value == pytest.approx(
        reference.roc_auc_score(positive, given_scores)
    )
    expected = reference.average_precision_score(positive, given_scores)
    assert scores.pr_auc(positive, given_scores).value == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.integers(1, 5000), st.floats(0.5, 3.5))
def test_wilsons_interval_holds_the_share_and_stays_between_0_and_1(share: float, items: int, quantile: float) -> None:
    low, high = scores.wilson(share, items, quantile)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    wider = scores.wilson(share, items, quantile + 0.5)
    assert wider[0] <= low + 1e-12
    assert high <= wider[1] + 1e-12


@pytest.mark.parametrize(
    ("task", "outputs", "classes"),
    [
        (CLASSES, np.zeros((3, 7)), 7),
        (CLASSES, np.zeros((3, 7, 1, 1)), 7),
        (CLASSES, np.array([0, 4, 1]), 5),
        (Task(classes=("a",) * 9), np.array([0, 4, 1]), 9),
        (BINARY, np.zeros(3), 2),
        (BINARY, np.zeros((3, 1)), 2),
    ],
)
def test_classes_are_as_many_as_the_outputs_or_their_names_say(task: Task, outputs: np.ndarray, classes: int) -> None:
    assert scores.class_count(task, np.array([0, 1, 1]), outputs) == classes


@pytest.mark.parametrize(
    ("labels", "outputs", "message"),
    [
        ([0, -1, -1], np.zeros((3, 4)), r"label -1 of item 1 \(2 such in all\) is none of the model's classes, 0 to 3"),
        ([0, 1, 4], np.zeros((3, 4)), "label 4 of item 2 .*: correct or drop these items, or check --labels"),
        ([0, 1, 2], np.array([0, -2, 1]), "answers class -2, classes count from 0: choose another --output-name"),
        ([0, 1, 2], np.zeros((3, 4, 5)), "needs one score per class, but the output has shape"),
        ([0, 1, 2], np.array([0.5, 0.1, 0.2]), "needs one score per class"),
    ],
)
def test_labels_and_answers_that_are_no_classes_are_named(labels: list[int], outputs: np.ndarray, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        scores.class_count(CLASSES, np.array(labels), outputs)


def test_a_metric_is_known_before_anything_is_measured() -> None:
    for name in (
        *scores.CLASSIFICATION,
        *scores.RANKING,
        *scores.REGRESSION,
        "top5",
        "cost",
        "agreement",
        "own:metric",
    ):
        scores.check_metric(name)
    with pytest.raises(
        BadInput, match=r"no metric 'acuracy': choose one of accuracy, precision, .*, or module:function"
    ):
        scores.check_metric("acuracy")


@pytest.mark.parametrize(("labels", "right"), [([5, 4, 0], [True, True, False]), ([1, 2, 3], [True, True, True])])
def test_of_equal_scores_the_later_classes_are_among_the_five(labels: list[int], right: list[bool]) -> None:
    expected = reference.top_k_accuracy_score(labels, np.zeros((3, 6)), k=5, labels=range(6))
    found = scores.among_five(np.array(labels), np.zeros((3, 6)))
    assert (found.tolist(), found.mean()) == (right, pytest.approx(expected))


def test_bounds_and_directions_follow_from_the_metric() -> None:
    inf = float("inf")
    assert {name: scores.bounds(name) for name in ("f1_macro", "mse", "cost", "r2", "cosine", "own:metric")} == {
        "f1_macro": (0.0, 1.0), "mse": (0.0, inf), "cost": (0.0, inf), "r2": (-inf, 1.0), "cosine": (-1.0, 1.0),
        "own:metric": (-inf, inf),
    }  # fmt: skip
    lower = {name for name in (*scores.CLASSIFICATION, *scores.REGRESSION, "cost") if scores.lower_is_better(name)}
    assert lower == {"mse", "mae", "relative_error", "cost"}


def test_an_interval_is_cut_at_the_bounds_of_its_metric() -> None:
    one_bad = scores.mean(np.r_[np.zeros(9), 100.0])
    low, high = scores.interval(one_bad, scores.bounds("mse")) or (1, 1)
    assert low == 0.0
    assert high == pytest.approx(10 + 1.959964 * np.sqrt((one_bad.influence**2).sum()))


def test_fewer_groups_make_a_wider_interval_by_students_quantile() -> None:
    from scipy.stats import t

    values = np.random.default_rng(0).normal(size=12)
    low, high = scores.interval(scores.mean(values), (-np.inf, np.inf), groups=np.arange(12)) or (0, 0)
    width = t.ppf(0.975, 11) * values.std(ddof=1) / np.sqrt(12)
    assert (low, high) == pytest.approx((values.mean() - width, values.mean() + width))
