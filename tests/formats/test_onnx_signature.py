from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from trimtab.core.errors import BadInput
from trimtab.core.values import TensorSpec, Workload
from trimtab.formats.onnx_signature import signature

Shapes = dict[str, list[int | str | None]]


def net(inputs: Shapes, outputs: Shapes, kinds: dict[str, int] | None = None) -> onnx.ModelProto:
    def infos(given: Shapes) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, (kinds or {}).get(name, TensorProto.FLOAT), shape)
            for name, shape in given.items()
        ]

    return helper.make_model(helper.make_graph([], "net", infos(inputs), infos(outputs)))


class TestSignature:
    def test_any_dtype_and_dimension(self):
        kinds = {"a": TensorProto.INT64, "b": TensorProto.BFLOAT16, "c": TensorProto.BOOL, "d": TensorProto.STRING}
        proto = net({"a": [1, "n"], "b": [None, -1], "c": [], "d": [2]}, {"y": [1]}, kinds)
        found = {spec.name: (spec.dtype, spec.shape) for spec in signature(proto).inputs}
        assert found["a"] == ("int64", (1, "n"))
        assert found["b"] == ("bfloat16", ("?", "?"))
        assert found["c"] == ("bool", ())
        assert found["d"] == ("object", (2,))

    def test_inputs_with_an_initializer_are_weights(self):
        proto = net({"x": [1], "w": [1]}, {"y": [1]})
        proto.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]))
        assert [spec.name for spec in signature(proto).inputs] == ["x"]

    def test_an_input_that_is_no_tensor_is_refused_an_output_is_told(self):
        sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
        proto = net({"x": [1]}, {"y": [1]})
        proto.graph.output.append(sequence)
        assert signature(proto).outputs[1] == TensorSpec(name="s", dtype="sequence", shape=("?",))
        proto.graph.input.append(sequence)
        with pytest.raises(BadInput, match="input 's' is a sequence"):
            signature(proto)


class TestStates:
    def test_are_found_by_their_names_unless_they_are_named(self):
        proto = net({"x": [1], "a": [2], "h": [2]}, {"y": [1], "b": [2], "hn": [2]})
        assert [(spec.name, spec.fed_by) for spec in signature(proto).states] == [("h", "hn")]
        assert [(spec.name, spec.fed_by) for spec in signature(proto, (("a", "b"),)).states] == [("a", "b")]
        assert signature(proto, ()).states == ()


class TestWorkload:
    def test_binds_the_batch_named_lengths_and_numbered_axes(self):
        found = signature(
            net({"ids": ["batch", "tokens"], "mask": ["batch", "tokens"], "x": [None, None, 3]}, {"y": [1]})
        )
        shapes = Workload(batch=4, lengths=(("tokens", 128), ("x:1", 9))).shapes(found)
        assert shapes == {"ids": (4, 128), "mask": (4, 128), "x": (4, 9, 3)}

    def test_a_state_shares_the_batch_and_the_unknown_stays_free(self):
        found = signature(net({"x": ["n", 8], "h": [1, "n", 4], "k": [2, "len"]}, {"y": ["n", 2], "hn": [1, "n", 4]}))
        assert Workload(batch=3).shapes(found) == {"x": (3, 8), "h": (1, 3, 4), "k": (2, "len")}
