from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.data.python import is_reference
from trimtab.data.sources import read_source
from trimtab.data.table import TEXT

INPUTS = np.arange(48.0).reshape(12, 4)
LABELS = np.arange(12) % 3


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(table, inputs=INPUTS, labels=LABELS) -> None:
    (column,) = table.columns.values()
    np.testing.assert_array_equal(column, inputs)
    if labels is None:
        assert table.labels is None
    else:
        np.testing.assert_array_equal(table.labels, labels)


@pytest.mark.parametrize(
    "source",
    [
        (INPUTS, LABELS),
        (INPUTS.tolist(), LABELS.tolist()),
        {"inputs": INPUTS, "labels": LABELS},
        {"x": INPUTS, "y": LABELS},
        ({"x": INPUTS}, LABELS),
        [(item, label) for item, label in zip(INPUTS, LABELS, strict=True)],
        [{"x": item, "label": label} for item, label in zip(INPUTS, LABELS, strict=True)],
    ],
)
def test_inputs_with_labels_come_in_many_shapes(make_model, source) -> None:
    check(read_source(source, make_model().signature))


@pytest.mark.parametrize(
    "source", [INPUTS, INPUTS.tolist(), (INPUTS, None), {"inputs": INPUTS}, [(i,) for i in INPUTS]]
)
def test_inputs_alone_have_no_labels(make_model, source) -> None:
    check(read_source(source, make_model().signature), labels=None)


def test_torch_tensors_data_sets_and_loaders_are_understood(make_model) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    inputs, labels = torch.tensor(INPUTS, requires_grad=True), torch.tensor(LABELS)
    signature = make_model().signature
    held = TensorDataset(inputs, labels)
    check(read_source((inputs, labels), signature))
    check(read_source(held, signature))
    check(read_source(DataLoader(held, batch_size=5), signature))
    with pytest.raises(BadInput, match="shuffle=False"):
        read_source(DataLoader(held, batch_size=5, shuffle=True), signature)


def test_texts_in_a_list_are_texts(make_model) -> None:
    signature = make_model(input_ids=("int64", "N", "T")).signature
    assert read_source((["a b", "c"], [0, 1]), signature).columns[TEXT].tolist() == ["a b", "c"]


def test_labels_never_take_the_name_of_an_input(make_model) -> None:
    signature = make_model(labels=("float32", "N", 4)).signature
    table = read_source(({"labels": INPUTS}, LABELS), signature)
    np.testing.assert_array_equal(table.columns["labels"], INPUTS)
    np.testing.assert_array_equal(table.labels, LABELS)


def test_a_function_in_the_working_folder_is_called_once(in_folder: Path, make_model) -> None:
    (in_folder / "own_data_one.py").write_text(
        "import numpy as np\ncalls = []\n"
        "def load():\n    calls.append(1)\n    return np.arange(48.0).reshape(12, 4), np.arange(12) % 3\n"
    )
    check(read_source("own_data_one:load", make_model().signature))
    import own_data_one  # the module that was just imported

    assert own_data_one.calls == [1]


@pytest.mark.parametrize(
    "reference, message",
    [
        ("nowhere_at_all:load", "can't be imported"),
        ("own_data_two:missing", "has no 'missing'"),
        ("own_data_two:number", "not a function"),
        ("own_data_two:broken", "ZeroDivisionError"),
        ("own_data_two:strange", "is a object"),
        ("own_data_two:wordy", "RuntimeError: two lines, told in full; mend it and run again"),
        ("own_data_four:load", "the module own_data_four failed: AttributeError: .* no attribute .absent.; mend it"),
        ("own_data_five:load", "the module own_data_five failed: SyntaxError: "),
    ],
)
def test_a_function_that_fails_is_one_clear_line(in_folder: Path, make_model, reference: str, message: str) -> None:
    (in_folder / "own_data_two.py").write_text(
        "number = 3\ndef broken():\n    1 / 0\ndef strange():\n    return object()\n"
        "def wordy():\n    raise RuntimeError('two lines,\\n  told in full')\n"
    )
    (in_folder / "own_data_four.py").write_text("import json\njson.absent\n")
    (in_folder / "own_data_five.py").write_text("def load(:\n")
    with pytest.raises(BadInput, match=message) as caught:
        read_source(reference, make_model().signature)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source", [[], (np.zeros((0, 4)), np.zeros(0)), [[1, 2], [3]], [(np.ones(2), 1), (np.ones(3), 0)]]
)
def test_empty_or_ragged_data_is_refused(make_model, source) -> None:
    with pytest.raises(BadInput):
        read_source(source, make_model().signature)


class Items:
    """What torch calls a map-style data set: a length and items by number."""

    def __init__(self, *items: object) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> object:
        return self.items[row]


def test_a_data_set_of_texts_or_numbers_needs_no_torch(make_model) -> None:
    texts = make_model(input_ids=("int64", "N", "T")).signature
    table = read_source(Items(("grün", 0), ("日本", 1)), texts)
    assert (table.columns[TEXT].tolist(), table.labels.tolist()) == (["grün", "日本"], [0, 1])
    assert read_source(Items(1.5, 2.5), make_model(x=("float32", "N")).signature).labels is None


def test_items_whose_label_is_none_have_no_labels(make_model) -> None:
    check(read_source(Items(*((item, None) for item in INPUTS)), make_model().signature), labels=None)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"x": np.ones(2)}, {"x": np.ones(2), "label": 1}], "hold different things .x in the first.; make them alike"),
        ([{"x": np.ones(2), "label": 1}, {"x": np.ones(2)}], "hold different things"),
        ([(np.ones(2), 1), (np.ones(3), 1)], "differ in shape .*; make them alike"),
        ([object()], "an item is a object; give .input, label., a dictionary, or a tensor"),
        ([], "holds no items; give data with at least a few hundred"),
    ],
)
def test_items_that_are_not_alike_are_one_clear_line(make_model, items: list, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read_source(Items(*items), make_model().signature)
    assert "\n" not in str(caught.value)


def test_a_message_of_the_users_own_data_is_passed_on(in_folder: Path, make_model) -> None:
    (in_folder / "own_data_three.py").write_text(
        "from trimtab.core.errors import BadInput\ndef load():\n    raise BadInput('fetch the archive first')\n"
    )
    with pytest.raises(BadInput, match="fetch the archive first") as caught:
        read_source("own_data_three:load", make_model().signature)
    assert str(caught.value) == "fetch the archive first"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a:b", True), ("a.b.c:d_1", True), ("a.py:b", True), ("C:\\data", False), ("a:b.c", False), ("http://x", False)],
)
def test_a_reference_is_a_module_and_a_name(text: str, expected: bool) -> None:
    assert is_reference(text) is expected


def test_a_tensor_of_a_type_that_numpy_lacks_is_named(make_model) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(BadInput, match=r"can't become an array .*BFloat16.*; turn it into a type that numpy has"):
        read_source((torch.zeros(12, 4, dtype=torch.bfloat16), LABELS), make_model().signature)
