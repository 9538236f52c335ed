from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trimtab.core.errors import BadInput
from trimtab.core.values import Signature, Split, Step, Task, TensorSpec, Workload
from trimtab.meters.predict import (
    answers,
    class_scores,
    fixed_batch,
    positive_scores,
    predict,
    predictions,
    settled,
)

ITEMS = np.arange(21, dtype=np.float32).reshape(7, 3)
TASK = Task()
BINARY = Task(kind="binary")


def test_returns_one_row_per_item_in_order(fakes: Any, split: Callable[..., Split]) -> None:
    session = fakes.session(fakes.variant())
    assert np.array_equal(predict(session, TASK, split(ITEMS), Workload(batch=3)), ITEMS)
    assert session.batches == [3, 3, 1]


def test_fills_the_last_call_of_a_model_with_a_fixed_batch(fakes: Any, split: Callable[..., Split]) -> None:
    session = fakes.session(fakes.variant(batch=4))
    assert np.array_equal(predict(session, TASK, split(ITEMS), Workload(batch=1)), ITEMS)
    assert session.batches == [4, 4]


def test_stops_calling_when_the_caller_stops_asking(fakes: Any, split: Callable[..., Split]) -> None:
    session = fakes.session(fakes.variant())
    rows, outputs = next(predictions(session, TASK, split(ITEMS), Workload(batch=2)))
    assert rows == slice(0, 2)
    assert np.array_equal(outputs, ITEMS[:2])
    assert session.batches == [2]


def test_applies_preprocessing_unless_the_variant_does_it_itself(fakes: Any, split: Callable[..., Split]) -> None:
    step = Step(technique="scale", options=(("divisor", 0.5),))
    task, variant = replace(TASK, preprocessing=(step,)), fakes.variant()
    assert np.array_equal(predict(fakes.session(variant), task, split(ITEMS), Workload()), ITEMS * 2)
    absorbed = fakes.session(replace(variant, absorbed=(step,)))
    assert np.array_equal(predict(absorbed, task, split(ITEMS), Workload()), ITEMS)


