from pathlib import Path

import numpy as np
import pytest

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
