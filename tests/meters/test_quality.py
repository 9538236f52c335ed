from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from trimtab.core.errors import BadInput
from trimtab.core.values import Reading, Split, Task, Workload
from trimtab.meters.quality import QualityMeter, chance_warnings, quality_readings, tune_threshold, tuned

CLASSES = Task(classes=("cat", "dog", "owl"))
BINARY = Task(kind="binary", classes=("ham", "spam"), metric="f1")


@pytest.fixture
def three() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    labels = draw.integers(3, size=120)
    outputs = draw.normal(size=(120, 3))
    outputs[np.arange(120), labels] += 1
    return labels, outputs


def find(readings: list[Reading], name: str, place: str | None = None) -> Reading:
    (found,) = [reading for reading in readings if reading.name == name and reading.place == place]
    return found


def test_every_stable_name_of_a_classification_is_read_with_an_interval(three: Any) -> None:
    readings = quality_readings(CLASSES, *three)
    assert {reading.name for reading in readings} == {
        "accuracy", "precision", "recall", "f1", "accuracy_macro", "accuracy_micro", "accuracy_weighted",
        "precision_macro", "recall_macro", "f1_macro", "precision_micro",
        "recall_micro", "f1_micro", "precision_weighted", "recall_weighted", "f1_weighted", "roc_auc", "pr_auc",
        "confusion_matrix",
    }  # fmt: skip
    for reading in readings:
        assert reading.value is not None
        assert reading.low is not None
        assert reading.high is not None
        assert reading.low <= reading.value <= reading.high
        assert reading.samples == 120


def test_readings_of_a_class_carry_its_name(three: Any) -> None:
    labels, outputs = three
    expected = reference.recall_score(labels, outputs.argmax(axis=1), average=None)
    readings = quality_readings(CLASSES, labels, outputs)
    for number, name in enumerate(CLASSES.classes):
        assert find(readings, "recall", name).value == pytest.approx(expected[number])


def test_the_accuracy_of_a_class_is_that_of_its_items_and_their_mean_is_the_balanced_one(three: Any) -> None:
    labels, outputs = three
    readings = quality_readings(CLASSES, labels, outputs)
    given = outputs.argmax(axis=1)
    by_class = [find(readings, "accuracy", name).value for name in CLASSES.classes]
    assert by_class == pytest.approx([(given[labels == number] == number).mean() for number in range(3)])
    balanced = reference.balanced_accuracy_score(labels, given)
    assert find(readings, "accuracy_macro").value == pytest.approx(balanced)
    assert balanced == pytest.approx(np.mean(by_class))
    plain = find(readings, "accuracy")
    for average in ("micro", "weighted"):
        found = find(readings, f"accuracy_{average}")
        assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high))
    assert find(quality_readings(CLASSES, np.array([0, 0, 1]), np.eye(3)[[0, 1, 1]]), "accuracy", "owl").value is None


def test_the_confusion_matrix_has_a_reading_per_cell_that_is_not_empty() -> None:
    labels, given = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 2])
    readings = quality_readings(CLASSES, labels, np.eye(3)[given])
    cells = {reading.place: reading.value for reading in readings if reading.name == "confusion_matrix"}
    assert cells == {"cat→cat": 1, "cat→dog": 1, "dog→dog": 1, "owl→owl": 2}


def test_what_is_not_defined_is_unavailable_not_zero() -> None:
    readings = quality_readings(CLASSES, np.array([0, 0, 0]), np.eye(3)[[0, 0, 1]])
    assert find(readings, "recall", "owl").value is None
    assert find(readings, "precision", "owl").scope == "no item is answered so"
    assert find(readings, "roc_auc").provenance == "unavailable"
    assert find(readings, "accuracy").value == pytest.approx(2 / 3)


def test_top5_appears_with_more_than_five_classes() -> None:
    labels, outputs = np.arange(8), np.eye(8)
    assert find(quality_readings(Task(), labels, outputs), "top5").value == 1.0


def test_class_numbers_as_outputs_can_be_judged_too() -> None:
    readings = quality_readings(CLASSES, np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1]))
    assert find(readings, "accuracy").value == 0.75
    assert not [reading for reading in readings if reading.name == "roc_auc"]


def test_cost_is_read_when_it_is_known() -> None:
    task = replace(BINARY, costs=(10.0, 1.0))
    labels, outputs = np.array([1, 1, 0, 0]), np.array([0.1, 0.9, 0.8, 0.2])
    cost = find(quality_readings(task, labels, outputs), "cost")
    assert (cost.value, cost.direction) == (11 / 4, "lower")
    assert cost.low == 0.0 or cost.low is not None


