"""Shapes of the operators that ONNX can't infer, against what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.formats.onnx_inference import MICROSOFT, Value, declared, domain_of
from trimtab.formats.onnx_shapes import walk

runtime = pytest.importorskip("onnxruntime")

Given = list[tuple[str, list[int]] | None]
"""The type and shape of every input, None for one that is left out."""

SCALE, ZERO = ("float32", []), ("uint8", [])


def quantized(*shapes: list[int]) -> Given:
    return [part for shape in shapes for part in (("uint8", shape), SCALE, ZERO)]


def model(kind: str, given: Given, outputs: list[str], domain: str, **attributes: Any) -> onnx.ModelProto:
    """One node: its first input is fed, the others are weights."""
    rng = np.random.default_rng(0)
    names = ["" if part is None else f"x{index}" for index, part in enumerate(given)]
    contents = [
        numpy_helper.from_array(np.asarray(rng.integers(1, 3, shape)).astype(dtype), name)
        for name, (dtype, shape) in ((n, p) for n, p in zip(names, given, strict=True) if p is not None)
    ]
    node = helper.make_node(kind, names, outputs, domain=domain, **attributes)
    first = contents[0]
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(first.name, first.data_type, first.dims)],
        [helper.make_empty_tensor_value_info(name) for name in outputs if name],
        contents[1:],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def expected(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what ONNX Runtime answers."""
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = runtime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (fed,) = session.get_inputs()
    dtype = helper.tensor_dtype_to_np_dtype(proto.graph.input[0].type.tensor_type.elem_type)
    values = session.run(None, {fed.name: np.ones(fed.shape, dtype)})
    return {output.name: value.shape for output, value in zip(session.get_outputs(), values, strict=True)}


