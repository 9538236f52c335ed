from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.core.errors import BadInput
from trimtab.core.values import Split, Task, TensorSpec
from trimtab.data.arrays import save_array
from trimtab.data.checks import fit, near_chance, overlap

CLASSES = tuple("abcdefghij")


def spec(dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name="x", dtype=dtype, shape=shape)


def test_what_fits_needs_nothing() -> None:
    assert fit(spec("float32", "N", 3, "H", "W"), np.zeros((2, 3, 7, 9), np.float32)) is None
    assert fit(spec("float32", 1, 4), np.zeros((2, 4), np.float32)) is None


@pytest.mark.parametrize(
    "have, want",
    [("float64", "float32"), ("float32", "float16"), ("int64", "int32"), ("uint8", "int64"), ("bool", "int64")],
)
def test_a_cast_that_keeps_the_meaning_is_made(have: str, want: str) -> None:
    step = fit(spec(want, "N", 4), np.zeros((2, 4), have))
    assert step is not None
    assert dict(step.options) == {"dtype": want, "input": "x"}


@pytest.mark.parametrize(
    "have, want", [("uint8", "float32"), ("int64", "float32"), ("float32", "int64"), ("float32", "bool")]
)
def test_a_cast_that_could_change_the_meaning_is_refused(have: str, want: str) -> None:
    with pytest.raises(BadInput, match=rf"takes {want} \[N, 4\]; the data after preprocessing gives {have} \[N, 4\]"):
        fit(spec(want, "N", 4), np.zeros((2, 4), have))


def test_a_wrong_shape_names_both_and_what_to_do() -> None:
    expected = (
        r"the model's input 'x' takes float32 \[N, 1, 28, 28\]; "
        r"the data after preprocessing gives uint8 \[N, 28, 28\]: add --preprocess mnist"
    )
    with pytest.raises(BadInput, match=expected):
        fit(spec("float32", "N", 1, 28, 28), np.zeros((2, 28, 28), np.uint8))


def test_a_stateful_model_takes_items_with_a_time_axis() -> None:
    sequences = np.zeros((2, 50, 8), np.float32)
    assert fit(spec("float32", "N", 8), sequences, stateful=True) is None
    with pytest.raises(BadInput):
        fit(spec("float32", "N", 8), sequences)


def test_a_good_model_raises_no_question() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 500)
    answers = np.where(rng.random(500) < 0.7, labels, rng.integers(0, 10, 500))
    assert near_chance(labels, answers, CLASSES) is None


@given(st.integers(0, 2**32 - 1), st.integers(2, 10))
@settings(max_examples=30, deadline=None)
def test_answers_that_ignore_the_labels_raise_the_question(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, count, 400)
    constant = np.full(400, labels[0])
    assert "preprocessing or label order?" in (near_chance(labels, constant, CLASSES[:count]) or "")


def test_guesses_raise_the_question_nearly_always() -> None:
    rng = np.random.default_rng(1)
    asked = sum(
        near_chance(rng.integers(0, 10, 300), rng.integers(0, 10, 300), CLASSES) is not None for _ in range(100)
    )
    assert asked >= 95


def test_a_permuted_order_is_recognised() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 500)
    order = np.roll(np.arange(10), 1)
    answers = np.where(rng.random(500) < 0.9, order[labels], rng.integers(0, 10, 500))
    assert "label order looks permuted" in (near_chance(labels, answers, CLASSES) or "")
    swapped = 1 - (labels % 2)
    assert "permuted" in (near_chance(labels % 2, swapped, ("no", "yes")) or "")


def test_a_detector_of_rare_items_is_not_taken_for_chance() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(5000) < 0.01).astype(int)
    answers = np.where(labels == 1, rng.random(5000) < 0.8, rng.random(5000) < 0.05).astype(int)
    assert near_chance(labels, answers, ("no", "yes")) is None


def test_answers_may_be_class_numbers_that_no_label_bears() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    answers = np.where(rng.random(200) < 0.8, labels, 7)
    assert near_chance(labels, answers, CLASSES[:3]) is None


@pytest.mark.parametrize(
    ("have", "want", "hint"),
    [
        (np.zeros((2, 4), np.uint8), spec("float32", "N", 4), "say how to scale the numbers with --preprocess"),
        (np.zeros((2, 4), np.float32), spec("int64", "N", 4), "say how to cast the numbers with --preprocess"),
        (np.zeros((2, 4), np.float32), spec("float32", "N", 5), "steps reshape, pad, resample, mono"),
        (np.zeros((2, 4, 4), np.float32), spec("float32", "N", 3, 4, 4), "steps resize, crop, rgb, grey, layout"),
        (np.zeros((2,), np.float32), spec("float32"), "or give items of that shape"),
    ],
)
def test_every_difference_names_the_step_that_mends_it(have: np.ndarray, want: TensorSpec, hint: str) -> None:
    with pytest.raises(BadInput, match=hint) as caught:
        fit(want, have)
    assert "\n" not in str(caught.value)


def test_a_cast_to_a_type_that_numpy_lacks_is_made_between_floats() -> None:
    step = fit(spec("bfloat16", "N", 4), np.zeros((2, 4), np.float32))
    assert step is not None
    assert dict(step.options)["dtype"] == "bfloat16"


def test_only_items_that_are_equal_in_every_input_are_shared(tmp_path: Path) -> None:
    def split(name: str, first: list[int], second: list[int]) -> Split:
        inputs = {"a": np.array(first), "b": np.array(second)}
        files = tuple(save_array(key, tmp_path / f"{name}-{key}.npy", array) for key, array in inputs.items())
        return Split(name=name, inputs=files, rows=save_array("rows", tmp_path / f"{name}.npy", np.arange(len(first))))

    certify = split("certify", [1, 2, 3, 3], [1, 1, 1, 1])
    others = split("calibrate", [1, 2], [9, 9]), split("select", [3, 1, 3], [1, 1, 1]), split("train", [2], [1])
    assert overlap(Task(splits=(certify, *others))) == {"select": 3, "train": 1}
    assert overlap(Task(splits=others)) == {}
