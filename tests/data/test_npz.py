from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput, Unsafe
from trimtab.data.sources import read_source
from trimtab.data.table import ANY, TEXT


@pytest.mark.parametrize("name", ["inputs", "x", "pixels"])
def test_the_only_input_may_have_any_name(tmp_path: Path, make_model, name: str) -> None:
    inputs, labels = np.random.rand(20, 4).astype(np.float32), np.arange(20) % 10
    np.savez(tmp_path / "data.npz", **{name: inputs, "labels": labels, "groups": labels // 2})
    table = read_source(tmp_path / "data.npz", make_model(x=("float32", "N", 4)).signature)
    (column,) = table.columns.values()
    np.testing.assert_array_equal(column, inputs)
    np.testing.assert_array_equal(table.labels, labels)
    np.testing.assert_array_equal(table.groups, labels // 2)


def test_several_inputs_are_found_by_name(tmp_path: Path, make_model) -> None:
    signature = make_model(ids=("int64", "N", 3), y=("int64", "N", 3)).signature
    np.savez(tmp_path / "data.npz", ids=np.zeros((9, 3)), y=np.ones((9, 3)), labels=np.arange(9))
    table = read_source(tmp_path / "data.npz", signature)
    assert set(table.columns) == {"ids", "y"}
    np.testing.assert_array_equal(table.labels, np.arange(9))


def test_missing_inputs_are_named_with_what_there_is(tmp_path: Path, make_model) -> None:
    np.savez(tmp_path / "data.npz", a=np.zeros(9), b=np.ones(9))
    with pytest.raises(BadInput, match=r"'ids', 'mask'.*'a', 'b'"):
        read_source(tmp_path / "data.npz", make_model(ids=("int64", "N"), mask=("int64", "N")).signature)


def test_pickled_objects_are_never_loaded(tmp_path: Path, make_model) -> None:
    np.savez(tmp_path / "data.npz", inputs=np.array([{"a": 1}, {"b": 2}], dtype=object))
    with pytest.raises(Unsafe, match="pickled"):
        read_source(tmp_path / "data.npz", make_model().signature)
    np.save(tmp_path / "data.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(Unsafe, match="pickled"):
        read_source(tmp_path / "data.npy", make_model().signature)


def test_a_damaged_file_is_one_clear_line(tmp_path: Path, make_model) -> None:
    np.savez(tmp_path / "data.npz", inputs=np.zeros((50, 4)))
    whole = (tmp_path / "data.npz").read_bytes()
    for content in (whole[: len(whole) // 2], b"PK\x03\x04 no", b""):
        (tmp_path / "data.npz").write_bytes(content)
        with pytest.raises(BadInput, match=r"data\.npz"):
            read_source(tmp_path / "data.npz", make_model().signature)


def test_arrays_of_other_lengths_are_refused_with_their_lengths(tmp_path: Path, make_model) -> None:
    np.savez(tmp_path / "data.npz", inputs=np.zeros((50, 4)), labels=np.zeros(49, int))
    with pytest.raises(BadInput, match="50, labels 49"):
        read_source(tmp_path / "data.npz", make_model().signature)


def test_texts_are_known_by_their_dtype(tmp_path: Path, make_model) -> None:
    np.savez(tmp_path / "data.npz", review=np.array(["good", "bad"]), labels=np.array([1, 0]))
    signature = make_model(input_ids=("int64", "N", "T"), attention_mask=("int64", "N", "T")).signature
    assert read_source(tmp_path / "data.npz", signature).columns[TEXT].tolist() == ["good", "bad"]


def test_an_npy_file_is_mapped_and_has_no_labels(tmp_path: Path, make_model) -> None:
    np.save(tmp_path / "data.npy", np.ones((12, 4)))
    table = read_source(tmp_path / "data.npy", make_model().signature)
    assert isinstance(table.columns[ANY], np.memmap)
    assert table.labels is None


def test_a_lone_number_or_objects_are_no_items(tmp_path: Path, make_model) -> None:
    np.savez(tmp_path / "data.npz", inputs=np.float32(3))
    with pytest.raises(BadInput, match="'inputs' is a single number; each array needs one row per item"):
        read_source(tmp_path / "data.npz", make_model().signature)
    with pytest.raises(BadInput, match="'inputs' holds Python objects; store plain numbers"):
        read_source({"inputs": np.array([{}, {}], dtype=object)}, make_model().signature)


def test_only_the_documented_name_is_taken_where_several_arrays_could_be_the_input(tmp_path: Path, make_model) -> None:
    np.savez(tmp_path / "data.npz", extra=np.zeros((3, 2)), inputs=np.ones((3, 4)), labels=np.arange(3))
    assert read_source(tmp_path / "data.npz", make_model().signature).columns[ANY].tolist() == [[1] * 4] * 3
    np.savez(tmp_path / "data.npz", first=np.zeros((3, 2)), second=np.ones((3, 4)))
    with pytest.raises(BadInput, match="holds 'first', 'second'; name the array 'inputs'"):
        read_source(tmp_path / "data.npz", make_model().signature)


def test_a_file_of_another_kind_says_how_it_begins(tmp_path: Path, make_model) -> None:
    (tmp_path / "data.npz").write_bytes(b"\x80\x04pickled")
    with pytest.raises(BadInput, match=r"is not a \.npz file .it begins with .*; write it with numpy\.savez"):
        read_source(tmp_path / "data.npz", make_model().signature)