def test_regression_is_read_by_its_errors() -> None:
    targets = np.array([1.0, 2.0, 3.0, 5.0])
    readings = quality_readings(Task(kind="regression", metric="mse"), targets, targets[:, None] + 1)
    assert {reading.name: reading.value for reading in readings} == {
        "mse": 1.0,
        "mae": 1.0,
        "r2": pytest.approx(reference.r2_score(targets, targets + 1)),
        "relative_error": pytest.approx(2 / np.sqrt(39)),
    }
    assert find(readings, "mse").direction == "lower"
    assert find(readings, "r2").direction == "higher"


def test_without_labels_there_is_likeness_to_the_original(three: Any) -> None:
    _, original = three
    changed = np.roll(original, 1, axis=1)
    changed[:90] = original[:90]
    (reading,) = quality_readings(CLASSES, None, changed, original)
    assert (reading.name, reading.value) == ("agreement", 0.75)
    vectors = quality_readings(Task(kind="embedding"), None, 2 * original, original)
    assert {reading.name: reading.value for reading in vectors} == {
        "relative_error": pytest.approx(1.0),
        "cosine": pytest.approx(1.0),
    }
    assert "against the original" in vectors[0].scope


def test_agreement_is_symmetric(three: Any) -> None:
    labels, outputs = three
    other = np.eye(3)[labels]
    both = (quality_readings(CLASSES, None, *pair) for pair in ((outputs, other), (other, outputs)))
    assert len({reading.value for (reading,) in both}) == 1


def test_groups_widen_intervals_when_their_items_are_alike(three: Any) -> None:
    labels, outputs = (np.repeat(array, 4, axis=0) for array in three)
    alone = find(quality_readings(CLASSES, labels, outputs), "accuracy")
    grouped = find(quality_readings(CLASSES, labels, outputs, groups=np.repeat(np.arange(120), 4)), "accuracy")
    assert alone.value == grouped.value
    widths = [reading.high - reading.low for reading in (alone, grouped)]  # type: ignore[operator]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.05)


def test_refuses_labels_of_another_length_or_class(three: Any) -> None:
    labels, outputs = three
    with pytest.raises(BadInput, match="119 labels for 120 answers"):
        quality_readings(CLASSES, labels[1:], outputs)
    with pytest.raises(BadInput, match=r"label 3 of item \d+ .* none of the model's classes, 0 to 2: correct or drop"):
        quality_readings(CLASSES, labels + 1, outputs)


def test_a_metric_of_the_users_own_is_read(three: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_metric.py").write_text(
        "def right(labels, outputs):\n    return (outputs.argmax(axis=1) == labels).mean()\n"
        "def broken(labels, outputs):\n    return float('nan')\n"
        "def wordy(labels, outputs):\n    return 'good'\n"
    )
    monkeypatch.chdir(tmp_path)
    labels, outputs = three
    readings = quality_readings(replace(CLASSES, metric="own_metric:right"), labels, outputs)
    own, accuracy = find(readings, "own_metric:right"), find(readings, "accuracy")
    assert own.value == accuracy.value
    assert (own.low, own.high) == (pytest.approx(accuracy.low, abs=0.04), pytest.approx(accuracy.high, abs=0.04))
    grouped = quality_readings(
        replace(CLASSES, metric="own_metric:right"), labels, outputs, groups=np.arange(120) // 40
    )
    assert find(grouped, "own_metric:right").value == accuracy.value
    with pytest.raises(BadInput, match="returned nan"):
        quality_readings(replace(CLASSES, metric="own_metric:broken"), labels, outputs)
    with pytest.raises(BadInput, match="returned 'good': return one number"):
        quality_readings(replace(CLASSES, metric="own_metric:wordy"), labels, outputs)


def brute_force(task: Task, labels: np.ndarray, scores: np.ndarray, merit: Callable[..., float]) -> float:
    """The best merit that any threshold reaches."""
    edges = [*np.unique(scores), 1.5]
    return max(merit(labels, (scores >= edge).astype(int)) for edge in edges)