def test_judges_the_output_that_was_chosen(fakes: Any, split: Callable[..., Split]) -> None:
    session = fakes.session(
        fakes.variant(outputs=("a", "b")), lambda inputs: {"a": inputs["x"], "b": inputs["x"][:, :1]}
    )
    found = predict(session, replace(TASK, output="b"), split(ITEMS), Workload())
    assert np.array_equal(found, ITEMS[:, :1])
    with pytest.raises(BadInput, match=r"--output-name \(a, b\)"):
        predict(session, TASK, split(ITEMS), Workload())
    with pytest.raises(BadInput, match=r"no output 'c'.*a, b"):
        predict(session, replace(TASK, output="c"), split(ITEMS), Workload())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda inputs: {"scores": np.where(inputs["x"] == 7, np.nan, 1)}, "NaN or infinity .item 2 of the split"),
        (lambda inputs: {"scores": inputs["x"][:-1]}, r"shape \(2, 3\) for 3 items"),
        (lambda inputs: {"scores": np.float32(1)}, r"shape \(\) for 3 items"),
        (lambda inputs: {"other": inputs["x"]}, "did not return its output 'scores': it returned other"),
    ],
)
def test_refuses_outputs_that_can_not_be_judged(
    fakes: Any, split: Callable[..., Split], answer: Any, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        predict(fakes.session(fakes.variant(), answer), TASK, split(ITEMS), Workload(batch=3))


def test_a_class_is_the_highest_score_whatever_axes_of_one_follow() -> None:
    outputs = np.array([[0.1, 0.9, 0.2], [3.0, -1.0, 2.0]])
    assert answers(TASK, outputs).tolist() == [1, 0]
    assert answers(TASK, outputs[:, :, None, None]).tolist() == [1, 0]
    assert answers(TASK, np.array([[2], [0]])).tolist() == [2, 0]
    with pytest.raises(BadInput, match=r"one score per class.*\(2, 3, 4\)"):
        answers(TASK, np.zeros((2, 3, 4)))


def test_probabilities_stay_and_logits_are_squashed() -> None:
    assert positive_scores(BINARY, np.array([0.25, 0.75])).tolist() == [0.25, 0.75]
    assert positive_scores(BINARY, np.array([[-2.0], [0.0]])) == pytest.approx([1 / (1 + np.e**2), 0.5])
    assert positive_scores(BINARY, np.array([[0.3, 0.7]])) == pytest.approx([0.7])
    assert positive_scores(BINARY, np.array([[0.0, np.log(3)]])) == pytest.approx([0.75])
    assert positive_scores(BINARY, np.array([[-1e4, 1e4], [0, 0]])) == pytest.approx([1, 0.5])


def test_the_positive_class_may_be_the_first_one() -> None:
    task = replace(BINARY, positive=0)
    assert positive_scores(task, np.array([[0.3, 0.7]])) == pytest.approx([0.3])
    assert positive_scores(task, np.array([0.7])) == pytest.approx([0.3])
    assert answers(task, np.array([[0.3, 0.7], [0.6, 0.4]])).tolist() == [1, 0]


def test_the_threshold_decides_at_and_above_itself() -> None:
    task = replace(BINARY, threshold=0.8)
    assert answers(task, np.array([0.79, 0.8, 0.9])).tolist() == [0, 1, 1]
    assert answers(BINARY, np.array([0.49, 0.5])).tolist() == [0, 1]


def test_settled_once_a_few_items_are_read_like_all_of_them() -> None:
    logits = np.array([-3.0, 0.3, 4.0])
    task = settled(BINARY, logits)
    assert task.logits is True
    assert answers(task, logits[1:2]).tolist() == [1]
    assert settled(replace(BINARY, logits=False), logits).logits is False
    assert settled(TASK, logits) is TASK


def test_refuses_three_scores_for_two_classes() -> None:
    with pytest.raises(BadInput, match="one or two scores"):
        positive_scores(BINARY, np.zeros((4, 3)))


def test_numbers_are_their_own_answers() -> None:
    outputs = np.array([[1.5, 2.5]])
    assert answers(Task(kind="regression"), outputs) is outputs


def test_scores_of_classes_are_probabilities() -> None:
    from scipy.special import softmax

    logits = np.array([[1.0, 2.0, 3.0], [-5.0, 0.0, 9.0]])
    assert class_scores(logits) == pytest.approx(softmax(logits, axis=1))
    shares = softmax(logits, axis=1)
    assert class_scores(shares) == pytest.approx(shares)
    assert class_scores(np.array([0, 2])) is None


def test_the_item_that_overflows_is_counted_from_the_first_one(fakes: Any, split: Callable[..., Split]) -> None:
    def answer(inputs: Any) -> Any:
        return {"scores": np.where(inputs["x"] == 16, np.inf, inputs["x"])}

    session = fakes.session(fakes.variant(), answer)
    for batch in (1, 2, 7):
        with pytest.raises(BadInput, match=r"NaN or infinity .item 5 of the split.: its numbers overflow"):
            predict(session, TASK, split(ITEMS), Workload(batch=batch))


def test_whole_numbers_can_not_overflow(fakes: Any, split: Callable[..., Split]) -> None:
    session = fakes.session(fakes.variant(), lambda inputs: {"scores": inputs["x"][:, :1].astype(np.int64)})
    assert predict(session, TASK, split(ITEMS), Workload()).ravel().tolist() == [0, 3, 6, 9, 12, 15, 18]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(4, 3)], 4),
        ([("N", 3)], None),
        ([(4, 3), (4,)], 4),
        ([(4, 3), ("N", 3)], 4),
        ([(4, 3), (2, 3)], None),
        ([()], None),
    ],
)
def test_the_batch_is_fixed_where_the_inputs_agree_on_a_number(shapes: Any, expected: int | None) -> None:
    specs = tuple(TensorSpec(name=f"x{n}", dtype="float32", shape=shape) for n, shape in enumerate(shapes))
    assert fixed_batch(Signature(inputs=specs, outputs=())) == expected


@given(arrays("float64", (5, 3), elements=st.floats(-30, 30)))
@settings(max_examples=40, deadline=None)
def test_squashing_scores_never_changes_the_answer_of_a_class(outputs: np.ndarray) -> None:
    shares = class_scores(outputs)
    assert shares is not None
    assert ((shares >= 0) & (shares <= 1 + 1e-2)).all()
    assert (shares[np.arange(5), answers(TASK, outputs)] == shares.max(axis=1)).all()


@given(arrays("float64", (6,), elements=st.floats(-800, 800)))
@settings(max_examples=40, deadline=None)
def test_one_score_or_two_that_differ_by_it_mean_the_same(logits: np.ndarray) -> None:
    task = replace(BINARY, logits=True)
    both = np.stack([np.zeros_like(logits), logits], axis=1)
    assert positive_scores(task, both) == pytest.approx(positive_scores(task, logits[:, None]), abs=1e-12)
    other = replace(task, positive=0)
    assert positive_scores(other, both) == pytest.approx(1 - positive_scores(task, both), abs=1e-12)


def test_a_split_without_items_is_refused(fakes: Any, split: Callable[..., Split]) -> None:
    empty = replace(split(ITEMS), rows=replace(split(ITEMS).rows, shape=(0,)))
    with pytest.raises(BadInput, match="the select split holds no items: give more data"):
        predict(fakes.session(fakes.variant()), TASK, empty, Workload())
