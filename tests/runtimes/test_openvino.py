from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trimtab.core.errors import BadInput, MissingExtra
from trimtab.core.hints import STATIC_ENGINES
from trimtab.core.machine import machine
from trimtab.core.protocols import Opening
from trimtab.core.values import Settings, Step, Variant, Workload
from trimtab.formats.onnx import OnnxFormat
from trimtab.runtimes.openvino import OpenVinoRuntime, _cause
from trimtab.testing.networks import PERCEPTRON

openvino = pytest.importorskip("openvino")
PLAIN = Settings(runtime="openvino", precision="fp32", threads=1)


def test_answers_in_fp32_like_the_network(perceptron):
    inputs = PERCEPTRON.inputs(4, 0)
    answer = OpenVinoRuntime().load(perceptron(PLAIN))(inputs)
    assert np.allclose(answer["scores"], PERCEPTRON.answer(inputs)["scores"], atol=1e-5)


def test_settings_reach_the_engine(perceptron, monkeypatch):
    given = []
    real = openvino.Core.compile_model
    monkeypatch.setattr(
        openvino.Core, "compile_model", lambda self, *given_: given.append(given_[-1]) or real(self, *given_)
    )
    OpenVinoRuntime().load(perceptron(replace(PLAIN, streams=2)))
    OpenVinoRuntime().load(perceptron(Settings(runtime="openvino")))
    assert given == [
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 2,
        },
        {"PERFORMANCE_HINT": "LATENCY"},
    ]


def test_every_output_has_its_own_name_and_its_own_memory(tmp_path):
    sizes = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "up", "down")}
    nodes = [helper.make_node("Neg", ["x"], ["down"]), helper.make_node("Abs", ["x"], ["up"])]
    graph = helper.make_graph(nodes, "g", [sizes["x"]], [sizes["up"], sizes["down"]])
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    model = OnnxFormat().open(str(path), Opening(folder=tmp_path))
    engine = OpenVinoRuntime().load(Variant(model=model, settings=PLAIN))
    first = engine({"x": np.array([[-1, -2]], np.float32)})
    engine({"x": np.array([[5, 6]], np.float32)})
    assert {name: value.tolist() for name, value in first.items()} == {"up": [[1, 2]], "down": [[1, 2]]}


def test_the_engine_outlives_what_made_it(perceptron):
    engine = OpenVinoRuntime().load(perceptron(PLAIN))
    __import__("gc").collect()
    assert engine(PERCEPTRON.inputs(2, 0))["scores"].shape == (2, 4)


def test_offers_fp32_first_and_the_small_types_only_where_the_processor_computes_them():
    here = replace(machine(), cores=1)
    small = OpenVinoRuntime().settings(replace(here, flags=()), Workload())
    assert [(settings.precision, settings.static_shapes) for settings in small] == [("fp32", False), ("fp32", True)]
    large = OpenVinoRuntime().settings(replace(here, flags=("avx512_bf16", "amx_fp16")), Workload())
    assert [settings.precision for settings in large if not settings.static_shapes] == ["fp32", "bf16", "fp16"]
    many = OpenVinoRuntime().settings(replace(here, cores=4, flags=()), Workload())
    assert [settings.threads for settings in many] == [None, None, 1]
    assert {settings.streams for settings in many} == {None}, "calls are timed one after the other"


def test_packed_weights_are_offered_with_amx_and_run_what_sparsify_has_made(perceptron):
    here = replace(machine(), cores=1)
    plain = OpenVinoRuntime().settings(replace(here, flags=()), Workload())
    (packed,) = set(OpenVinoRuntime().settings(replace(here, flags=("amx_int8",)), Workload())) - set(plain)
    assert packed.label() == "openvino, fp32, sparse_weights=0.5"
    dense = perceptron(packed)
    sparse = replace(dense, steps=(Step(technique="sparsify"),))
    assert "sparsify" in str(OpenVinoRuntime().refuses(dense))
    assert OpenVinoRuntime().refuses(sparse) is None
    x = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    expected = OpenVinoRuntime().load(dense.on(PLAIN))({"x": x})["scores"]
    np.testing.assert_allclose(OpenVinoRuntime().load(sparse)({"x": x})["scores"], expected, rtol=1e-4, atol=1e-5)


STATIC = replace(PLAIN, static_shapes=True)


def compilations(monkeypatch) -> list[list[int]]:
    """Return a list that fills with the shape of the first input of every model that is compiled."""
    shapes: list[list[int]] = []
    real = openvino.Core.compile_model

    def compiled(self, model, *given):
        shape = model.inputs[0].get_partial_shape()
        shapes.append([size.get_length() if size.is_static else -1 for size in shape])
        return real(self, model, *given)

    monkeypatch.setattr(openvino.Core, "compile_model", compiled)
    return shapes


