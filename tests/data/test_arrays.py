import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from trimtab.core.errors import BadInput
from trimtab.data.arrays import open_array, parts, row_digests, save_array, save_rows


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64", "int64", "bool", "<U5"])
def test_what_is_saved_is_read_back_and_mapped(tmp_path: Path, dtype: str) -> None:
    array = (np.arange(300 * 6).reshape(300, 2, 3) % 7).astype(dtype)
    file = save_array("x", tmp_path / "x.npy", array)
    read = open_array(file)
    assert isinstance(read, np.memmap)
    np.testing.assert_array_equal(read, array)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), array)
    assert (file.name, file.shape) == ("x", (300, 2, 3))


def test_chunks_are_written_one_after_the_other(tmp_path: Path) -> None:
    chunks = [np.full((2, 3), value, dtype=np.int16) for value in range(4)]
    file = save_rows("x", tmp_path / "x.npy", iter(chunks), 8)
    np.testing.assert_array_equal(open_array(file), np.concatenate(chunks))


def test_chunks_that_differ_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    chunks = [np.zeros((2, 3)), np.zeros((2, 4))]
    with pytest.raises(BadInput, match="must be alike"):
        save_rows("x", tmp_path / "x.npy", iter(chunks), 4)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_gone_damaged_or_another_is_refused(tmp_path: Path) -> None:
    file = save_array("x", tmp_path / "x.npy", np.arange(12.0).reshape(4, 3))
    np.save(file.path, np.zeros((4, 2)))
    with pytest.raises(BadInput, match="instead of float64"):
        open_array(file)
    file.path.write_bytes(b"\x93NUMPY")
    with pytest.raises(BadInput, match="damaged"):
        open_array(file)
    file.path.unlink()
    with pytest.raises(BadInput, match="is gone"):
        open_array(file)


def test_the_mapped_array_can_not_be_changed(tmp_path: Path) -> None:
    array = open_array(save_array("x", tmp_path / "x.npy", np.zeros(3)))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_parts_cover_every_row_once() -> None:
    assert [row for part in parts(10, 4) for row in range(10)[part]] == list(range(10))
    assert list(parts(0, 4)) == []


def test_rows_have_one_digest_exactly_when_all_their_arrays_are_equal() -> None:
    first = np.array([[1, 2], [1, 2], [1, 2]])
    second = np.array([5, 5, 6])
    digests = row_digests([first, second])
    assert digests[0] == digests[1] != digests[2]


@given(
    arrays(
        dtype=st.sampled_from(["uint8", ">i2", "float32", ">f8", "bool"]),
        shape=array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5),
    ),
    st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_any_array_is_read_back_whatever_its_chunks_byte_order_and_layout(array: np.ndarray, size: int) -> None:
    with TemporaryDirectory() as folder:
        chunks = (np.asfortranarray(array)[part] for part in parts(len(array), size))
        read = open_array(save_rows("x", Path(folder) / "größe.npy", chunks, len(array)))
        np.testing.assert_array_equal(read, array)
        assert read.dtype.name == array.dtype.name


def test_items_without_a_number_are_kept_too(tmp_path: Path) -> None:
    file = save_array("x", tmp_path / "x.npy", np.zeros((5, 0, 3), np.float32))
    assert open_array(file).shape == (5, 0, 3)


def test_no_items_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="x: there are no items; give at least one"):
        save_array("x", tmp_path / "x.npy", np.zeros((0, 3)))
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_fails_midway_leaves_the_old_file_whole(tmp_path: Path) -> None:
    def broken():
        yield np.zeros((1, 2))
        raise BadInput("the second file can't be read")

    old = save_array("x", tmp_path / "x.npy", np.ones((3, 2)))
    with pytest.raises(BadInput, match="second file"):
        save_rows("x", tmp_path / "x.npy", broken(), 2)
    assert open_array(old).tolist() == [[1, 1]] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_a_digest_is_that_of_the_bytes_of_all_arrays_one_after_the_other() -> None:
    first, second = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7, 8], dtype=np.int16)
    expected = [
        hashlib.blake2b(first[row].tobytes() + second[row].tobytes(), digest_size=16).digest() for row in (0, 1)
    ]
    assert row_digests([first, second]) == expected
    assert row_digests([np.asfortranarray(first), second]) == expected
