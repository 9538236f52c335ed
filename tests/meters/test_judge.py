from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics

from trimtab.core.errors import BadInput
from trimtab.core.values import Goal, NoWorse, Split, Task
from trimtab.data.arrays import save_array
from trimtab.meters.judge import Watch, judge, judged_metric, reference_labels, unlike

Answers = NDArray[Any]
NAMES = ("the variant", "the original")


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., NoWorse]:
    """Judge outputs against labels; keywords go to the task and the goal."""

    def run(
        labels: Answers, original: Answers, outputs: Answers, groups: Answers | None = None, **given: Any
    ) -> NoWorse:
        goal = Goal(max_drop=given.pop("max_drop", 0.01))
        split = saved(tmp_path, labels, groups)
        task = Task(splits=(split,), classes=tuple("abcdefghij"[: given.pop("classes", 3)]), **given)
        return judge(task, split, labels, original, outputs, goal=goal, names=NAMES)

    return run


def saved(folder: Path, labels: Answers | None, groups: Answers | None = None, items: int = 1) -> Split:
    rows = np.arange(items if labels is None else len(labels))
    return Split(
        name="certify",
        inputs=(),
        rows=save_array("rows", folder / "rows.npy", rows),
        labels=None if labels is None else save_array("labels", folder / "labels.npy", labels),
        groups=None if groups is None else save_array("groups", folder / "groups.npy", groups),
    )


def scores(answers: Answers, classes: int = 3, seed: int = 0) -> Answers:
    """Return scores whose highest one is the answer, otherwise random."""
    made = np.random.default_rng(seed).random((len(answers), classes))
    made[np.arange(len(answers)), answers] += 1
    return made.astype(np.float32)


def wrong(labels: Answers, rows: slice | list[int] | Answers, classes: int = 3) -> Answers:
    """Return the labels with those of some rows turned into another class."""
    changed = labels.copy()
    changed[rows] = (changed[rows] + 1) % classes
    return changed


LABELS = np.random.default_rng(0).integers(0, 3, 600)
OLD = scores(wrong(LABELS, slice(0, 30)))
NEW = scores(wrong(LABELS, np.r_[10:30, 100:115]))  # 10 items mended, 15 spoilt


def test_accuracy_is_counted_item_by_item(judged):
    found = judged(LABELS, OLD, NEW)
    assert (found.items, found.groups, found.better, found.worse, found.flips) == (600, 600, 10, 15, 25)
    assert found.difference == pytest.approx(
        metrics.accuracy_score(LABELS, NEW.argmax(1)) - metrics.accuracy_score(LABELS, OLD.argmax(1))
    )
    assert (found.metric, found.variant, found.baseline) == ("accuracy", *NAMES)
    assert "Tango" in found.method
    assert found.low < found.difference < found.high


def test_equal_answers_prove_what_the_number_of_items_can_and_no_more(judged):
    assert judged(LABELS, OLD, OLD).proven
    few = judged(LABELS[:200], OLD[:200], OLD[:200])
    assert not few.proven
    assert few.reason == "not proven on 200 items: at least 299 would be needed"
    assert few.needed is not None
    assert few.needed >= 299


def test_a_clear_loss_is_told_in_points(judged):
    found = judged(LABELS, OLD, scores(wrong(LABELS, slice(0, 120))))
    assert not found.proven
    assert found.reason == "loses 15 pt of accuracy on 600 items, allowed are 1 pt"


def test_without_a_limit_nothing_is_proven_but_the_difference_is_told(judged):
    found = judged(LABELS, OLD, NEW, max_drop=None)
    assert not found.proven
    assert found.difference == pytest.approx(-5 / 600)


@pytest.mark.parametrize("positive", [0, 1])
def test_binary_recall_looks_at_the_items_of_the_positive_class_only(judged, positive):
    labels = (LABELS == 0).astype(np.int64)
    old, new = (scores(wrong(labels, rows, 2), 2) for rows in (slice(0, 40), slice(20, 80)))
    found = judged(labels, old, new, kind="binary", metric="recall", positive=positive, classes=2)
    recalls = [metrics.recall_score(labels, given.argmax(1), pos_label=positive) for given in (old, new)]
    assert found.difference == pytest.approx(recalls[1] - recalls[0])
    assert found.items == np.count_nonzero(labels == positive)
    assert "Tango" in found.method