CASES: dict[str, tuple[str, Given, list[str], dict[str, Any]]] = {
    "transposed and broadcast": (
        "FusedMatMul", [("float32", [1, 3, 5]), ("float32", [4, 7, 3])], ["y"], {"transA": 1, "transB": 1},
    ),
    "a vector": ("FusedMatMul", [("float32", [2, 5, 3]), ("float32", [3])], ["y"], {}),
    "transposed": ("TransposeMatMul", [("float32", [2, 3, 5]), ("float32", [2, 3, 7])], ["y"], {"transA": 1}),
    "gemm": ("FusedGemm", [("float32", [5, 3]), ("float32", [7, 3])], ["y"], {"transB": 1, "activation": "Relu"}),
    "conv": (
        "FusedConv", [("float32", [2, 3, 7, 9]), ("float32", [6, 3, 3, 3])], ["y"],
        {"activation": "Relu", "strides": [2, 1], "pads": [1, 0, 1, 0]},
    ),
    "4 bits": (
        "MatMulNBits", [("float32", [2, 5, 64]), ("uint8", [7, 2, 16]), ("float32", [14])], ["y"],
        {"K": 64, "N": 7, "bits": 4, "block_size": 32},
    ),
    "4 bits, normal": (
        "MatMulBnb4", [("float32", [5, 64]), ("uint8", [224]), ("float32", [28])], ["y"],
        {"K": 64, "N": 7, "block_size": 16, "quant_type": 1},
    ),
    "dynamic": ("DynamicQuantizeMatMul", [("float32", [2, 5, 3]), ("int8", [3, 7]), ("float32", [1])], ["y"], {}),
    "integers to floats": (
        "MatMulIntegerToFloat", [("uint8", [2, 5, 3]), ("uint8", [3, 7]), SCALE, SCALE], ["y"], {},
    ),
    "quantized gemm": ("QGemm", quantized([5, 3], [7, 3]), ["y"], {"transB": 1}),
    "quantized sum": ("QLinearAdd", [*quantized([2, 3, 1], [3, 4]), SCALE, ZERO], ["y"], {}),
    "quantized product": ("QLinearMul", [*quantized([2, 1, 4], [3, 1]), SCALE, ZERO], ["y"], {}),
    "quantized pooling": (
        "QLinearAveragePool", [*quantized([1, 4, 7, 7]), SCALE, ZERO], ["y"],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    "quantized global pooling": (
        "QLinearGlobalAveragePool", [*quantized([2, 4, 7, 7]), SCALE, ZERO], ["y"], {"channels_last": 0},
    ),
    "quantized joining": ("QLinearConcat", [SCALE, ZERO, *quantized([2, 3], [2, 5], [2, 1])], ["y"], {"axis": 1}),
    "quantized activation": ("QLinearSigmoid", [*quantized([2, 3]), SCALE, ZERO], ["y"], {}),
    "quantized leaky activation": ("QLinearLeakyRelu", [*quantized([2, 3]), SCALE, ZERO], ["y"], {"alpha": 0.1}),
    "quantized softmax": ("QLinearSoftmax", [*quantized([2, 3]), SCALE, ZERO], ["y"], {"axis": 1, "opset": 13}),
    "quantized conv": (
        "QLinearConv", [*quantized([1, 3, 7, 7], [6, 3, 3, 3]), SCALE, ZERO], ["y"], {"strides": [2, 2]},
    ),
    "gelu": ("Gelu", [("float32", [2, 5, 8])], ["y"], {}),
    "gelu with bias": ("BiasGelu", [("float32", [2, 5, 8]), ("float32", [8])], ["y"], {}),
    "fast gelu": ("FastGelu", [("float32", [2, 5, 8]), ("float32", [8])], ["y"], {}),
    "quick gelu": ("QuickGelu", [("float32", [2, 5, 8])], ["y"], {}),
    "normalized sum": (
        "SkipLayerNormalization", [("float32", [2, 5, 8])] * 2 + [("float32", [8])] * 2, ["y", "", "", "sum"], {},
    ),
    "root mean square of a sum": (
        "SkipSimplifiedLayerNormalization", [("float32", [2, 5, 8])] * 2 + [("float32", [8])], ["y", "", "", "sum"], {},
    ),
    "embedding": (
        "EmbedLayerNormalization",
        [("int32", [2, 5]), ("int32", [2, 5]), ("float32", [20, 8]), ("float32", [10, 8]), ("float32", [3, 8]),
         ("float32", [8]), ("float32", [8])],
        ["y", "mask"], {},
    ),
    "attention": (
        "Attention", [("float32", [2, 5, 12]), ("float32", [12, 36]), ("float32", [36])], ["y"], {"num_heads": 4},
    ),
    "attention with narrow values": (
        "Attention", [("float32", [2, 5, 12]), ("float32", [12, 32]), ("float32", [32])], ["y"],
        {"num_heads": 4, "qkv_hidden_sizes": [12, 12, 8]},
    ),
    "quantized attention": (
        "QAttention",
        [("uint8", [2, 5, 12]), ("uint8", [12, 36]), ("float32", [36]), SCALE, SCALE, None, ZERO, ZERO],
        ["y"], {"num_heads": 4},
    ),
    "heads": (
        "MultiHeadAttention", [("float32", [2, 5, 12]), ("float32", [2, 7, 12]), ("float32", [2, 7, 8])], ["y"],
        {"num_heads": 4},
    ),
    "split heads": (
        "MultiHeadAttention", [("float32", [2, 5, 12]), ("float32", [2, 4, 7, 3]), ("float32", [2, 4, 7, 3])], ["y"],
        {"num_heads": 4},
    ),
    "rotation": (
        "RotaryEmbedding",
        [("float32", [2, 5, 16]), ("int64", [2, 5]), ("float32", [10, 4]), ("float32", [10, 4])], ["y"],
        {"num_heads": 2},
    ),
    "quantized lstm": (
        "DynamicQuantizeLSTM",
        [("float32", [9, 2, 6]), ("int8", [1, 6, 32]), ("int8", [1, 8, 32]), *[None] * 5,
         ("float32", [1]), ("int8", [1]), ("float32", [1]), ("int8", [1])],
        ["y", "last h", "last c"], {"hidden_size": 8},
    ),
    "to integers": ("QuantizeLinear", [("float32", [2, 3]), SCALE, ZERO], ["y"], {}),
    "from integers": ("DequantizeLinear", [("uint8", [2, 3]), SCALE, ZERO], ["y"], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_shapes_are_those_that_onnxruntime_computes(case: str) -> None:
    kind, given, outputs, attributes = CASES[case]
    proto = model(kind, given, outputs, MICROSOFT, **attributes)
    (visit,) = walk(proto, {"x0": tuple(given[0][1])})  # type: ignore[index] # the first input is always given
    found = {name: value.shape for name, value in zip(visit.node.output, visit.outputs, strict=True) if name}
    assert found == expected(proto)


@pytest.mark.parametrize("kind", sorted({kind for kind, *_ in CASES.values()}))
def test_inputs_that_are_not_known_make_outputs_that_are_not_known_and_no_crash(kind: str) -> None:
    names = [f"x{index}" for index in range(12)]
    node = helper.make_node(kind, names, ["y"], domain=MICROSOFT)
    given = [helper.make_empty_tensor_value_info(name) for name in names]
    graph = helper.make_graph([node], "one", given, [helper.make_empty_tensor_value_info("y")])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    (visit,) = walk(helper.make_model(graph, opset_imports=opsets), {})
    assert visit.outputs[0].shape is None
    assert walk(_bare(kind), {})[0].outputs[0].shape is None


def _bare(kind: str) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(kind, [], ["y"], domain=MICROSOFT)], "one", [], [helper.make_empty_tensor_value_info("y")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(MICROSOFT, 1)])


def test_channels_that_come_last_are_not_guessed() -> None:
    kind, given, outputs, attributes = CASES["quantized conv"]
    proto = model(kind, given, outputs, MICROSOFT, **attributes, channels_last=1)
    (visit,) = walk(proto, {"x0": (1, 3, 7, 7)})
    assert visit.outputs[0].shape is None


class TestDeclared:
    def test_sizes_by_name_where_they_are_known(self):
        info = helper.make_tensor_value_info("x", TensorProto.INT8, ["n", 3, "m", None, -1])
        assert declared(info.type, {"n": 5}) == Value(TensorProto.INT8, (5, 3, None, None, None))

    def test_without_a_shape_it_is_not_known_a_scalar_is(self):
        assert declared(helper.make_tensor_value_info("x", TensorProto.FLOAT, None).type, {}).shape is None
        assert declared(helper.make_tensor_value_info("x", TensorProto.FLOAT, []).type, {}).shape == ()

    def test_what_is_no_tensor_keeps_its_type(self):
        given = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None).type
        assert declared(given, {}).other == given


def test_both_names_of_the_standard_domain_are_one() -> None:
    assert domain_of(helper.make_node("Relu", [], [], domain="ai.onnx")) == domain_of(helper.make_opsetid("", 1)) == ""
    assert domain_of(helper.make_node("F", [], [], domain="mine")) == "mine"
