from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import TensorSpec
from trimtab.data.labels import answer_spec, answers
from trimtab.data.request import DataRequest
from trimtab.data.table import ANY, Table


def ask(labels, shape=("N", 3), name="scores", classes=(), **request):
    table = Table(columns={ANY: np.zeros((len(labels) if labels is not None else 9, 2))}, classes=classes,
                  labels=None if labels is None else np.array(labels))  # fmt: skip
    return answers(table, TensorSpec(name=name, dtype="float32", shape=shape), DataRequest(**request))


@pytest.mark.parametrize(
    "labels, shape, kind",
    [
        ([0, 1, 2], ("N", 3), "classification"),
        ([0.0, 1.0, 2.0], ("N", 3), "classification"),
        (["a", "b", "c"], ("N", 3), "classification"),
        ([0, 1, 2], ("N", 3, 1, 1), "classification"),
        ([0, 5], ("N", "C"), "classification"),
        ([0, 1, 1], ("N", 2), "binary"),
        ([0, 1, 1], ("N", 1), "binary"),
        ([0, 1, 1], ("N",), "binary"),
        ([True, False], ("N", 1), "binary"),
        (["no", "yes"], ("N", 1), "binary"),
        ([0.5, 1.5], ("N", 1), "regression"),
        ([0, 7, 3], ("N", 1), "regression"),
        ([-1, 1], ("N", 1), "regression"),
        ([[0.5, 1.0], [1.0, 2.0]], ("N", 2), "regression"),
        (None, ("N", 3), "classification"),
        (None, ("N", 2), "binary"),
        (None, ("N", 1), "regression"),
        (None, ("N", "T", 384), "embedding"),
    ],
)
def test_the_kind_follows_from_labels_and_the_width_of_the_output(labels, shape, kind: str) -> None:
    assert ask(labels, shape).kind == kind


def test_an_output_called_an_embedding_is_one_without_labels() -> None:
    found = ask(None, ("N", 384), name="sentence_embedding")
    assert found.kind == "embedding"
    assert "cosine" in found.notes[0]
    assert "agreement with the original" in ask(None).notes[0]


def test_a_kind_that_is_said_is_taken() -> None:
    assert ask([0, 1, 1], ("N", 1), kind="regression").labels.dtype == np.float64


def test_names_are_numbered_in_the_order_of_the_list(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("dog\ncat\n\nbird\n")
    found = _listed(tmp_path, ["cat", "bird", "dog"])
    assert found.labels.tolist() == [1, 2, 0]
    assert found.classes == ("dog", "cat", "bird")


def _listed(folder: Path, labels, classes=(), shape=("N", 3)):
    table = Table(columns={ANY: np.zeros((len(labels), 2))}, labels=np.array(labels), classes=classes)
    output = TensorSpec(name="scores", dtype="float32", shape=shape)
    return answers(table, output, DataRequest(labels=folder / "classes.txt"))


def test_class_folders_take_the_order_of_the_list(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("dog\ncat\nbird\n")
    assert _listed(tmp_path, [0, 1, 2], classes=("bird", "cat", "dog")).labels.tolist() == [2, 1, 0]


def test_numbers_stay_numbers_unless_the_list_names_them(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("dog\ncat\nbird\n")
    assert _listed(tmp_path, [2, 0, 1]).labels.tolist() == [2, 0, 1]
    (tmp_path / "classes.txt").write_text("30\n10\n20\n")
    assert _listed(tmp_path, [10, 20, 30]).labels.tolist() == [1, 2, 0]


def test_names_without_a_list_are_sorted_and_that_is_said() -> None:
    found = ask(["b", "c", "a", "a"])
    assert found.labels.tolist() == [1, 2, 0, 0]
    assert "order of their names: a, b, c" in found.notes[0]


def test_a_class_without_items_is_noted() -> None:
    assert "1 of 3 classes have no items, so nothing is proven about them: 1" in ask([0, 2, 2]).notes[0]


@pytest.mark.parametrize(
    "labels, shape, message",
    [
        ([0, 1, 3], ("N", 3), "label 3 of item 2 .1 such in all. is a class the model never saw: it answers 0 to 2"),
        ([0, -1, -1], ("N", 3), "label -1 of item 1 .2 such in all. .* correct or drop these items"),
        ([0, 1, 0.5], ("N", 3), "label 0.5 of item 2"),
        ([[0.5, 1.0, 2.0]], ("N", 3), "not class numbers, one per item; give whole"),
        ([0.0, np.inf], ("N", 3), "label of item 1 is inf; mend or drop"),
        ([["a", "b"], ["c", "d"]], ("N", 2), "give one class number, name or value per item"),
        (np.array(["2020-01-01"], "datetime64[D]"), ("N", 3), "labels are datetime64"),
        ([0.0, np.nan], ("N", 3), "label of item 1 is nan; mend or drop"),
        ([[0, 1, 0], [1, 0, 0]], ("N", 3), "one-hot"),
        (["a", "b"], ("N", 3), "2 classes and the model answers 3"),
    ],
)
def test_labels_that_do_not_fit_are_one_clear_line(labels, shape, message: str) -> None:
    kind = "classification" if np.ndim(labels) == 2 and np.asarray(labels).dtype.kind == "f" else None
    with pytest.raises(BadInput, match=message):
        ask(labels, shape, kind=kind)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a\nb\n", "lists 2 classes and the model's output 'scores' answers 3"),
        ("a\nb\na\n", "'a' twice"),
        ("only\n", "names 1 classes"),
        ("x\ny\nz\n", "the class 'a' of the data is not among the classes given"),
    ],
)
def test_a_bad_list_of_classes_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(BadInput, match=message):
        _listed(tmp_path, ["a", "b", "a"])


def test_a_list_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"classes\.txt can't be read"):
        _listed(tmp_path, ["a", "b", "a"])