def test_recall_without_an_item_of_the_positive_class_proves_nothing(judged):
    labels = np.zeros(50, dtype=np.int64)
    found = judged(labels, scores(labels, 2), scores(labels, 2), kind="binary", metric="recall", classes=2)
    assert (found.items, found.groups, found.difference, found.proven) == (0, 0, 0.0, False)
    assert found.low < -0.5
    assert found.reason == "not proven on 0 positive items: at least 299 would be needed"


class TestTooFew:
    """What an unseen input may lose has no bound: a proof takes a number of items, however alike the answers."""

    @pytest.mark.parametrize("metric", ["mse", "mae", "relative_error", "cosine"])
    @pytest.mark.parametrize("items", [1, 5, 58, 59])
    def test_a_few_unchanged_numbers_prove_nothing(self, judged, metric, items):
        labels = np.random.default_rng(0).normal(size=(items, 4)) + 3
        found = judged(labels, labels * 1.1, labels * 1.1, kind="regression", metric=metric, max_drop=0.05)
        assert (found.difference, found.proven) == (0.0, items == 59)
        if items < 59:
            assert found.reason == f"not proven on {items} items: at least 59 would be needed"
            assert found.needed == 59

    @pytest.mark.parametrize("groups", [1, 6, 60])
    def test_items_of_one_group_are_one(self, judged, groups):
        labels, numbers = np.random.default_rng(0).normal(size=(600, 2)), np.arange(600) % groups
        found = judged(labels, labels + 0.1, labels + 0.1, numbers, kind="regression", metric="mae", max_drop=0.05)
        assert found.proven == (groups == 60)
        if groups < 60:
            assert found.reason == f"not proven on 600 items in {groups} groups: at least 59 groups would be needed"

    def test_a_metric_of_ones_own_that_never_changes_is_no_exception(self, judged, tmp_path, monkeypatch):
        (tmp_path / "constant_metric.py").write_text("def one(labels, outputs):\n    return 1.0\n")
        monkeypatch.chdir(tmp_path)
        labels = np.arange(8.0)
        assert not judged(labels, labels, labels, kind="regression", metric="constant_metric:one", max_drop=0.5).proven

    def test_the_positive_items_are_what_recall_counts(self, judged):
        labels = (np.arange(2000) % 20 == 0).astype(np.int64)
        found = judged(labels, scores(labels, 2), scores(labels, 2), kind="binary", metric="recall", classes=2)
        assert found.reason == "not proven on 100 positive items: at least 299 would be needed"

    def test_what_would_decide_is_told_in_groups(self, judged):
        labels, old = np.repeat(LABELS, 5), np.repeat(OLD, 5, axis=0)
        new = np.repeat(scores(wrong(LABELS, np.r_[12:30, 100:112])), 5, axis=0)
        grouped = judged(labels, old, new, np.repeat(np.arange(600), 5))
        alone = judged(LABELS, OLD, new[::5])
        assert grouped.needed == alone.needed
        assert grouped.reason == f"not proven on 3000 items in 600 groups: about {alone.needed:,} groups would decide"
        assert alone.reason == f"not proven on 600 items: about {alone.needed:,} would decide"


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        ("f1", lambda t, y: metrics.f1_score(t, y, average="macro")),
        ("f1_macro", lambda t, y: metrics.f1_score(t, y, average="macro")),
        ("f1_weighted", lambda t, y: metrics.f1_score(t, y, average="weighted")),
        ("precision_macro", lambda t, y: metrics.precision_score(t, y, average="macro")),
        ("recall_macro", lambda t, y: metrics.recall_score(t, y, average="macro")),
        ("f1_micro", lambda t, y: metrics.f1_score(t, y, average="micro")),
        ("accuracy_macro", metrics.balanced_accuracy_score),
        ("accuracy_weighted", metrics.accuracy_score),
    ],
)
def test_tallied_metrics_are_those_of_scikit_learn(judged, metric, reference):
    found = judged(LABELS, OLD, NEW, metric=metric, max_drop=0.03)
    truth = reference(LABELS, NEW.argmax(1)) - reference(LABELS, OLD.argmax(1))
    assert found.difference == pytest.approx(truth, abs=1e-9)
    assert found.low < found.difference <= found.high


