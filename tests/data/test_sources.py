import struct
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput, Unsafe
from trimtab.data.sources import first_items, read_source
from trimtab.data.table import ANY


def test_files_named_for_splits_are_those_splits(tmp_path: Path, make_model) -> None:
    for count, name in enumerate(("calibrate", "certify", "select"), 3):
        np.savez(tmp_path / f"{name}.npz", inputs=np.full((count, 4), count), labels=np.zeros(count, int))
    table = read_source(tmp_path, make_model().signature)
    assert table.splits.tolist() == ["calibrate"] * 3 + ["certify"] * 4 + ["select"] * 5
    (column,) = table.columns.values()
    assert column[:, 0].tolist() == [3] * 3 + [4] * 4 + [5] * 5


def test_a_lone_file_in_a_folder_is_the_data(tmp_path: Path, make_model) -> None:
    np.savez(tmp_path / "val.npz", inputs=np.zeros((5, 4)))
    table = read_source(tmp_path, make_model().signature)
    assert table.splits is None
    assert len(table) == 5


def test_parts_must_hold_the_same_things(tmp_path: Path, make_model) -> None:
    np.savez(tmp_path / "train.npz", inputs=np.zeros((5, 4)), labels=np.zeros(5, int))
    np.savez(tmp_path / "test.npz", inputs=np.zeros((5, 4)))
    with pytest.raises(BadInput, match="labels and some not"):
        read_source(tmp_path, make_model().signature)
    np.savez(tmp_path / "test.npz", inputs=np.zeros((5, 3)), labels=np.zeros(5, int))
    with pytest.raises(BadInput, match="different dtype or shape"):
        read_source(tmp_path, make_model().signature)


def test_several_files_without_split_names_are_ambiguous(tmp_path: Path, make_model) -> None:
    for name in ("a", "test"):
        np.savez(tmp_path / f"{name}.npz", inputs=np.zeros((5, 4)))
    with pytest.raises(BadInput, match="several data files"):
        read_source(tmp_path, make_model().signature)


def test_what_is_missing_empty_or_unknown_is_said(tmp_path: Path, make_model) -> None:
    signature = make_model().signature
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readme.md").write_text("no data")
    for source, message in (
        (tmp_path / "absent.npz", "there is no file or folder"),
        (tmp_path / "empty", "is empty"),
        (tmp_path / "other", "holds nothing"),
        (tmp_path / "other" / "readme.md", "not a kind of data"),
    ):
        with pytest.raises(BadInput, match=message):
            read_source(str(source), signature)


