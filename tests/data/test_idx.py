import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.data.idx import idx_files, read_idx, read_idx_folder
from trimtab.data.table import ANY


def write_idx(path: Path, array: np.ndarray, code: int = 0x08) -> None:
    """Writes the format by its published description, independently of the reader."""
    big = array.astype(array.dtype.newbyteorder(">"))
    content = struct.pack(">HBB", 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + big.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize(
    "code, dtype", [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")]
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_every_type_of_the_format_is_read(tmp_path: Path, code: int, dtype: str, suffix: str) -> None:
    array = np.arange(24).reshape(4, 3, 2).astype(dtype)
    write_idx(tmp_path / f"a-ubyte{suffix}", array, code)
    read = read_idx(tmp_path / f"a-ubyte{suffix}")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype


@pytest.mark.parametrize("separator, suffix", [("-", ""), (".", ""), ("-", ".gz")])
def test_train_feeds_calibration_and_t10k_is_judged(tmp_path: Path, separator: str, suffix: str) -> None:
    for name, count in (("train", 30), ("t10k", 12)):
        images = np.random.randint(0, 256, (count, 5, 5)).astype(np.uint8)
        write_idx(tmp_path / f"{name}-images{separator}idx3-ubyte{suffix}", images)
        write_idx(tmp_path / f"{name}-labels{separator}idx1-ubyte{suffix}", (np.arange(count) % 10).astype(np.uint8))
    table = read_idx_folder(tmp_path)
    assert table.columns[ANY].shape == (42, 5, 5)
    names, counts = np.unique(table.splits, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"test": 12, "train": 30}


def test_a_truncated_or_foreign_file_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((4, 5, 5), np.uint8))
    whole = (tmp_path / "t10k-images-idx3-ubyte").read_bytes()
    for content in (whole[:-1], whole[:6], b"hello world", b"\x1f\x8bgarbage"):
        (tmp_path / "t10k-images-idx3-ubyte").write_bytes(content)
        with pytest.raises(BadInput, match="fetch it again"):
            read_idx_folder(tmp_path)


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((4, 5, 5), np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(3, np.uint8))
    with pytest.raises(BadInput, match="3 labels for the 4 items"):
        read_idx_folder(tmp_path)


def test_labels_without_images_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(3, np.uint8))
    with pytest.raises(BadInput, match="no images"):
        read_idx_folder(tmp_path)


def test_images_alone_have_no_labels_and_a_lone_part_is_simply_the_data(tmp_path: Path) -> None:
    write_idx(tmp_path / "images-idx3-ubyte", np.arange(12, dtype=np.uint8).reshape(3, 2, 2))
    table = read_idx_folder(tmp_path)
    assert (len(table), table.labels, table.splits) == (3, None, None)


def test_other_files_of_the_folder_are_no_idx_files(tmp_path: Path) -> None:
    for name in ("readme.md", "train-images-idx3-ubyte.txt", "images.idx3", "emnist-train-images-idx3-ubyte"):
        (tmp_path / name).write_text("something else")
    assert idx_files(tmp_path) == {}


def test_of_a_file_and_its_gzipped_twin_the_plain_one_is_read(tmp_path: Path) -> None:
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.ones((2, 2, 2), np.uint8))
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", np.zeros((9, 2, 2), np.uint8))
    assert len(read_idx_folder(tmp_path)) == 2


def test_an_unknown_type_of_number_is_no_idx_file(tmp_path: Path) -> None:
    write_idx(tmp_path / "a-ubyte", np.zeros((2, 2), np.uint8), code=0x0A)
    with pytest.raises(BadInput, match="not an IDX file"):
        read_idx(tmp_path / "a-ubyte")