def f1_by_hand(truth: Answers, answers: Answers) -> float:
    counts = (np.bincount(given, minlength=3) for given in (truth[truth == answers], truth, answers))
    hits, true, given = counts
    return float(np.mean(2 * hits / (true + given)))


def test_the_interval_of_f1_is_that_of_a_plain_bootstrap_and_a_little_wider(judged):
    found = judged(LABELS, OLD, NEW, metric="f1_macro", max_drop=0.03)
    rng, drawn = np.random.default_rng(1), []
    for _ in range(1000):
        rows = rng.integers(0, 600, 600)
        drawn.append(np.subtract(*(f1_by_hand(LABELS[rows], y[rows].argmax(1)) for y in (NEW, OLD))))
    low, high = np.quantile(drawn, [0.05, 0.95])
    width = high - low
    assert found.high == pytest.approx(high, abs=0.15 * width)
    assert low - 0.6 * width < found.low <= low + 0.15 * width, "what was not seen is added"


def test_roc_auc_is_that_of_scikit_learn(judged):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 400)
    old, new = (1 / (1 + np.exp(-(labels * 2 - 1 + rng.normal(size=400) * scale))) for scale in (1.0, 1.5))
    found = judged(labels, old, new, kind="binary", metric="roc_auc", classes=2)
    assert found.difference == pytest.approx(metrics.roc_auc_score(labels, new) - metrics.roc_auc_score(labels, old))
    assert found.method == "paired bootstrap (BCa)"
    assert not found.proven
    proba = [given / given.sum(1, keepdims=True) for given in (OLD, NEW)]
    many = judged(LABELS, *proba, metric="roc_auc")
    truth = [metrics.roc_auc_score(LABELS, p, multi_class="ovr", average="macro") for p in proba]
    assert many.difference == pytest.approx(truth[1] - truth[0], abs=1e-9)


def test_top5_counts_the_items_whose_label_is_among_the_five_highest(judged):
    labels = np.random.default_rng(3).integers(0, 10, 500)
    old, new = (np.random.default_rng(seed).random((500, 10)) for seed in (4, 5))
    found = judged(labels, old, new, metric="top5", classes=10)
    accuracy = [metrics.top_k_accuracy_score(labels, given, k=5, labels=range(10)) for given in (old, new)]
    assert found.difference == pytest.approx(accuracy[1] - accuracy[0])
    assert "Tango" in found.method


@pytest.mark.parametrize("metric", ["mse", "mae", "r2", "cosine", "relative_error"])
def test_numbers_are_judged_by_scikit_learn_or_brute_force_and_less_error_is_better(judged, metric):
    rng = np.random.default_rng(6)
    labels = rng.normal(size=(300, 4))
    old, new = labels + rng.normal(size=(300, 4)) * 0.1, labels + rng.normal(size=(300, 4)) * 0.12
    references = {
        "mse": lambda y: -metrics.mean_squared_error(labels, y),
        "mae": lambda y: -metrics.mean_absolute_error(labels, y),
        "cosine": lambda y: np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(labels, y)]),  # noqa: B905 # brute force
        "r2": lambda y: metrics.r2_score(labels, y),
        "relative_error": lambda y: -np.linalg.norm(y - labels) / np.linalg.norm(labels),
    }
    found = judged(labels, old, new, kind="regression", metric=metric, max_drop=0.5)
    assert found.difference == pytest.approx(references[metric](new) - references[metric](old), abs=1e-9)
    assert found.difference < 0, "the new one is worse"
    assert found.proven
    assert found.flips == 0
    assert not judged(labels, old, new, kind="regression", metric=metric, max_drop=1e-5).proven


def test_a_loss_of_a_number_is_not_told_in_points(judged):
    labels = np.zeros(100)
    found = judged(labels, labels + 0.1, labels + 2.0, kind="regression", metric="mse", max_drop=0.5)
    assert found.reason == "loses 3.99 of mse on 100 items, allowed are 0.5"