def test_static_shapes_compile_once_for_each_shape_that_comes_and_answer_the_same(perceptron, monkeypatch):
    shapes = compilations(monkeypatch)
    engine, free = OpenVinoRuntime().load(perceptron(STATIC)), OpenVinoRuntime().load(perceptron(PLAIN))
    assert shapes == [[-1, 16]]
    assert engine.precision is None
    for items in (1, 3, 1, 3):
        inputs = PERCEPTRON.inputs(items, items)
        np.testing.assert_allclose(engine(inputs)["scores"], free(inputs)["scores"], atol=1e-6)
    assert shapes[1:] == [[1, 16], [3, 16]]
    assert engine.precision == "fp32"


def test_static_shapes_keep_the_engines_of_the_last_shapes_only(perceptron, monkeypatch):
    shapes = compilations(monkeypatch)
    engine = OpenVinoRuntime().load(perceptron(STATIC))
    sizes = [*range(1, STATIC_ENGINES + 2), STATIC_ENGINES + 1, 1]
    for items in sizes:
        assert len(engine(PERCEPTRON.inputs(items, 0))["scores"]) == items
    assert [size for size, _ in shapes] == [*range(1, STATIC_ENGINES + 2), 1], "the first one had to go"


def test_static_shapes_are_refused_where_they_are_static_as_it_is(perceptron):
    variant = perceptron(STATIC)
    assert OpenVinoRuntime().refuses(variant) is None
    fixed = tuple(replace(spec, shape=(1, 16)) for spec in variant.model.signature.inputs)
    signature = replace(variant.model.signature, inputs=fixed)
    there = replace(variant, model=replace(variant.model, signature=signature))
    assert "static as it is" in str(OpenVinoRuntime().refuses(there))


def test_shapes_that_do_not_fit_are_one_clear_line(perceptron):
    with pytest.raises(BadInput, match="openvino can't compile this model: "):
        OpenVinoRuntime().load(perceptron(STATIC))({"x": np.zeros((1, 5), np.float32)})


def test_an_operator_that_it_does_not_know_is_named_in_one_line(operator):
    with pytest.raises(BadInput, match=r"can't compile this model: No conversion rule found for operations: Det-17$"):
        OpenVinoRuntime().load(Variant(model=operator("Det", 3, 3), settings=PLAIN))


def test_a_file_that_is_gone_is_told_in_one_line(perceptron):
    variant = perceptron(PLAIN)
    variant.model.path.unlink()
    with pytest.raises(BadInput, match="Could not open the file"):
        OpenVinoRuntime().load(variant)


def test_refuses_a_precision_that_it_does_not_have(perceptron):
    assert "none of fp32, bf16, fp16" in str(OpenVinoRuntime().refuses(perceptron(replace(PLAIN, precision="int4"))))


def test_without_openvino_the_error_says_what_to_install(perceptron, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"pip install 'trimtab\[openvino\]'"):
        OpenVinoRuntime().load(perceptron(PLAIN))


def test_its_telemetry_is_never_imported(perceptron):
    path = perceptron(PLAIN).model.path
    code = f"""
import sys
from pathlib import Path
from trimtab.core.protocols import Opening
from trimtab.core.values import Settings, Variant
from trimtab.formats.onnx import OnnxFormat
from trimtab.runtimes.openvino import OpenVinoRuntime, _cause
model = OnnxFormat().open({str(path)!r}, Opening(folder=Path(".")))
OpenVinoRuntime().load(Variant(model=model, settings=Settings(runtime="openvino")))
print(sys.modules.get("openvino_telemetry"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_without_a_hint_the_engine_tells_which_precision_it_chose(perceptron):
    chosen = OpenVinoRuntime().load(perceptron(Settings(runtime="openvino", threads=1))).precision
    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert chosen in ("fp32", "bf16", "fp16")
    assert chosen == "fp32" or chosen.upper() in able
    asked = OpenVinoRuntime().load(perceptron(replace(PLAIN, precision=chosen)))
    inputs = PERCEPTRON.inputs(4, 0)
    free = OpenVinoRuntime().load(perceptron(Settings(runtime="openvino", threads=1)))(inputs)["scores"]
    np.testing.assert_array_equal(asked(inputs)["scores"], free)


def test_a_hint_is_what_it_says(perceptron):
    assert OpenVinoRuntime().load(perceptron(PLAIN)).precision == "fp32"


@pytest.mark.parametrize("asked", [{"spinning": False}, {"fusion": False}, {"device": "gpu"}], ids=str)
def test_settings_that_it_would_ignore_are_refused(perceptron, asked):
    assert next(iter(asked)) in str(OpenVinoRuntime().refuses(perceptron(replace(PLAIN, **asked))))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Check failed at a.cpp:12:\nException from b.cpp\n-- no rule for Det\n\n", "no rule for Det"),
        ("one line", "one line"),
        (" \n", "no reason given"),
    ],
)
def test_the_last_line_of_an_error_is_the_one_that_says_something(said, told):
    assert _cause(said) == told
