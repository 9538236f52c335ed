import json
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.data.sources import read_source
from trimtab.data.table import ANY, TEXT


def test_numbers_are_the_other_columns_in_their_order(tmp_path: Path, make_model) -> None:
    (tmp_path / "d.csv").write_text("b,label,a,group\n1.5,cat,2,p\n\n3,dog,4.25,q\n")
    table = read_source(tmp_path / "d.csv", make_model(x=("float32", "N", 2)).signature)
    np.testing.assert_array_equal(table.columns[ANY], [[1.5, 2], [3, 4.25]])
    assert table.labels.tolist() == ["cat", "dog"]
    assert table.groups.tolist() == ["p", "q"]


def test_columns_that_bear_the_inputs_names_feed_them(tmp_path: Path, make_model) -> None:
    (tmp_path / "d.tsv").write_text("age\ty\theight\n30\t0\t1.8\n40\t1\t1.6\n")
    signature = make_model(height=("float32", "N"), age=("int64", "N")).signature
    table = read_source(tmp_path / "d.tsv", signature)
    assert table.columns["age"].dtype == np.int64
    assert table.columns["height"].tolist() == [1.8, 1.6]
    assert table.labels.tolist() == [0, 1]


def test_text_columns_are_texts_with_quotes_and_line_breaks(tmp_path: Path, make_model) -> None:
    (tmp_path / "d.csv").write_text('label,text\nham,"hello, you\nthere"\nspam,buy\n')
    table = read_source(tmp_path / "d.csv", make_model().signature)
    assert table.columns[TEXT].tolist() == ["hello, you\nthere", "buy"]
    assert table.labels.tolist() == ["ham", "spam"]


def test_json_lines_hold_nested_numbers(tmp_path: Path, make_model) -> None:
    records = [{"x": [[row, 2], [3, 4]], "label": row % 2, "split": "certify"} for row in range(3)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    table = read_source(tmp_path / "d.jsonl", make_model(x=("float32", "N", 2, 2)).signature)
    np.testing.assert_array_equal(table.columns["x"], [record["x"] for record in records])
    assert table.labels.dtype.kind == "i"
    assert table.splits.tolist() == ["certify"] * 3


@pytest.mark.parametrize("text, kind", [("1\n2", "i"), ("1.0\n2.5", "f"), ("a\n2", "U"), ("007\n2", "i")])
def test_labels_take_the_narrowest_kind_that_fits_all(tmp_path: Path, make_model, text: str, kind: str) -> None:
    rows = "\n".join(f"{label},1" for label in text.split("\n"))
    (tmp_path / "d.csv").write_text("label,v\n" + rows)
    assert read_source(tmp_path / "d.csv", make_model(x=("float32", "N", 1)).signature).labels.dtype.kind == kind


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("d.csv", "a,b\n1,2\n3\n", "line 3 has 1 values for 2 columns"),
        ("d.csv", "a,b\n", "header line"),
        ("d.csv", "a,label\nx,1\n", "'a' is not all numbers"),
        ("d.csv", "label\n1\n", "no column of inputs"),
        ("d.jsonl", '{"x": 1}\n{"x": \n', "line 2 is not JSON"),
        ("d.jsonl", '{"x": 1}\n{"z": 2}\n', "line 2 does not have the same names"),
        ("d.jsonl", "[1]\n", "not a JSON object"),
        ("d.jsonl", "\n\n", "no items"),
        ("d.jsonl", '{"x": [1, 2]}\n{"x": [1]}\n', "not all numbers of one shape"),
    ],
)
def test_bad_rows_are_one_clear_line(tmp_path: Path, make_model, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=message) as caught:
        read_source(tmp_path / name, make_model(x=("float32", "N", 2)).signature)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path, make_model) -> None:
    (tmp_path / "d.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(BadInput, match="UTF-8"):
        read_source(tmp_path / "d.csv", make_model().signature)