def test_labels_of_another_width_than_the_outputs_are_refused(judged):
    with pytest.raises(BadInput, match="the labels have 1 values per item and the model's outputs 4"):
        judged(np.zeros(50), np.zeros((50, 4)), np.zeros((50, 4)), kind="regression", metric="mse")


def test_costs_count_misses_and_false_alarms_and_what_was_not_seen(judged):
    labels = (np.arange(400) % 4 == 0).astype(np.int64)
    old = scores(labels, 2)
    new = scores(wrong(labels, [0, 4, 1, 2, 3], 2), 2)  # 2 misses, 3 false alarms
    task = {"kind": "binary", "metric": "cost", "costs": (10.0, 1.0), "classes": 2}
    assert judged(labels, old, new, max_drop=0.9, **task).difference == pytest.approx(-(2 * 10 + 3 * 1) / 400)
    unchanged = judged(labels, old, old, max_drop=0.05, **task)
    assert (unchanged.difference, unchanged.proven) == (0.0, False), "100 positives can't rule out a rare miss"
    assert unchanged.low == pytest.approx(-10 * 0.25 * -np.log(0.05) / 100)
    assert judged(labels, old, old, max_drop=0.1, **task).proven


def test_items_of_a_group_count_as_one(judged):
    labels, old, new = (np.repeat(array[:300], 5, axis=0) for array in (LABELS, OLD, NEW))
    plain = judged(LABELS[:300], OLD[:300], NEW[:300], max_drop=0.1)
    grouped = judged(labels, old, new, groups=np.repeat(np.arange(300), 5), max_drop=0.1)
    assert (grouped.items, grouped.groups) == (1500, 300)
    assert (grouped.low, grouped.high) == pytest.approx((plain.low, plain.high))
    lumped = judged(labels, old, new, groups=np.repeat(np.arange(300), 5), metric="f1_macro", max_drop=0.1)
    single = judged(LABELS[:300], OLD[:300], NEW[:300], metric="f1_macro", max_drop=0.1)
    assert (lumped.low, lumped.high) == pytest.approx((single.low, single.high), abs=0.01)


def test_the_worst_class_comes_first_and_harm_beyond_chance_is_named(judged):
    rows = np.flatnonzero(LABELS == 2)[:40]
    found = judged(LABELS, scores(LABELS), scores(wrong(LABELS, rows)), max_drop=0.4)
    assert [reading.place for reading in found.harmed] == ["c"]
    assert found.harmed[0].value == pytest.approx(-40 / np.count_nonzero(LABELS == 2))
    assert found.harmed[0].scope.startswith("harmed beyond chance")
    slightly = judged(LABELS, OLD, NEW)
    assert {"not beyond chance"} == {reading.scope.split(" (")[0] for reading in slightly.harmed}


def test_without_labels_likeness_to_the_original_is_judged(tmp_path):
    split = saved(tmp_path, None, items=600)
    task = Task(splits=(split,), classes=("a", "b", "c"))
    assert judged_metric(task) == "agreement"
    labels = reference_labels(task, split, OLD)
    assert np.array_equal(labels, OLD.argmax(1))
    found = judge(task, split, labels, OLD, NEW, goal=Goal(max_drop=0.06), names=NAMES)
    assert (found.metric, found.difference, found.flips) == ("agreement", pytest.approx(-25 / 600), 25)
    assert found.proven
    regression = Task(splits=(split,), kind="embedding", metric="cosine")
    assert judged_metric(regression) == "cosine"
    assert reference_labels(regression, split, OLD) is OLD


