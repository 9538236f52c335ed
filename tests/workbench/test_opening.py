from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given as each
from hypothesis import strategies as st

from trimtab.core.errors import BadInput, Unsafe
from trimtab.core.machine import machine
from trimtab.core.values import Model, Settings, Signature, Task, Variant
from trimtab.serving.bundle import write_bundle
from trimtab.testing.networks import PERCEPTRON
from trimtab.testing.samples import source
from trimtab.workbench.opening import (
    ModelRequest,
    as_given,
    default_settings,
    example_of,
    open_model,
    parse_examples,
    parse_states,
    shared,
)


def test_a_path_is_opened_by_the_format_that_claims_it_on_the_formats_own_runtime(tmp_path):
    variant = open_model(source("onnx", tmp_path), tmp_path / "work")
    assert variant.model.format == "onnx"
    assert (variant.settings, variant.steps) == (Settings(runtime="onnxruntime"), ())
    assert variant.model.path.is_absolute()


def test_models_and_variants_are_taken_as_they_are(tmp_path):
    variant = open_model(source("onnx", tmp_path), tmp_path / "work")
    assert open_model(variant, tmp_path) is variant
    assert open_model(variant.model, tmp_path) == variant


def test_a_bundle_is_opened_with_its_settings_and_steps(tmp_path):
    variant = open_model(source("onnx", tmp_path), tmp_path / "work").on(Settings(runtime="openvino", threads=1))
    write_bundle(tmp_path / "b", variant, Task(), measurement=None, certificate=None, machine=machine(), version="")
    opened = open_model(str(tmp_path / "b"), tmp_path / "work")
    assert opened.settings == variant.settings
    assert opened.key == variant.key
    assert opened.model.path.is_relative_to(tmp_path / "b")


@pytest.mark.parametrize("kind", ["onnx", "openvino", "torch-export"])
def test_one_model_in_two_places_has_one_key(tmp_path, kind):
    keys = {open_model(source(kind, tmp_path / place), tmp_path / f"{place} work").key for place in ("here", "there")}
    assert len(keys) == 1


def test_one_file_whose_states_are_told_is_another_model_to_what_is_kept(tmp_path):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "memory"], ["y"]), onnx.helper.make_node("Mul", ["x", "memory"], ["kept"])],
        "recurrent",
        [value(name, onnx.TensorProto.FLOAT, [1, 3]) for name in ("x", "memory")],
        [value(name, onnx.TensorProto.FLOAT, [1, 3]) for name in ("y", "kept")],
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "net.onnx")
    plain = open_model(tmp_path / "net.onnx", tmp_path / "work")
    told = open_model(tmp_path / "net.onnx", tmp_path / "work", ModelRequest(states=(("memory", "kept"),)))
    assert told.model.digest == plain.model.digest
    assert told.key != plain.key


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.onnx", "there is no file"),
        ("nowhere", "there is no model file"),
        ("notes.txt", "is no model that trimtab reads"),
        ("folder", "is no model that trimtab reads"),
        ("weights.pt", "factory"),
    ],
)
def test_what_can_not_be_opened_is_one_clear_line(tmp_path, name, words):
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "weights.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(BadInput, match=words) as raised:
        open_model(str(tmp_path / name), tmp_path / "work")
    assert "\n" not in str(raised.value)


def test_something_that_is_no_model_at_all_is_named(tmp_path):
    with pytest.raises(BadInput, match="a dict is no model"):
        open_model({}, tmp_path)


def test_a_pickle_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x80\x04\x95")
    with pytest.raises(Unsafe, match="is a pickle"):
        open_model(tmp_path / "model.onnx", tmp_path / "work")


def test_states_are_named_by_pairs():
    assert parse_states(["h_in=h_out", " c = d "]) == (("h_in", "h_out"), ("c", "d"))
    for text in ("h", "h=", "=h", ""):
        with pytest.raises(BadInput, match='type it like "h_in=h_out"'):
            parse_states([text])


