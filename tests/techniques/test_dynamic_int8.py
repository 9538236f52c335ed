"""Dynamic int8: which layers, how many bits, what stays in float."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core.values import Settings, Task, Variant
from trimtab.formats.onnx import save
from trimtab.techniques.dynamic_int8 import DynamicInt8


def operators(variant: Variant) -> list[str]:
    return [node.op_type for node in onnx.load(variant.model.path).graph.node]


def largest_weight(variant: Variant) -> int:
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(variant.model.path).graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1
    ]
    assert weights
    return int(max(np.abs(weight.astype(int)).max() for weight in weights))


def test_needs_no_data_and_takes_a_quarter_of_the_space(given: Any, context: Any) -> None:
    variant, _ = given("transformer")
    assert DynamicInt8().refuses(variant, Task()) is None
    made = DynamicInt8().apply(variant, context(variant, Task()))
    assert made.model.path.stat().st_size < 0.5 * variant.model.path.stat().st_size
    assert operators(made).count("MatMulInteger") == 5  # four projections and the head; products of activations stay


def test_a_model_without_matrices_is_refused(tmp_path: Any) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    variant = Variant(model=save(proto, tmp_path / "m.onnx"), settings=Settings(runtime="onnxruntime"))
    assert "the model has none" in str(DynamicInt8().refuses(variant, Task()))


@pytest.mark.parametrize(("reduce_range", "bound"), [(True, 64), (False, 127)])
def test_weights_have_7_bits_or_8_as_asked(reduce_range: bool, bound: int, given: Any, context: Any) -> None:
    variant, task = given("transformer")
    made = DynamicInt8(reduce_range=reduce_range).apply(variant, context(variant, task))
    assert bound / 2 < largest_weight(made) <= bound
    assert dict(made.steps[0].options)["reduce_range"] is reduce_range if reduce_range else True


def test_layers_that_are_kept_stay_in_float(given: Any, context: Any) -> None:
    variant, task = given("transformer")
    prepared = DynamicInt8().prepare(variant, context(variant, task))
    assert set(prepared.layers) >= {"query", "key", "value", "out"}
    assert not {"scores", "mix"} & set(prepared.layers)
    made = DynamicInt8(keep="query|value").apply(variant, context(variant, task, "kept"))
    weights = {tensor.name: tensor.data_type for tensor in onnx.load(made.model.path).graph.initializer}
    assert weights["wq"] == weights["wv"] == TensorProto.FLOAT
    assert "wk" not in weights


def test_with_every_layer_kept_nothing_is_quantized(given: Any, context: Any, outputs: Any) -> None:
    variant, task = given("transformer")
    prepared = DynamicInt8().prepare(variant, context(variant, task))
    made = DynamicInt8(keep="|".join(prepared.layers)).apply(variant, context(variant, task, "kept"))
    assert not {"MatMulInteger", "DynamicQuantizeLinear"} & set(operators(made))
    np.testing.assert_allclose(outputs(made, task), outputs(variant, task), atol=1e-5)


def test_another_engines_settings_become_those_of_onnxruntime_with_as_many_threads(given: Any, context: Any) -> None:
    variant, task = given("transformer")
    foreign = replace(variant, settings=Settings(runtime="openvino", precision="bf16", threads=1))
    made = DynamicInt8().apply(foreign, context(foreign, task))
    assert made.settings == Settings(runtime="onnxruntime", threads=1)