@pytest.mark.parametrize(
    ("task", "merit"),
    [
        (BINARY, lambda y, p: reference.f1_score(y, p, zero_division=0)),
        (replace(BINARY, metric="accuracy"), reference.accuracy_score),
        (replace(BINARY, metric="accuracy_macro"), reference.balanced_accuracy_score),
        (replace(BINARY, metric="recall"), lambda y, p: reference.fbeta_score(y, p, beta=2, zero_division=0)),
        (replace(BINARY, metric="precision"), lambda y, p: reference.fbeta_score(y, p, beta=0.5, zero_division=0)),
        (
            replace(BINARY, costs=(10.0, 1.0)),
            lambda y, p: -(10.0 * np.sum((y == 1) & (p == 0)) + np.sum((y == 0) & (p == 1))),
        ),
    ],
)
def test_no_threshold_serves_better_than_the_tuned_one(task: Task, merit: Callable[..., float]) -> None:
    draw = np.random.default_rng(3)
    labels = (draw.random(200) < 0.3).astype(int)
    scores = np.round(np.clip(0.3 + 0.3 * labels + 0.2 * draw.normal(size=200), 0, 1), 2)
    tuned = tune_threshold(task, labels, scores)
    assert merit(labels, (scores >= tuned).astype(int)) == pytest.approx(brute_force(task, labels, scores, merit))


def test_a_costly_miss_lowers_the_threshold() -> None:
    draw = np.random.default_rng(3)
    labels = (draw.random(500) < 0.3).astype(int)
    scores = np.clip(0.3 + 0.3 * labels + 0.2 * draw.normal(size=500), 0, 1)
    cautious = tune_threshold(replace(BINARY, costs=(20.0, 1.0)), labels, scores)
    relaxed = tune_threshold(replace(BINARY, costs=(1.0, 20.0)), labels, scores)
    assert cautious < relaxed


def test_equally_good_thresholds_stay_near_the_middle() -> None:
    assert 0.2 < tune_threshold(BINARY, np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.9, 0.95])) < 0.9
    with pytest.raises(BadInput, match="only a binary task"):
        tune_threshold(CLASSES, np.zeros(3), np.zeros(3))


def test_the_meter_answers_only_its_own_split(fakes: Any, split: Callable[..., Split]) -> None:
    select = split(np.eye(3, dtype=np.float32)[[0, 1, 2, 1]], labels=np.array([0, 1, 2, 2]))
    certify = split(np.eye(3, dtype=np.float32), labels=np.array([1, 1, 1]), name="certify")
    task, variant = replace(CLASSES, splits=(select, certify)), fakes.variant()
    session = fakes.session(variant)
    readings = QualityMeter().read(session, variant, task, Workload(batch=4))
    assert session.batches == [4]
    assert find(list(readings), "accuracy").value == 0.75
    assert find(list(readings), "accuracy").scope == "select split"


