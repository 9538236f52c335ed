from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.formats.onnx_contents import contents, count_parameters, is_quantized


def net() -> onnx.ModelProto:
    """3 · 8 · 9 + 8 weights of a convolution, 8 · 10 + 10 of a linear layer: 314."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Constant", [], ["flat"], value=numpy_helper.from_array(np.array([-1, 8]))),
        helper.make_node("Reshape", ["p", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["m"]),
        helper.make_node("Constant", [], ["a"], value=weight("", 10)),
        helper.make_node("Add", ["m", "a"], ["s"]),
        helper.make_node("Mul", ["s", "scale"], ["y"]),
    ]
    weights = [weight("w", 8, 3, 3, 3), weight("b", 8), weight("v", 8, 10)]
    weights.append(numpy_helper.from_array(np.array(2, np.float32), "scale"))
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])]
    graph = helper.make_graph(nodes, "net", given, made, weights)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="hand", producer_version="1")


class TestParameters:
    def test_weights_and_constants_count_shapes_and_scalars_do_not(self):
        assert count_parameters(net()) == (("float32", 314),)

    def test_dynamic_quantization_changes_their_dtype_not_their_number(self, tmp_path):
        quantization = pytest.importorskip("onnxruntime.quantization")
        onnx.save(net(), tmp_path / "f.onnx")
        for per_channel in (False, True):
            quantization.quantize_dynamic(
                tmp_path / "f.onnx",
                tmp_path / "q.onnx",
                op_types_to_quantize=["Conv", "MatMul"],
                per_channel=per_channel,
            )
            found = dict(count_parameters(onnx.load(tmp_path / "q.onnx")))
            assert sum(found.values()) == 314
            assert found["int8" if "int8" in found else "uint8"] == 216 + 80

    @pytest.mark.parametrize("form", ["QDQ", "QOperator"])
    def test_nor_does_static_quantization(self, tmp_path, form):
        quantization = pytest.importorskip("onnxruntime.quantization")
        onnx.save(net(), tmp_path / "f.onnx")

        class Reader(quantization.CalibrationDataReader):
            left = 2

            def get_next(self):
                self.left -= 1
                return {"x": np.ones((1, 3, 8, 8), np.float32)} if self.left else None

        quantization.quantize_static(
            tmp_path / "f.onnx", tmp_path / "q.onnx", Reader(),
            quant_format=quantization.QuantFormat[form], per_channel=True,
        )  # fmt: skip
        assert sum(count for _, count in count_parameters(onnx.load(tmp_path / "q.onnx"))) == 314

    def test_packed_weights_count_as_many_as_they_stand_for(self):
        node = helper.make_node(
            "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=64, N=7, bits=4, block_size=32
        )
        packed = numpy_helper.from_array(np.zeros((7, 2, 16), np.uint8), "w")
        scales = numpy_helper.from_array(np.zeros(14, np.float32), "s")
        proto = helper.make_model(helper.make_graph([node], "net", [], [], [packed, scales]))
        assert count_parameters(proto) == (("int4", 64 * 7),)


class TestQuantization:
    def test_a_float_model_is_not(self):
        assert is_quantized(net()) is None

    @pytest.mark.parametrize(
        ("operators", "words"),
        [
            (["QuantizeLinear", "DequantizeLinear"], "static, QuantizeLinear/DequantizeLinear pairs"),
            (["DequantizeLinear"], "weights only"),
            (["DynamicQuantizeLinear", "MatMulInteger"], r"dynamic, .*DynamicQuantizeLinear, MatMulInteger"),
            (["QuantizeLinear", "QLinearConv"], "static, integer operators"),
            (["MatMulNBits"], "packed to few bits"),
            (["QAttention"], "dynamic"),
        ],
    )
    def test_says_how(self, operators, words):
        proto = helper.make_model(
            helper.make_graph([helper.make_node(name, [], []) for name in operators], "n", [], [])
        )
        found = is_quantized(proto)
        assert found is not None
        assert re.search(words, found)

    def test_is_seen_inside_a_branch(self):
        inner = helper.make_graph([helper.make_node("MatMulInteger", [], ["y"])], "b", [], [])
        node = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
        assert is_quantized(helper.make_model(helper.make_graph([node], "n", [], []))) is not None


def test_contents_tell_operators_producer_and_opset():
    found = contents(net(), (Path("m.onnx"),))
    assert dict(found.operators)["Constant"] == 2
    assert dict(found.facts) == {"ir_version": 8, "opset ai.onnx": 17, "producer": "hand 1"}
    assert found.control_flow == ()


def test_contents_see_into_control_flow():
    inner = helper.make_graph([helper.make_node("Neg", ["c"], ["y"])], "b", [], [])
    node = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    found = contents(helper.make_model(helper.make_graph([node], "n", [], [])), ())
    assert (found.control_flow, dict(found.operators)) == (("If",), {"If": 1, "Neg": 2})


class TestRoles:
    """What counts as a parameter is decided by what a tensor is used for."""

    def counted(self, kind: str, shapes: list[tuple[tuple[int, ...], type]], **attributes: object) -> dict[str, int]:
        names = [f"w{index}" for index in range(len(shapes))]
        held = [
            numpy_helper.from_array(np.ones(shape, dtype), n) for n, (shape, dtype) in zip(names, shapes, strict=True)
        ]
        node = helper.make_node(kind, ["x", *names], ["y"], **attributes)
        return dict(count_parameters(helper.make_model(helper.make_graph([node], "g", [], [], held))))

    def test_scales_and_zero_points_are_none(self):
        given = [((1,), np.float32), ((1,), np.uint8)]
        assert self.counted("QuantizeLinear", given) == {}

    def test_biases_of_quantized_layers_are_and_other_int32_are_not(self):
        scales = [((1,), np.float32), ((1,), np.uint8)]
        weight = [((8, 3, 3, 3), np.int8), ((8,), np.float32), ((8,), np.int8)]
        bias = [((8,), np.int32)]
        assert self.counted("QLinearConv", [*scales, *weight, *scales, *bias]) == {"int8": 216, "int32": 8}
        assert self.counted("Gather", [((5,), np.int32)]) == {}

    def test_of_joined_quantized_tensors_only_the_tensors_are(self):
        triples = [((1,), np.uint8), ((4, 5), np.uint8), ((1,), np.float32), ((1,), np.uint8)]
        assert self.counted("QLinearConcat", triples) == {"uint8": 20}

    def test_sizes_bounds_and_indices_are_none(self):
        assert self.counted("Resize", [((8,), np.float32), ((4,), np.float32)]) == {}
        assert self.counted("Gather", [((5, 7), np.int64)]) == {}
        assert self.counted("Where", [((5, 7), np.bool_)]) == {}

    def test_every_float_type_has_numpys_name(self):
        for kind, name in [
            ("FLOAT16", "float16"),
            ("BFLOAT16", "bfloat16"),
            ("DOUBLE", "float64"),
            ("FLOAT", "float32"),
        ]:
            tensor = helper.make_tensor("w", getattr(TensorProto, kind), [2, 3], [1.0] * 6)
            node = helper.make_node("MatMul", ["x", "w"], ["y"])
            assert count_parameters(helper.make_model(helper.make_graph([node], "g", [], [], [tensor]))) == ((name, 6),)

    def test_sparse_weights_count_what_they_hold(self):
        held = helper.make_sparse_tensor(
            numpy_helper.from_array(np.ones(3, np.float32), "w"), numpy_helper.from_array(np.array([0, 4, 8])), [9, 9]
        )
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [], [])
        graph.sparse_initializer.append(held)
        assert count_parameters(helper.make_model(graph)) == (("float32", 3),)

    def test_a_weight_that_is_used_twice_counts_once(self):
        held = [numpy_helper.from_array(np.ones((4, 4), np.float32), "w")]
        nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
        assert count_parameters(helper.make_model(helper.make_graph(nodes, "g", [], [], held))) == (("float32", 16),)

    def test_weights_inside_branches_and_functions_count(self):
        weight = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
        inner = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["o"])], "b", [], [], [weight])
        proto = helper.make_model(
            helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], "g", [], [])
        )
        constant = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones(5, np.float32)))
        proto.functions.append(helper.make_function("m", "F", [], ["k"], [constant], [helper.make_opsetid("", 21)]))
        assert dict(count_parameters(proto)) == {"float32": 6 + 6 + 5}

    def test_a_model_without_weights_has_none(self):
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
        assert count_parameters(helper.make_model(graph)) == ()
