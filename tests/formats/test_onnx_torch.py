"""Every operator that PyTorch runs of an ONNX graph gives what ONNX's own test cases say."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser
from onnx.backend.test.case.node import collect_testcases

from trimtab.core.errors import BadInput
from trimtab.formats.onnx_torch import OPERATORS, Graph, tensor_of

torch = pytest.importorskip("torch")

# What ONNX tests beyond what is promised: padding by the size of the input, types of numbers that few networks hold.
BEYOND = ("same_upper", "same_lower", "autopad_same", "convtranspose_output_shape", "convtranspose_kernel_shape",
          "wrap", "_2d_pads", "pool_2d_dilations", "pool_3d_dilations", "training", "sequence", "identity_opt",
          "empty_set", "string", "STRING", "uint", "UINT", "INT2", "INT4", "FLOAT4", "FLOAT8", "BFLOAT16", "FLOAT16",
          "bfloat16", "E8M0")  # fmt: skip


def cases(kind: str) -> list[Any]:
    """Return ONNX's test cases of single nodes of an operator that are about what is promised."""
    alone = [case for case in collect_testcases() if len(case.model.graph.node) == 1]
    found = [case for case in alone if case.model.graph.node[0].op_type == kind]
    return [case for case in found if not any(word in case.name for word in BEYOND)]


def array_of(value: Any) -> Any:
    return numpy_helper.to_array(value).copy() if isinstance(value, onnx.TensorProto) else np.array(value)


def run(model: onnx.ModelProto, inputs: list[Any]) -> list[Any]:
    """Return the first outputs, those that the operators have here."""
    outputs = [each.name for each in model.graph.output if model.graph.node[0].op_type == "Split"][1:]
    outputs = [model.graph.output[0].name, *outputs]
    names = [each.name for each in model.graph.input]
    given = {name: torch.from_numpy(array_of(value)) for name, value in zip(names, inputs, strict=True)}
    found = Graph(model.graph.node, outputs)({**given, **{t.name: tensor_of(t) for t in model.graph.initializer}})
    return [found[name].numpy() for name in outputs]


@pytest.mark.parametrize("kind", sorted(OPERATORS))
def test_an_operator_gives_what_onnx_says(kind: str) -> None:
    checked = 0
    for case in cases(kind):
        for inputs, outputs in case.data_sets:
            for got, right in zip(run(case.model, inputs), outputs, strict=False):
                right = array_of(right)
                np.testing.assert_allclose(got, right, rtol=1e-3, atol=1e-5, err_msg=case.name)
                assert got.dtype == right.dtype, case.name
                checked += 1
    assert checked


def graph(text: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {text}')


def test_a_graph_runs_node_by_node_and_keeps_only_what_is_needed_later() -> None:
    model = graph("g (float[2] x) => (float[2] y, float[2] z) { a = Relu(x) z = Add(a, x) b = Neg(a) y = Mul(b, z) }")
    found = Graph(model.graph.node, ["y", "z"])({"x": torch.tensor([2.0, -1.0])})
    assert {name: value.tolist() for name, value in found.items()} == {"y": [-8.0, 0.0], "z": [4.0, -1.0]}


def test_gradients_flow_to_inputs_and_weights() -> None:
    model = graph("g (float[1, 2] x, float[2, 1] w) => (float[1, 1] y) { a = MatMul(x, w) y = Relu(a) }")
    x, w = torch.tensor([[3.0, 4.0]], requires_grad=True), torch.tensor([[1.0], [2.0]], requires_grad=True)
    Graph(model.graph.node, ["y"])({"x": x, "w": w})["y"].sum().backward()
    assert (x.grad.tolist(), w.grad.tolist()) == ([[1.0, 2.0]], [[3.0], [4.0]])


def test_an_operator_can_be_given_another_meaning() -> None:
    model = graph("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    twice = Graph(model.graph.node, ["y"], {"Relu": lambda torch, told, x: 2 * x})
    assert twice({"x": torch.tensor([1.0, -1.0])})["y"].tolist() == [2.0, -2.0]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("NonZero", ["x"], ["y"], name="found"), "the operator NonZero .found."),
        (helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft"), "the operator Gelu"),
        (helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", name="c"), "the padding of c depends"),
    ],
)
def test_what_can_not_be_run_is_named(node: onnx.NodeProto, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Graph([node], ["y"])