def test_the_meter_resamples_groups(fakes: Any, split: Callable[..., Split]) -> None:
    items = np.eye(3, dtype=np.float32)[np.arange(60) % 3]
    labels = np.where(np.arange(60) < 30, np.arange(60) % 3, 0)
    variant, session = fakes.variant(), fakes.session(fakes.variant())
    alone, grouped = (
        QualityMeter().read(session, variant, replace(CLASSES, splits=(split(items, labels, groups),)), Workload())[0]
        for groups in (None, np.arange(60) // 10)
    )
    assert alone.value == grouped.value
    assert grouped.low < alone.low


def test_the_meter_says_why_it_can_not_judge(fakes: Any, split: Callable[..., Split]) -> None:
    variant, session = fakes.variant(), fakes.session(fakes.variant())
    (nothing,) = QualityMeter().read(session, variant, CLASSES, Workload())
    assert (nothing.provenance, nothing.scope) == ("unavailable", "the task has no select split")
    task = replace(CLASSES, splits=(split(np.eye(3, dtype=np.float32)),))
    (unlabelled,) = QualityMeter().read(session, variant, task, Workload())
    assert (unlabelled.name, unlabelled.provenance) == ("agreement", "unavailable")


def test_the_overall_numbers_come_first_then_classes_then_cells(three: Any) -> None:
    readings = quality_readings(CLASSES, *three)
    kinds = ["cell" if r.name == "confusion_matrix" else "class" if r.place else "overall" for r in readings]
    assert kinds == sorted(kinds, key=["overall", "class", "cell"].index)


def test_classes_without_a_name_are_called_by_their_number() -> None:
    task = replace(CLASSES, classes=("größe", "日本"))
    readings = quality_readings(task, np.array([0, 1, 2]), np.eye(3))
    places = {reading.place for reading in readings if reading.name == "recall"}
    assert places == {None, "größe", "日本", "2"}
    assert find(readings, "confusion_matrix", "日本→日本").value == 1


def test_the_cells_of_the_confusion_matrix_add_up_to_the_items(three: Any) -> None:
    labels, outputs = three
    readings = quality_readings(CLASSES, labels, outputs)
    cells = [reading for reading in readings if reading.name == "confusion_matrix"]
    assert sum(cell.value for cell in cells) == len(labels)  # type: ignore[misc]
    assert all(cell.low <= cell.value <= cell.high <= len(labels) for cell in cells)  # type: ignore[operator]


def test_one_item_is_read_with_all_the_doubt_that_it_leaves() -> None:
    readings = quality_readings(CLASSES, np.array([1]), np.array([[0.0, 3.0, 1.0]]))
    accuracy = find(readings, "accuracy")
    assert (accuracy.value, accuracy.high) == (1.0, 1.0)
    assert accuracy.low is not None
    assert accuracy.low < 0.3
    assert find(readings, "roc_auc").provenance == "unavailable"


def test_likeness_needs_answers_to_the_same_items(three: Any) -> None:
    labels, outputs = three
    with pytest.raises(BadInput, match="the original answered 119 items, this model 120: give both the same"):
        quality_readings(CLASSES, labels, outputs, outputs[1:])


def test_targets_of_zero_leave_the_relative_error_unavailable() -> None:
    readings = quality_readings(Task(kind="regression", metric="mse"), np.zeros(3), np.ones((3, 1)))
    missing = find(readings, "relative_error")
    assert missing.value is None
    assert "choose --metric mse or mae" in missing.scope
    assert find(readings, "mae").value == 1.0


def test_a_threshold_is_for_two_classes(three: Any) -> None:
    with pytest.raises(BadInput, match="only a binary task has a threshold to tune"):
        tune_threshold(CLASSES, *three)


@pytest.mark.parametrize("labels", [np.zeros(4, int), np.ones(4, int)])
def test_a_threshold_for_one_class_alone_makes_no_mistake_on_it(labels: np.ndarray) -> None:
    scores = np.array([0.1, 0.4, 0.6, 0.9])
    tuned = tune_threshold(replace(BINARY, metric="accuracy"), labels, scores)
    assert ((scores >= tuned) == labels).all()


def test_the_meter_asks_about_answers_near_chance(fakes: Any, split: Callable[..., Split]) -> None:
    labels = np.random.default_rng(0).integers(0, 3, 300)
    right = np.eye(3, dtype=np.float32)[labels]
    for outputs, words in ((right, ()), (right[:1].repeat(300, axis=0), ("preprocessing or label order?",))):
        task = replace(CLASSES, splits=(split(outputs, labels),))
        meter = QualityMeter()
        meter.read(fakes.session(fakes.variant()), fakes.variant(), task, Workload())
        assert len(meter.warnings) == len(words)
        assert all(word in said for word, said in zip(words, meter.warnings, strict=True))


def test_good_answers_at_an_odd_threshold_are_not_near_chance() -> None:
    labels = np.tile([0, 0, 0, 1], 50)
    outputs = np.tile([0.1, 0.2, 0.3, 0.9], 50)
    assert chance_warnings(replace(BINARY, threshold=0.01), labels, outputs) == ()
    assert chance_warnings(replace(BINARY, threshold=0.8), labels, outputs) == ()
    (question,) = chance_warnings(replace(BINARY, threshold=0.01), labels, np.full(200, 0.4))
    assert "chance" in question
    assert chance_warnings(Task(kind="regression"), labels, outputs) == ()


@pytest.mark.parametrize(
    ("given", "is_tuned"),
    [
        ({"metric": "recall"}, True),
        ({"costs": (10.0, 1.0)}, True),
        ({"metric": "accuracy"}, False),
        ({"metric": "recall", "threshold": 0.4}, False),
        ({"metric": "recall", "kind": "classification"}, False),
    ],
)
def test_a_threshold_is_tuned_where_none_is_given_and_it_is_not_about_accuracy(
    given: dict[str, Any], is_tuned: bool
) -> None:
    task, labels, outputs = replace(BINARY, **given), np.tile([0, 1], 50), np.tile([0.1, 0.2], 50)
    assert tuned(task, labels, outputs).threshold == (pytest.approx(0.15) if is_tuned else task.threshold)
    assert tuned(task, None, outputs) == task, "without labels nothing serves better than another"


def test_the_threshold_is_told_where_answers_were_read_at_one() -> None:
    labels, outputs = np.tile([0, 1], 50), np.tile([0.1, 0.2], 50)
    for threshold, scope in ((0.15, "select split, threshold 0.15"), (None, "select split")):
        readings = quality_readings(replace(BINARY, threshold=threshold), labels, outputs, scope="select split")
        assert find(readings, "accuracy").scope == scope