def test_inputs_are_named_with_dtype_and_shape():
    given = ["x:float32[1,1,28,28]", "n:int64[]", " ids : int64[2, 7]"]
    assert parse_examples(given) == (
        ("x", (1, 1, 28, 28), "float32"),
        ("n", (), "int64"),
        ("ids", (2, 7), "int64"),
    )
    for text in (
        "x",
        "x:float32",
        "x:float32[a]",
        "x:float32[1",
        ":float32[1]",
        "x:[1]",
        "x:float32[1]y",
        "x:float32[0]",
    ):
        with pytest.raises(BadInput, match=r'type it like "x:float32\[1,1,28,28\]"'):
            parse_examples([text])


def test_a_dtype_that_does_not_exist_is_named():
    with pytest.raises(BadInput, match="'floot' is no type of numbers"):
        parse_examples(["x:floot[1]"])


def test_another_runtime_is_taken_with_its_own_defaults(tmp_path):
    variant = open_model(source("onnx", tmp_path), tmp_path / "work")
    assert default_settings(variant, None) is variant
    assert default_settings(variant, "openvino").settings == Settings(runtime="openvino")
    with pytest.raises(BadInput, match=r"there is no runtime named 'nothing'; known are: .*onnxruntime"):
        default_settings(variant, "nothing")


class TestLiveModules:
    """A module in memory."""

    @pytest.fixture
    def module(self):
        pytest.importorskip("torch")
        from trimtab.testing import perceptron

        return perceptron.make(0)

    def test_is_saved_and_answers_like_itself(self, module, tmp_path):
        request = ModelRequest(example=(("x", (1, 16), "float32"),))
        variant = open_model(module, tmp_path, request)
        assert variant.model.path.is_relative_to(tmp_path)
        from trimtab.core.engine import ready

        inputs = PERCEPTRON.inputs(3, 0)
        (answer,) = ready(variant)(inputs).values()
        assert np.allclose(answer, PERCEPTRON.answer(inputs)["scores"], atol=1e-5)

    def test_must_be_told_what_it_takes(self, module, tmp_path):
        with pytest.raises(BadInput, match="a live module doesn't say what it takes"):
            open_model(module, tmp_path)

    def test_its_example_is_found_in_the_data_that_it_is_fed_with(self, module):
        wanted = (("x", (1, 16), "float32"),)
        data = PERCEPTRON.inputs(5, 0)["x"]
        labels = np.zeros(5, np.int64)
        for given in (data, data.astype(np.float64), (data, labels), {"x": data}, {"inputs": data, "labels": labels}):
            assert example_of(module, given) == wanted
        for unknown in (None, "data.csv", Task()):
            assert example_of(module, unknown) == ()
        for wrong in ({"y": data}, 3):
            with pytest.raises(BadInput, match=r"name the array 'inputs'|is a int; give an array"):
                example_of(module, wrong)

    def test_its_example_is_found_in_data_sets_and_loaders(self, module):
        from torch import from_numpy, zeros
        from torch.utils.data import DataLoader, TensorDataset

        data = PERCEPTRON.inputs(5, 0)["x"]
        held = TensorDataset(from_numpy(data), zeros(5, dtype=int))
        named = [{"x": item, "labels": 0} for item in data]
        loaders = (DataLoader(held, batch_size=2), DataLoader(named, batch_size=2))
        for given in (held, named, data.tolist(), *loaders):
            assert example_of(module, given) == (("x", (1, 16), "float32"),)
        with pytest.raises(BadInput, match="shuffle=False"):
            example_of(module, DataLoader(held, shuffle=True))

    def test_its_weights_are_its_own(self, module, tmp_path):
        with pytest.raises(BadInput, match=r"--weights gives .* this .* is opened without it"):
            open_model(module, tmp_path, ModelRequest(weights=tmp_path / "w.pt"))


WEIGHTS = ModelRequest(weights=Path("w.safetensors"))
INPUT = ModelRequest(example=(("x", (1, 16), "float32"),))
STATE = ModelRequest(states=(("h", "h_out"),))


