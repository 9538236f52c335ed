from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from trimtab.core.errors import BadInput
from trimtab.core.values import TensorSpec, Workload
from trimtab.formats.onnx_signature import find_states, signature

Shapes = dict[str, list[int | str | None]]


def net(inputs: Shapes, outputs: Shapes, kinds: dict[str, int] | None = None) -> onnx.ModelProto:
    def infos(given: Shapes) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, (kinds or {}).get(name, TensorProto.FLOAT), shape)
            for name, shape in given.items()
        ]

    return helper.make_model(helper.make_graph([], "net", infos(inputs), infos(outputs)))


def states(inputs: Shapes, outputs: Shapes) -> dict[str, str | None]:
    return {spec.name: spec.fed_by for spec in signature(net(inputs, outputs)).states}


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
    @pytest.mark.parametrize(
        ("source", "end"),
        [
            ("past_key_values.0.key", "present.0.key"),
            ("past_3", "present_3"),
            ("h", "hn"),
            ("h0", "hn"),
            ("h_0", "h_n"),
            ("c", "cn"),
            ("h_in", "h_out"),
            ("state", "stateN"),
            ("state", "state_out"),
            ("prev_state", "next_state"),
            ("memory_in", "memory_out"),
        ],
    )
    def test_names_that_by_convention_mean_it(self, source, end):
        assert states({"x": [1, 8], source: [2, 4]}, {"y": [1, 3], end: [2, 4]}) == {source: end}

    def test_a_cache_may_grow_another_state_may_not(self):
        grown = states({"x": [1], "past_0": [1, "past"]}, {"y": [1], "present_0": [1, "past + 1"]})
        assert grown == {"past_0": "present_0"}
        assert states({"x": [1], "h": [1, 4]}, {"y": [1], "hn": [2, 4]}) == {}

    def test_an_image_in_and_an_image_out_are_no_state(self):
        assert states({"image_in": [1, 3, 8, 8]}, {"image_out": [1, 3, 8, 8]}) == {}

    def test_likeness_of_shape_alone_is_no_state(self):
        assert states({"x": [1, 4], "mask": [1, 4]}, {"y": [1, 4], "z": [1, 4]}) == {}

    def test_a_recurrent_cell_keeps_both_of_its_states(self):
        cell = {"h_in": [1, 4], "c_in": [1, 4]}
        assert states({"x": [1, 8], **cell}, {"y": [1, 2], "h_out": [1, 4], "c_out": [1, 4]}) == {
            "h_in": "h_out",
            "c_in": "c_out",
        }

    def test_what_is_named_replaces_what_is_found(self):
        proto = net({"x": [1], "a": [2], "h": [2]}, {"y": [1], "b": [2], "hn": [2]})
        found = signature(proto, (("a", "b"),))
        assert [(spec.name, spec.fed_by) for spec in found.states] == [("a", "b")]
        assert [spec.role for spec in found.outputs] == ["data", "state", "data"]
        assert signature(proto, ()).states == ()

    @pytest.mark.parametrize(
        ("pairs", "words"),
        [
            ((("none", "b"),), "is not in the model"),
            ((("a", "none"),), "is not in the model"),
            ((("a", "y"),), "shape and dtype must agree"),
            ((("a", "k"),), "shape and dtype must agree"),
            ((("a", "b"), ("a", "b")), "named in two states"),
        ],
    )
    def test_pairs_that_do_not_fit_are_refused(self, pairs, words):
        proto = net({"x": [1], "a": [2]}, {"y": [1], "b": [2], "k": [2]}, {"k": TensorProto.INT64})
        with pytest.raises(BadInput, match=words):
            signature(proto, pairs)

    def test_finding_leaves_the_signature_alone(self):
        given = signature(net({"x": [1], "h": [2]}, {"y": [1], "hn": [2]}), ())
        assert find_states(given) == (("h", "hn"),)
        assert given.states == ()


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