@pytest.mark.parametrize("given, expected", [(None, 1), ("ham", 0), ("spam", 1), (0, 0), ("1", 1)])
def test_the_positive_class_is_chosen_by_name_or_number(given, expected: int) -> None:
    assert ask(["ham", "spam"], ("N", 2), positive=given).positive == expected


def test_an_unknown_positive_class_is_refused() -> None:
    with pytest.raises(BadInput, match="choose ham or spam"):
        ask(["ham", "spam"], ("N", 2), positive="egg")


def test_the_answer_output_must_be_named_when_there_are_several(make_model) -> None:
    signature = make_model().signature
    assert answer_spec(signature, None).name == "scores"
    with pytest.raises(BadInput, match="no output 'logits'"):
        answer_spec(signature, "logits")
    two = type(signature)(inputs=signature.inputs, outputs=signature.outputs * 2)
    with pytest.raises(BadInput, match="--output-name"):
        answer_spec(two, None)


def test_flat_columns_bytes_and_booleans_are_labels_too() -> None:
    assert ask([[0], [2], [1]]).labels.tolist() == [0, 2, 1]
    assert ask(np.array([b"cat", b"ape", b"dog"])).classes == ("ape", "cat", "dog")
    assert ask([True, False], ("N", 2)).labels.tolist() == [1, 0]


def test_without_a_width_the_labels_say_how_many_classes_there_are() -> None:
    found = ask([0, 4, 2], ("N", "C"))
    assert (found.kind, len(found.classes)) == ("classification", 5)
    assert ask([0, 1], ("N", "C")).kind == "binary"
    assert ask([0.0, 1.5], ("N", "C")).kind == "regression"


@pytest.mark.parametrize("names", [["größe", "maß", "日本語"], ["a", "A", " a b"], [str(n) for n in (2, 10, 1)]])
def test_any_text_is_a_class_name_and_every_item_keeps_its_own(names: list[str]) -> None:
    found = ask([*names, *reversed(names)])
    assert found.classes == tuple(sorted(names))
    assert [found.classes[number] for number in found.labels] == [*names, *reversed(names)]


def test_absent_classes_are_counted_and_the_first_ones_named() -> None:
    (note,) = ask([0, 1, 7], ("N", 9)).notes
    assert note == "6 of 9 classes have no items, so nothing is proven about them: 2, 3, 4, 5, 6 …"


@pytest.mark.parametrize(
    ("labels", "shape", "kind", "message"),
    [
        (["a", "b", "c"], ("N", 3), "regression", "label 'a' is not a number, and regression needs numbers"),
        ([0, 1, 2], ("N", 3), "binary", "a binary task has 2 classes and these labels have 3; leave --kind away"),
        ([0, 1, 2], ("N", 1), "classification", "label 2 of item 2"),
    ],
)
def test_a_kind_that_the_labels_contradict_is_one_clear_line(labels, shape, kind: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ask(labels, shape, kind=kind)


def test_a_model_without_an_output_to_judge_is_refused(make_model) -> None:
    signature = make_model().signature
    state = replace(signature.outputs[0], role="state")
    with pytest.raises(BadInput, match="no output to judge; export it with one"):
        answer_spec(replace(signature, outputs=(state,)), None)
    assert answer_spec(replace(signature, outputs=(state, signature.outputs[0])), None).role == "data"