@pytest.mark.parametrize(
    ("kind", "request_", "words"),
    [
        ("onnx", WEIGHTS, "--weights gives the weights of a PyTorch factory, for models of the format torch;"),
        ("onnx", INPUT, "--input says what a PyTorch factory takes, for models of the format torch;"),
        ("openvino", WEIGHTS, "--weights"),
        ("openvino", INPUT, "--input"),
        ("openvino", STATE, "--state names an input and the output that feeds it at the next call, for .* onnx"),
        ("torch-export", WEIGHTS, "--weights"),
        ("torch-export", INPUT, "--input"),
    ],
)
def test_an_option_that_a_format_does_not_read_is_refused(tmp_path, kind, request_, words):
    given = source(kind, tmp_path)
    with pytest.raises(BadInput, match=words) as raised:
        open_model(given, tmp_path / "work", request_)
    assert str(raised.value).endswith(f"{given} is opened without it: leave it out")


def test_a_hugging_face_folder_a_bundle_and_an_opened_model_read_no_weights(tmp_path):
    variant = open_model(source("onnx", tmp_path), tmp_path / "work")
    write_bundle(tmp_path / "b", variant, Task(), measurement=None, certificate=None, machine=machine(), version="")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text('{"model_type": "bert"}')
    for given in (tmp_path / "hf", tmp_path / "b", variant, variant.model):
        for request in (WEIGHTS, INPUT):
            with pytest.raises(BadInput, match="is opened without it: leave it out"):
                open_model(given, tmp_path / "work", request)
    with pytest.raises(BadInput, match="--state"):
        open_model(tmp_path / "b", tmp_path / "work", STATE)


def test_of_several_models_each_is_opened_with_what_it_reads_if_one_reads_it(tmp_path):
    net = source("onnx", tmp_path)
    both = ModelRequest(weights=Path("w.safetensors"), states=(("h", "h_out"),))
    assert shared([net, "nets:make"], both) == [STATE, both]
    assert shared([net, net], both) == [both, both]
    assert shared([net], ModelRequest(trust_pickle=True)) == [ModelRequest(trust_pickle=True)]


@pytest.mark.parametrize(
    ("name", "runtime"),
    [("onnx", "onnxruntime"), ("openvino", "openvino"), ("torch", "torch"), ("huggingface", "torch")],
)
def test_a_model_runs_on_its_own_runtime_by_default(name: str, runtime: str) -> None:
    model = Model(format=name, path=Path("m"), digest="d", signature=Signature(inputs=(), outputs=()))
    assert as_given(model) == Variant(model=model, settings=Settings(runtime=runtime))


def test_a_format_that_nothing_runs_is_told() -> None:
    model = Model(format="unheard-of", path=Path("m"), digest="d", signature=Signature(inputs=(), outputs=()))
    with pytest.raises(BadInput, match="no runtime of this installation runs unheard-of models; trimtab inspect"):
        as_given(model)


def test_a_request_keeps_everything_that_was_typed(tmp_path: Path) -> None:
    request = ModelRequest(
        weights=tmp_path / "w.safetensors",
        trust_pickle=True,
        states=(("h_in", "h_out"),),
        example=(("x", (1, 2), "float32"),),
    )
    opening = request.opening(tmp_path)
    assert {name: getattr(opening, name) for name in ("weights", "trust_pickle", "states", "example")} == {
        name: getattr(request, name) for name in ("weights", "trust_pickle", "states", "example")
    }
    assert opening.folder == tmp_path


def test_a_bundle_that_was_changed_is_not_opened(tmp_path: Path) -> None:
    variant = open_model(source("onnx", tmp_path), tmp_path / "work")
    write_bundle(tmp_path / "b", variant, Task(), measurement=None, certificate=None, machine=machine(), version="")
    (tmp_path / "b" / "model" / "perceptron.onnx").write_bytes(b"changed")
    with pytest.raises(BadInput, match="was changed; copy the whole folder again"):
        open_model(tmp_path / "b", tmp_path / "work")


@each(
    name=st.text("abcXYZ_.0123456789", min_size=1, max_size=12),
    sizes=st.lists(st.integers(1, 10**6), max_size=5),
    dtype=st.sampled_from(("float32", "int64", "uint8", "bool", "float16")),
)
def test_every_input_reads_back_as_it_was_typed(name: str, sizes: list[int], dtype: str) -> None:
    assert parse_examples([f"{name}:{dtype}{sizes}"]) == ((name, tuple(sizes), dtype),)