def test_a_pickle_is_refused_unread(tmp_path: Path, make_model) -> None:
    (tmp_path / "data.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(Unsafe, match="can run code"):
        read_source(tmp_path / "data.pkl", make_model().signature)


def test_groups_may_have_a_name_of_their_own(make_model) -> None:
    source = {"inputs": np.zeros((3, 4)), "speaker": np.array(["a", "b", "a"])}
    assert read_source(source, make_model().signature, "speaker").groups.tolist() == ["a", "b", "a"]
    with pytest.raises(BadInput, match="'writer' that could be its --groups"):
        read_source({"inputs": np.zeros((3, 4))}, make_model().signature, "writer")


def test_an_unknown_split_name_is_refused(make_model) -> None:
    source = {"inputs": np.zeros((3, 4)), "split": np.array(["train", "select", "proof"])}
    with pytest.raises(BadInput, match="unknown split 'proof'"):
        read_source(source, make_model().signature)


def test_a_folder_for_each_split_may_hold_files_of_any_kind(tmp_path: Path, make_model) -> None:
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
    np.savez(tmp_path / "train" / "data.npz", inputs=np.ones((3, 4)), labels=np.array([0, 1, 1]))
    (tmp_path / "val" / "rows.csv").write_text("a,b,c,d,label\n1,1,1,1,0\n2,2,2,2,1\n")
    table = read_source(tmp_path, make_model().signature)
    assert table.columns[ANY].tolist() == [[1] * 4] * 4 + [[2] * 4]
    assert (table.labels.tolist(), table.splits.tolist()) == ([0, 1, 1, 0, 1], ["train"] * 3 + ["val"] * 2)


def test_hidden_files_are_no_data(tmp_path: Path, make_model) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    with pytest.raises(BadInput, match="is empty; --data takes"):
        read_source(tmp_path, make_model().signature)


def test_a_lone_idx_file_is_an_input_without_labels(tmp_path: Path, make_model) -> None:
    (tmp_path / "images-ubyte").write_bytes(struct.pack(">4B2I", 0, 0, 8, 2, 2, 3) + bytes(range(6)))
    table = read_source(tmp_path / "images-ubyte", make_model().signature)
    assert table.columns[ANY].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_errors_of_a_part_name_the_part(tmp_path: Path, make_model) -> None:
    np.savez(tmp_path / "train.npz", inputs=np.ones((3, 4)), labels=np.zeros(2, int))
    np.savez(tmp_path / "test.npz", inputs=np.ones((3, 4)), labels=np.zeros(3, int))
    with pytest.raises(BadInput, match="train: the arrays differ in length"):
        read_source(tmp_path, make_model().signature)


ITEMS = np.arange(12, dtype=np.float32).reshape(4, 3)


class Counted:
    """A data set that counts how often it is asked for an item."""

    def __init__(self, *items: object) -> None:
        self.items = items
        self.asked = 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> object:
        self.asked += 1
        return self.items[row]


@pytest.mark.parametrize(
    "source",
    [
        ITEMS,
        ITEMS.tolist(),
        (ITEMS, [0, 1, 2, 0]),
        {"x": ITEMS, "labels": [0, 1, 2, 0]},
        {"inputs": ITEMS, "y": [0, 1, 2, 0]},
        [(ITEMS[0], 0), (ITEMS[1], 1)],
        [{"x": ITEMS[0], "label": 0}, {"x": ITEMS[1], "label": 1}],
        Counted((ITEMS[0], 0), (ITEMS[1], 1)),
        Counted({"x": ITEMS[0], "label": 0}),
    ],
    ids=lambda source: type(source).__name__,
)
def test_the_first_items_of_whatever_is_read_say_what_a_function_takes(source) -> None:
    (name, array), *others = first_items(source, ["x", "scale"], ["x"]).items()
    assert (name, array.shape[1:], others) == ("x", (3,), [])
    np.testing.assert_array_equal(array[0], ITEMS[0])


def test_of_a_data_set_only_the_first_item_is_read() -> None:
    source = Counted(*((item, 0) for item in ITEMS))
    first_items(source, ["x"], ["x"])
    assert source.asked == 1


def test_the_first_items_in_a_file_are_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", inputs=ITEMS, labels=np.zeros(4, int))
    np.save(tmp_path / "data.npy", ITEMS)
    for name in ("data.npz", "data.npy"):
        np.testing.assert_array_equal(first_items(str(tmp_path / name), ["x"], ["x"])["x"], ITEMS)
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    assert first_items(tmp_path / "data.csv", ["x"], ["x"]) == {}
    with pytest.raises(BadInput, match="No such file"):
        first_items(tmp_path / "absent.npz", ["x"], ["x"])


def test_optional_arguments_are_fed_when_they_are_there_but_labels_are_never_an_input() -> None:
    takes, needs = ["ids", "mask", "labels", "scale"], ["ids"]
    item = {"ids": np.arange(3), "mask": np.ones(3), "labels": 1}
    assert list(first_items([item], takes, needs)) == ["ids", "mask"]
    assert list(first_items([item], takes, [])) == ["ids", "mask"]
    assert list(first_items([item], takes, ["ids", "labels"])) == ["ids", "mask", "labels"]
    assert list(first_items([(np.arange(3), 1)], takes, [])) == ["ids"]


def test_an_argument_that_nothing_feeds_is_named() -> None:
    with pytest.raises(BadInput, match="takes 'left', 'right' but the data holds 'left'"):
        first_items({"left": ITEMS}, ["left", "right"], ["left", "right"])
    assert first_items(ITEMS, [], []) == {}
    assert first_items(["a text", "another"], ["ids"], ["ids"]) == {}


def test_a_model_that_takes_strings_is_refused_with_what_to_do(make_model) -> None:
    for kind in ("object", "str"):
        signature = make_model(text=(kind, "N")).signature
        for source in (["a text"], ITEMS):
            with pytest.raises(BadInput, match="'text' takes strings, which trimtab can't feed: export the part after"):
                read_source(source, signature)