class TestWatch:
    """It looks at the answers as they come."""

    @staticmethod
    def looking(tmp_path: Path, max_drop: float | None = 0.01, **given: Any) -> Watch:
        split = saved(tmp_path, LABELS)
        return Watch(Task(splits=(split,), classes=("a", "b", "c"), **given), LABELS, OLD, max_drop)

    @staticmethod
    def fed(watch: Watch, outputs: Answers, batch: int = 50) -> tuple[int, str | None]:
        for start in range(0, len(outputs), batch):
            rows = slice(start, start + batch)
            if (reason := watch.add(rows, outputs[rows])) is not None:
                return start + batch, reason
        return len(outputs), None

    def test_gives_up_a_candidate_that_is_clearly_worse_before_all_items_are_seen(self, tmp_path):
        bad = scores(wrong(LABELS, np.arange(0, 600, 4)))
        seen, reason = self.fed(self.looking(tmp_path), bad)
        assert seen < 600
        assert reason is not None
        lost = float(np.mean(OLD[:seen].argmax(1) == LABELS[:seen]) - np.mean(bad[:seen].argmax(1) == LABELS[:seen]))
        assert reason == f"loses about {100 * lost:.1f} pt of accuracy (seen on {seen} items, allowed 1 pt)"

    def test_never_gives_up_the_original_itself(self, tmp_path):
        assert self.fed(self.looking(tmp_path), OLD) == (600, None)

    def test_clears_a_candidate_with_the_same_answers_before_all_items_are_seen(self, tmp_path):
        watch = self.looking(tmp_path, max_drop=0.02)
        seen = next(
            start + 50
            for start in range(0, 600, 50)
            if watch.add(slice(start, start + 50), OLD[start : start + 50]) or watch.clear
        )
        assert 250 <= seen <= 400

    def test_never_clears_without_a_limit_or_one_that_is_worse(self, tmp_path):
        free, bad = self.looking(tmp_path, max_drop=None), scores(wrong(OLD.argmax(axis=1), np.arange(0, 600, 40)))
        strict = self.looking(tmp_path)
        free.add(slice(0, 600), OLD)
        strict.add(slice(0, 600), bad)
        assert not free.clear
        assert not strict.clear

    def test_bets_on_nothing_without_a_limit_or_where_the_metric_is_no_share(self, tmp_path):
        bad = scores(wrong(LABELS, slice(None)))
        assert self.fed(self.looking(tmp_path, max_drop=None), bad) == (600, None)
        assert self.fed(self.looking(tmp_path, metric="f1_macro"), bad) == (600, None)

    def test_recall_stands_batches_without_a_positive_item(self, tmp_path):
        labels = np.r_[np.zeros(100, np.int64), np.ones(100, np.int64)]
        split = saved(tmp_path, labels)
        task = Task(splits=(split,), kind="binary", metric="recall", classes=("no", "yes"))
        watch = Watch(task, labels, scores(labels, 2), 0.01)
        seen, reason = self.fed(watch, scores(np.zeros(200, np.int64), 2), batch=20)
        assert seen > 100
        assert reason is not None

    @staticmethod
    def given_up(sizes: Answers, risks: Answers, *, told: bool, trials: int = 300) -> float:
        """The share of candidates given up that lose whole groups of those sizes, each at its risk, 5 % at most."""
        rng, given_up = np.random.default_rng(5), 0
        for _ in range(trials):
            order = rng.permutation(len(sizes))
            groups = np.repeat(order, sizes[order])
            labels = rng.integers(0, 3, len(groups))
            new = scores(np.where((rng.random(len(sizes)) < risks)[groups], (labels + 1) % 3, labels))
            watch = Watch(Task(classes=("a", "b", "c")), labels, scores(labels), 0.05, groups if told else None)
            given_up += any(watch.add(slice(i, i + 50), new[i : i + 50]) for i in range(0, len(groups), 50))
        return given_up / trials

    @pytest.mark.parametrize(
        ("sizes", "risks"),
        [
            (np.full(40, 25), np.full(40, 0.05)),
            (np.repeat([2, 18], 20), np.repeat([0.5, 0.0], 20)),  # of the groups a quarter are lost, of the items 5 %
        ],
    )
    def test_innocent_candidates_that_lose_whole_groups_are_given_up_at_most_at_the_risk(self, sizes, risks):
        assert self.given_up(sizes, risks, told=True) <= 0.05

    def test_items_taken_one_by_one_would_give_up_innocent_candidates_that_lose_whole_groups(self):
        assert self.given_up(np.full(40, 25), np.full(40, 0.05), told=False) > 0.15

    def test_gives_up_by_groups_whatever_the_size_of_the_batches(self):
        groups = np.repeat(np.random.default_rng(2).permutation(120), 5)
        task, bad = Task(classes=("a", "b", "c")), scores(wrong(LABELS, groups % 3 == 0))
        watches = [Watch(task, LABELS, OLD, 0.01, groups) for _ in range(2)]
        seen, reason = self.fed(watches[0], bad, batch=1)
        assert reason is not None
        assert re.search(rf"seen on {seen} items in {seen // 5} groups, allowed 1 pt", reason)
        assert seen <= self.fed(watches[1], bad, batch=7)[0] < seen + 7

    def test_a_group_counts_when_all_its_items_were_seen(self):
        groups = np.arange(600) % 2  # spread over all batches, so that neither ends before the last one
        watch = Watch(Task(classes=("a", "b", "c")), LABELS, OLD, 0.01, groups)
        assert self.fed(watch, scores(wrong(LABELS, slice(None)))) == (600, None), "two values are no evidence"


