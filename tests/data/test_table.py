from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.core.errors import BadInput
from trimtab.data.table import ANY, TEXT, Files, Table, checked, joined, with_train


def table(count: int, value: float = 0.0, **given) -> Table:
    return Table(columns={ANY: np.full((count, 2), value)}, **given)


def files(*names: str, decode=None) -> Files:
    return Files(tuple(Path(name) for name in names), names, decode or first_letter)


def first_letter(path: Path) -> tuple[np.ndarray, None]:
    return np.array([ord(path.name[0])]), None


@given(st.dictionaries(st.sampled_from(["train", "select", "certify", "test"]), st.integers(1, 9), min_size=1))
@settings(deadline=None)
def test_joined_parts_keep_their_order_and_every_item_knows_its_part(counts: dict[str, int]) -> None:
    made = joined({name: table(count, value) for value, (name, count) in enumerate(counts.items())}, "here")
    assert made.splits.tolist() == [name for name, count in counts.items() for _ in range(count)]
    expected = [value for value, count in enumerate(counts.values()) for _ in range(count)]
    assert made.columns[ANY][:, 0].tolist() == expected


def test_parts_with_other_classes_are_numbered_by_all_their_names() -> None:
    parts = {
        "train": table(3, labels=np.array([0, 1, 1]), classes=("bird", "dog")),
        "test": table(2, labels=np.array([0, 1]), classes=("cat", "dog")),
    }
    made = joined(parts, "here")
    assert made.classes == ("bird", "cat", "dog")
    assert made.labels.tolist() == [0, 2, 2, 1, 2]


def test_a_note_that_several_parts_make_is_made_once() -> None:
    parts = {"train": table(1, notes=("a", "b")), "test": table(1, notes=("b", "c"))}
    assert joined(parts, "here").notes == ("a", "b", "c")


def test_files_of_several_parts_are_read_under_their_own_names() -> None:
    parts = {"train": Table(columns={ANY: files("a.png", "b.png")}), "test": Table(columns={ANY: files("c.png")})}
    column = joined(parts, "here").columns[ANY]
    assert (len(column), column.names) == (3, ("a.png", "b.png", "c.png"))
    assert [chr(column.read(row)[0][0]) for row in range(3)] == ["a", "b", "c"]


