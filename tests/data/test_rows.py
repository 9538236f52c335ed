import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.core.errors import BadInput
from trimtab.data.rows import read_csv
from trimtab.data.sources import read_source
from trimtab.data.table import ANY, TEXT, Wanted


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
        ("d.csv", "a,a,label\n1,2,0\n", "two columns named 'a'; rename or drop one"),
        ("d.csv", "a,b,label\n1,2,0\n3,4,\n", "item 1 has no label .1 such in all.; fill it in or drop it"),
        ("d.jsonl", '{"x": 1, "y": null}\n', "item 0 has no label"),
        ("d.jsonl", '{"x": 1, "y": [1]}\n{"x": 1, "y": [1, 2]}\n', "'label' is not all numbers of one shape"),
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


def test_a_byte_order_mark_and_spaces_around_names_do_not_matter(tmp_path: Path, make_model) -> None:
    (tmp_path / "d.csv").write_bytes("\ufeffx , label\n1,größe\n2,maß\n".encode())
    table = read_source(tmp_path / "d.csv", make_model(x=("float32", "N")).signature)
    assert (table.columns["x"].tolist(), table.labels.tolist()) == ([1.0, 2.0], ["größe", "maß"])


def test_lists_as_labels_are_targets_of_a_regression(tmp_path: Path, make_model) -> None:
    (tmp_path / "d.jsonl").write_text('{"x": 1, "y": [1, 2.5]}\n{"x": 2, "y": [3, 4]}\n')
    table = read_source(tmp_path / "d.jsonl", make_model(x=("float32", "N")).signature)
    assert table.labels.tolist() == [[1, 2.5], [3, 4]]


def test_whole_numbers_stay_whole_for_a_model_that_takes_such(tmp_path: Path, make_model) -> None:
    (tmp_path / "d.csv").write_text("a,b\n1,2\n3,4\n")
    column = read_source(tmp_path / "d.csv", make_model(x=("int64", "N", 2)).signature).columns[ANY]
    assert (column.dtype, column.tolist()) == (np.int64, [[1, 2], [3, 4]])
    (tmp_path / "d.csv").write_text("a,b\n1,2\n3,4.5\n")
    column = read_source(tmp_path / "d.csv", make_model(x=("int64", "N", 2)).signature).columns[ANY]
    assert column.tolist() == [[1, 2], [3, 4.5]], "nothing is rounded; the cast is refused later, in words"


def test_a_label_column_that_is_an_input_of_the_model_is_an_input(tmp_path: Path, make_model) -> None:
    (tmp_path / "d.csv").write_text("x,y,label\n1,2,0\n3,4,1\n")
    table = read_source(tmp_path / "d.csv", make_model(x=("float32", "N"), y=("float32", "N")).signature)
    assert (table.columns["y"].tolist(), table.labels.tolist()) == ([2, 4], [0, 1])


words = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"))


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), words), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_what_the_csv_module_writes_is_read_back(rows: list[tuple[float, str]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "d.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("x", "group"), *rows])
        table = read_csv(path, Wanted(inputs=(("x", "float64"),)))
    assert table.columns["x"].tolist() == [number for number, _ in rows]
    assert table.groups.tolist() == [group for _, group in rows]