OWN = """
import numpy as np

def f1(labels, outputs):
    given = outputs.argmax(axis=1)
    scores = []
    for number in range(3):
        hits = np.sum((labels == number) & (given == number))
        size = np.sum(labels == number) + np.sum(given == number)
        scores.append(2 * hits / size if size else 0.0)
    return np.mean(scores)

def right(labels, outputs):
    return np.mean(outputs.argmax(axis=1) == labels)

def near(labels, outputs):
    return np.mean(np.abs(labels - outputs.ravel()) < 0.5)

def strict(labels, outputs):
    raise ValueError("no such thing")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of a user who counts for himself."""
    (tmp_path / "own_judgement.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return "own_judgement"


class TestUnseenHarm:
    """Ten equal answers prove nothing: what could go wrong without one of these items showing it is added."""

    def test_a_metric_of_ones_own_is_judged_like_the_same_metric_of_ours(self, judged, own):
        ours, theirs = (judged(LABELS, OLD, NEW, metric=name, max_drop=0.03) for name in ("f1_macro", f"{own}:f1"))
        assert theirs.difference == pytest.approx(ours.difference)
        assert (theirs.low, theirs.high) == pytest.approx((ours.low, ours.high), abs=0.004)

    @pytest.mark.parametrize("items", [150, 290])
    def test_equal_answers_are_as_far_from_proof_by_ones_own_metric_as_by_ours(self, judged, own, items):
        given = [array[:items] for array in (LABELS, OLD, OLD)]
        ours, theirs = (judged(*given, metric=name) for name in ("f1_macro", f"{own}:f1"))
        assert (ours.proven, theirs.proven) == (False, False)
        assert theirs.low == pytest.approx(ours.low, rel=0.25)
        assert judged(*given, metric=f"{own}:f1", max_drop=-1.3 * theirs.low).proven

    @pytest.mark.parametrize(
        ("metric", "kind"),
        [("roc_auc", "classification"), ("pr_auc", "classification"), ("own_judgement:right", "classification"),
         ("own_judgement:near", "regression"), ("recall_macro", "classification"), ("cost", "binary"),
         ("roc_auc", "binary"), ("precision", "binary")],
    )  # fmt: skip
    def test_ten_equal_answers_prove_nothing(self, judged, own, metric, kind):
        labels = np.arange(10) % (2 if kind == "binary" else 3)
        outputs = (
            labels[:, None].astype(float) if kind == "regression" else scores(labels, 2 if kind == "binary" else 3)
        )
        found = judged(labels, outputs, outputs, kind=kind, metric=metric, costs=(1.0, 1.0), max_drop=0.05)
        assert (found.difference, found.proven) == (0.0, False)
        assert found.needed is not None
        assert found.needed > 30

    def test_items_of_one_group_show_no_more_than_one_item(self, judged, own):
        labels, outputs = np.repeat(np.arange(30) % 3, 20), scores(np.repeat(np.arange(30) % 3, 20))
        for metric in (f"{own}:right", "roc_auc"):
            alone = judged(labels, outputs, outputs, metric=metric)
            grouped = judged(labels, outputs, outputs, np.repeat(np.arange(30), 20), metric=metric)
            assert grouped.groups == 30
            assert grouped.low < 5 * alone.low < 0

    def test_a_single_class_can_show_no_more_than_its_share(self, judged, own):
        labels = np.zeros(60, np.int64)
        found = judged(labels, scores(labels), scores(labels), metric=f"{own}:right")
        assert found.low == pytest.approx(np.log(0.05) / 60)

    def test_what_a_metric_of_ones_own_raises_is_one_clear_line(self, judged, own):
        with pytest.raises(BadInput, match="strict failed: ValueError: no such thing; mend it"):
            judged(LABELS, OLD, NEW, metric=f"{own}:strict")

    def test_errors_measured_on_every_item_need_no_bound(self, judged):
        labels = np.random.default_rng(0).normal(size=300)
        assert judged(labels, labels + 0.1, labels + 0.1, kind="regression", metric="mae").low == 0.0


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro", "top5", "roc_auc"])
def test_a_label_that_no_class_bears_is_named_with_its_item(judged, metric):
    labels = LABELS.copy()
    labels[[41, 97]] = -1
    with pytest.raises(BadInput, match=r"label -1 of item 41 \(2 such in all\).*classes, 0 to 2: correct or drop"):
        judged(labels, OLD, NEW, metric=metric)


def test_answers_below_zero_are_no_classes(judged):
    with pytest.raises(BadInput, match="the model answers class -1, classes count from 0"):
        judged(LABELS, LABELS, np.where(LABELS == 2, -1, LABELS))


def test_a_metric_that_some_resamples_do_not_define_is_one_clear_line(judged):
    labels = np.array([1.0, 2.0, 3.0])
    with pytest.raises(BadInput, match=r"r2 of 3 items can't be judged: .* give more items"):
        judged(labels, labels, labels + 0.1, kind="regression", metric="r2")


def test_class_numbers_as_answers_are_judged_like_scores(judged):
    found, expected = judged(LABELS, OLD.argmax(1), NEW.argmax(1)), judged(LABELS, OLD, NEW)
    assert (found.difference, found.low, found.high) == (expected.difference, expected.low, expected.high)


def test_the_readings_of_harm_bear_the_names_of_the_classes(tmp_path):
    rows = np.flatnonzero(LABELS == 1)[:60]
    split = saved(tmp_path, LABELS)
    task = Task(splits=(split,), classes=("größe", "日本", "c"))
    found = judge(task, split, LABELS, OLD, scores(wrong(LABELS, rows)), goal=Goal(), names=NAMES)
    assert "日本" in {reading.place for reading in found.harmed}


class TestUnlike:
    """What can be said of outputs without any data."""

    GIVEN = np.random.default_rng(0).normal(size=(2, 10)).astype(np.float32)

    @pytest.mark.parametrize(
        ("outputs", "words"),
        [
            (GIVEN * np.nan, "'y' holds NaN or infinity for made-up inputs, the baseline's doesn't"),
            (GIVEN * np.inf, "NaN or infinity"),
            (GIVEN * 0, "is 100 % off the baseline's"),
            (-GIVEN, "is 200 % off the baseline's"),
            (np.random.default_rng(1).normal(size=(2, 10)), r"is 1\d\d % off the baseline's"),
            (GIVEN[:, :9], r"has shape \(2, 9\) for made-up inputs, the baseline's \(2, 10\)"),
        ],
    )
    def test_what_is_broken_is_told(self, outputs: Answers, words: str) -> None:
        with np.errstate(all="ignore"):
            found = unlike({"z": outputs}, {"y": self.GIVEN})
        assert found is not None
        assert re.search(words, found)

    def test_rounding_even_that_of_int8_is_let_through(self) -> None:
        noise = np.random.default_rng(2).normal(size=self.GIVEN.shape)
        assert unlike({"y": self.GIVEN}, {"y": self.GIVEN}) is None
        assert unlike({"y": (self.GIVEN + 0.3 * noise).astype(np.float16)}, {"y": self.GIVEN}) is None

    def test_what_the_original_does_not_have_finite_tells_nothing(self) -> None:
        masked = np.where(np.arange(10) < 5, -np.inf, self.GIVEN).astype(np.float32)
        assert unlike({"y": masked}, {"y": masked}) is None
        assert unlike({"y": np.where(np.isinf(masked), np.nan, masked)}, {"y": masked}) is None
        assert unlike({"y": np.where(np.isinf(masked), masked, 0)}, {"y": masked}) is not None

    def test_whole_numbers_tell_nothing(self) -> None:
        assert unlike({"y": np.array([3])}, {"y": np.array([4])}) is None