def test_texts_of_any_length_may_be_joined() -> None:
    parts = {
        "train": Table(columns={TEXT: np.array(["ab"])}),
        "test": Table(columns={TEXT: np.array(["straße", "日本"])}),
    }
    assert joined(parts, "here").columns[TEXT].tolist() == ["ab", "straße", "日本"]


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (Table(columns={"a": np.zeros(2)}), Table(columns={"b": np.zeros(2)}), "different inputs; give each part"),
        (Table(columns={ANY: np.zeros(2)}), Table(columns={ANY: files("a")}), "some of its parts hold arrays and some"),
        (Table(columns={ANY: files("a")}), Table(columns={ANY: files("a", decode=print)}), "images and some sounds"),
        (table(2), Table(columns={ANY: np.zeros((2, 2), np.float32)}), "different dtype or shape; make them alike"),
        (table(2, labels=np.zeros(2)), table(2), "some of its parts .* have labels and some not; label all or none"),
        (table(2, groups=np.zeros(2)), table(2), "have groups and some not; give all or none"),
    ],
)
def test_parts_that_do_not_belong_together_are_one_clear_line(one: Table, other: Table, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        joined({"train": one, "test": other}, "here")
    assert str(caught.value).startswith("here: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        (Table(columns={}), "here holds no items; give data with at least a few hundred"),
        (table(0), "here holds no items"),
        (table(3, labels=np.zeros(2)), "differ in length .inputs 3, labels 2.; each item needs one row in every array"),
        (table(3, groups=np.zeros(4)), "inputs 3, groups 4"),
        (Table(columns={"a": np.zeros(3), "b": np.zeros(2)}), "a 3, b 2"),
        (table(2, groups=np.zeros((2, 1))), "groups and split need one name or number per item; give arrays of one"),
        (table(1, splits=np.array(["proof"])), "unknown split 'proof'; known are train, calibrate, select, certify"),
    ],
)
def test_a_table_that_is_not_whole_is_one_clear_line(given_: Table, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        checked(given_, "here")


def test_a_whole_table_is_returned_as_it_is() -> None:
    whole = table(2, labels=np.zeros(2), groups=np.zeros(2), splits=np.array(["", "test"]))
    assert checked(whole, "here") is whole


def test_items_to_train_on_come_before_those_to_judge_and_are_named_so() -> None:
    both = with_train(table(2, 1.0, labels=np.array([3, 4])), table(3, labels=np.array([0, 1, 2])))
    assert both.splits.tolist() == ["train"] * 3 + [""] * 2
    assert both.labels.tolist() == [0, 1, 2, 3, 4]
    assert both.columns[ANY][:, 0].tolist() == [0, 0, 0, 1, 1]


def test_names_that_items_to_judge_have_already_stay() -> None:
    both = with_train(table(3, splits=np.array(["select", "", "test"])), table(1))
    assert both.splits.tolist() == ["train", "select", "", "test"]


def test_of_a_source_that_names_its_items_those_to_train_on_are_taken() -> None:
    splits = np.array(["train", "test", "", "train", "calibrate"])
    given = Table(columns={ANY: np.arange(5)[:, None]}, labels=np.arange(5), groups=np.arange(5) * 10, splits=splits)
    judged = Table(columns={ANY: np.full((1, 1), 9)}, labels=np.array([9]), groups=np.array([90]))
    both = with_train(judged, given)
    assert both.columns[ANY][:, 0].tolist() == both.labels.tolist() == [0, 2, 3, 9]
    assert both.groups.tolist() == [0, 20, 30, 90]
    assert both.splits.tolist() == ["train"] * 3 + [""]


def test_of_files_those_to_train_on_are_taken() -> None:
    given = Table(columns={ANY: files("a", "b", "c")}, splits=np.array(["test", "train", "train"]))
    both = with_train(Table(columns={ANY: files("d")}), given)
    assert both.columns[ANY].names == ("b", "c", "d")
    assert [path.name for path in both.columns[ANY].paths] == ["b", "c", "d"]


def test_classes_are_those_of_the_items_to_train_on_and_to_judge() -> None:
    train = table(2, labels=np.array([0, 1]), classes=("bird", "dog"))
    judged = table(2, labels=np.array([0, 1]), classes=("cat", "dog"))
    both = with_train(judged, train)
    assert both.classes == ("bird", "cat", "dog")
    assert both.labels.tolist() == [0, 2, 1, 2]


@pytest.mark.parametrize(
    ("judged", "train", "message"),
    [
        (
            table(2, splits=np.array(["train", "test"])),
            table(2),
            "--data names items to train on itself; leave --train",
        ),
        (
            table(2),
            table(2, splits=np.array(["test", "select"])),
            "--train holds no items to train on: all of them are",
        ),
        (table(2), Table(columns={ANY: np.zeros((2, 3))}), "--train and --data: its parts hold items of different"),
        (table(2), table(2, labels=np.zeros(2)), "--train and --data: some of its parts .* have labels and some not"),
        (
            table(2, labels=np.zeros(2, int)),
            table(2, labels=np.zeros(2, int), classes=("a",)),
            "--train and --data: some of its parts .* name their classes by folders and some don't; give all in one",
        ),
    ],
)
def test_items_that_can_not_be_trained_on_are_one_clear_line(judged: Table, train: Table, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        with_train(judged, train)
    assert "\n" not in str(caught.value)


def test_some_of_the_files_are_read_under_their_own_names() -> None:
    some = files("a", "b", "c").chosen([2, 0])
    assert some.names == ("c", "a")
    assert chr(some.read(0)[0][0]) == "c"
