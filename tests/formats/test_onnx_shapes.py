"""Sizes that a graph computes itself, and subgraphs: against the reference evaluator and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from trimtab.formats.onnx_inference import Value
from trimtab.formats.onnx_shapes import walk

node = helper.make_node
Shapes = Mapping[str, Sequence[int | str]]


def model(nodes: list[onnx.NodeProto], inputs: Shapes, weights: dict[str, Any] | None = None, opset: int = 21) -> Any:
    """A model whose output is that of its last node."""
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in inputs.items()]
    held = [numpy_helper.from_array(np.asarray(content), name) for name, content in (weights or {}).items()]
    ends = [helper.make_empty_tensor_value_info(name) for name in nodes[-1].output]
    return helper.make_model(
        helper.make_graph(nodes, "net", given, ends, held),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=10,
    )


def body(nodes: list[onnx.NodeProto], inputs: Sequence[str], outputs: Sequence[str]) -> onnx.GraphProto:
    kinds = {"i": TensorProto.INT64, "go": TensorProto.BOOL, "on": TensorProto.BOOL}
    infos = [
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), [] if n in kinds else None) for n in names]
        for names in (inputs, outputs)
    ]
    return helper.make_graph(nodes, "body", *infos)


def values(proto: onnx.ModelProto, shapes: Shapes) -> dict[str, Value]:
    return {
        name: value
        for visit in walk(proto, shapes)
        for name, value in zip(visit.node.output, visit.outputs, strict=True)
    }


def answers(proto: onnx.ModelProto, **feeds: Any) -> list[Any]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, feeds)
    return found


def last(proto: onnx.ModelProto, shapes: Shapes) -> tuple[int | None, ...] | None:
    return walk(proto, shapes)[-1].outputs[0].shape


class TestComputedSizes:
    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.integers(0, 2**16), st.booleans())
    def test_a_shape_taken_apart_and_put_together_again_is_followed(self, shape, seed, negative):
        order = np.random.default_rng(seed).permutation(len(shape))
        parts = [node("Gather", ["s", f"at{axis}"], [f"p{axis}"]) for axis in order]
        weights = {f"at{axis}": np.array([axis - len(shape) * negative]) for axis in order}
        join = node("Concat", [f"p{axis}" for axis in order], ["c"], axis=0)
        proto = model(
            [node("Shape", ["x"], ["s"]), *parts, join, node("Reshape", ["x", "c"], ["y"])],
            {"x": ["a", "b", "c", "d"][: len(shape)]},
            weights,
        )
        x = np.zeros(shape, np.float32)
        (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
        assert last(proto, {"x": shape}) == expected.shape

    @pytest.mark.parametrize(
        ("attributes", "taken"),
        [({}, (2, 3, 4)), ({"start": 1}, (3, 4)), ({"end": -1}, (2, 3)), ({"start": -2, "end": 9}, (3, 4))],
    )
    def test_a_slice_of_a_shape(self, attributes, taken):
        proto = model([node("Shape", ["x"], ["y"], **attributes)], {"x": [2, 3, 4]})
        content = values(proto, {"x": (2, 3, 4)})["y"].content
        (expected,) = ReferenceEvaluator(proto).run(None, {"x": np.zeros((2, 3, 4), np.float32)})
        assert tuple(content) == tuple(expected) == taken

    def test_arithmetic_on_sizes(self):
        nodes = [
            node("Shape", ["x"], ["s"]),
            node("Slice", ["s", "zero", "one"], ["n"]),
            node("Mul", ["n", "three"], ["n3"]),
            node("Concat", ["n3", "minus"], ["to"], axis=0),
            node("Reshape", ["x", "to"], ["y"]),
        ]
        weights = {"zero": [0], "one": [1], "three": [3], "minus": [-1]}
        assert last(model(nodes, {"x": ["n", 6]}, weights), {"x": (5, 6)}) == (15, 2)

    def test_a_size_that_is_not_known_stays_so_and_spoils_no_other(self):
        nodes = [node("Shape", ["x"], ["s"]), node("Reshape", ["x", "s"], ["r"]), node("Relu", ["x"], ["y"])]
        found = values(model(nodes, {"x": ["n", 6]}), {"x": ("n", 6)})
        assert found["s"].content is None
        assert found["y"].shape == (None, 6)

    def test_sizes_named_alike_are_alike_in_what_the_file_declares(self):
        proto = model([node("Mystery", ["x"], ["m"], domain="acme"), node("Relu", ["m"], ["y"])], {"x": ["n", 6]})
        proto.graph.value_info.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, ["n", None, 7]))
        assert last(proto, {"x": (5, 6)}) == (5, None, 7)

    def test_large_results_are_not_computed(self):
        weights = {"many": np.array([1 << 20]), "start": np.int64(0), "step": np.int64(1)}
        nodes = [node("Range", ["start", "end", "step"], ["r"]), node("Shape", ["r"], ["y"])]
        proto = model(nodes, {}, {**weights, "end": np.int64(1 << 20)})
        assert values(proto, {})["r"].content is None

    def test_zero_elements_are_a_size_like_any(self):
        nodes = [node("Concat", ["x", "past"], ["y"], axis=1)]
        assert last(model(nodes, {"x": [2, 3], "past": [2, "p"]}), {"x": (2, 3), "past": (2, 0)}) == (2, 3)

    def test_a_weight_in_another_file_is_followed_only_with_its_folder(self, tmp_path):
        proto = model([node("Reshape", ["x", "to"], ["y"])], {"x": [2, 6]}, {"to": np.array([3, 4])})
        onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0)
        light = onnx.load(tmp_path / "m.onnx", load_external_data=False)
        assert walk(light, {"x": (2, 6)}, tmp_path)[-1].outputs[0].shape == (3, 4)
        assert walk(light, {"x": (2, 6)})[-1].outputs[0].content is None


class TestConstants:
    @pytest.mark.parametrize(
        ("attributes", "elements", "content"),
        [
            ({"value": numpy_helper.from_array(np.array([[1.5, 2.5]], np.float32))}, TensorProto.FLOAT, [[1.5, 2.5]]),
            ({"value_int": 7}, TensorProto.INT64, 7),
            ({"value_ints": [1, 2, 3]}, TensorProto.INT64, [1, 2, 3]),
            ({"value_float": 0.5}, TensorProto.FLOAT, 0.5),
            ({"value_floats": [0.5, 1.5]}, TensorProto.FLOAT, [0.5, 1.5]),
        ],
    )
    def test_numbers_in_every_form(self, attributes, elements, content):
        found = values(model([node("Constant", [], ["y"], **attributes)], {}), {})["y"]
        assert (found.elements, found.shape) == (elements, np.shape(content))
        np.testing.assert_array_equal(found.content, content)

    def test_texts_and_sparse_ones_have_a_shape_and_no_content(self):
        texts = values(model([node("Constant", [], ["y"], value_strings=["a", "b"])], {}), {})["y"]
        assert (texts.elements, texts.shape, texts.content) == (TensorProto.STRING, (2,), None)
        held = helper.make_sparse_tensor(
            numpy_helper.from_array(np.ones(2, np.float32), "v"), numpy_helper.from_array(np.array([0, 3]), "i"), [5, 4]
        )
        sparse = values(model([node("Constant", [], ["y"], sparse_value=held)], {}), {})["y"]
        assert (sparse.elements, sparse.shape) == (TensorProto.FLOAT, (5, 4))

    def test_sparse_weights_have_their_dense_shape(self):
        proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": [2, 5]})
        one, place = numpy_helper.from_array(np.ones(1, np.float32), "w"), numpy_helper.from_array(np.array([0]), "i")
        proto.graph.sparse_initializer.append(helper.make_sparse_tensor(one, place, [5, 4]))
        assert last(proto, {"x": (2, 5)}) == (2, 4)


class TestSubgraphs:
    def branches(self, *shapes: list[int]) -> dict[str, onnx.GraphProto]:
        made = [body([node("ConstantOfShape", [f"to{number}"], ["o"])], [], ["o"]) for number, _ in enumerate(shapes)]
        return dict(zip(("then_branch", "else_branch"), made, strict=True))

    @pytest.mark.parametrize(
        ("one", "other", "joint"),
        [([2, 3], [2, 3], (2, 3)), ([2, 3], [2, 4], (2, None)), ([2, 3], [2, 3, 4], None)],
    )
    def test_what_both_branches_agree_on_is_known(self, one, other, joint):
        weights = {"to0": np.array(one), "to1": np.array(other)}
        proto = model([node("If", ["c"], ["y"], **self.branches(one, other))], {}, weights)
        proto.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
        (visit,) = walk(proto, {"c": ()})
        assert visit.outputs[0].shape == joint
        assert len(visit.bodies) == 2

    @pytest.mark.parametrize(("chosen", "shape"), [(True, (2, 3)), (False, (4,))])
    def test_a_condition_that_is_known_takes_one_branch(self, chosen, shape):
        weights = {"c": np.array(chosen), "to0": np.array([2, 3]), "to1": np.array([4])}
        (visit,) = walk(model([node("If", ["c"], ["y"], **self.branches([2, 3], [4]))], {}, weights), {})
        assert (visit.outputs[0].shape, len(visit.bodies)) == (shape, 1)

    def test_a_loop_stacks_what_it_gives_and_keeps_what_it_carries(self):
        turn = body(
            [node("Identity", ["go"], ["on"]), node("Add", ["h", "h"], ["h2"]), node("Relu", ["h"], ["each"])],
            ["i", "go", "h"], ["on", "h2", "each"],
        )  # fmt: skip
        proto = model([node("Loop", ["n", "", "x"], ["carried", "stacked"], body=turn)], {"x": [2, 3]}, {"n": 5})
        (visit,) = walk(proto, {"x": (2, 3)})
        expected = answers(proto, x=np.zeros((2, 3), np.float32))
        assert [value.shape for value in visit.outputs] == [value.shape for value in expected] == [(2, 3), (5, 2, 3)]
        assert visit.times == 5

    def test_what_grows_from_turn_to_turn_is_not_known(self):
        turn = body(
            [node("Identity", ["go"], ["on"]), node("Concat", ["h", "h"], ["h2"], axis=0)], ["i", "go", "h"],
            ["on", "h2"],
        )  # fmt: skip
        proto = model([node("Loop", ["n", "", "x"], ["y"], body=turn)], {"x": [2, 3]}, {"n": 5})
        assert last(proto, {"x": (2, 3)}) == (None, 3)

    def test_a_loop_that_never_runs_gives_nothing_to_stack(self):
        turn = body([node("Identity", ["go"], ["on"]), node("Relu", ["x"], ["each"])], ["i", "go"], ["on", "each"])
        (visit,) = walk(model([node("Loop", ["n", ""], ["y"], body=turn)], {"x": [2, 3]}, {"n": 0}), {"x": (2, 3)})
        assert (visit.times, visit.outputs[0].shape) == (0, (0, 2, 3))

    @pytest.mark.parametrize(("inside", "outside"), [(0, 0), (1, 0), (0, 1), (-1, -1), (1, 2)])
    def test_a_scan_cuts_and_stacks_along_its_axes(self, inside, outside):
        turn = body([node("Add", ["h", "s"], ["h2"]), node("Relu", ["h2"], ["each"])], ["h", "s"], ["h2", "each"])
        scan = node(
            "Scan", ["h", "x"], ["last", "stacked"], body=turn, num_scan_inputs=1, scan_input_axes=[inside],
            scan_output_axes=[outside],
        )  # fmt: skip
        full = [2, 4]
        full.insert(inside % 3, 7)
        proto = model([scan], {"h": [2, 4], "x": full})
        (visit,) = walk(proto, {"h": (2, 4), "x": full})
        expected = answers(proto, h=np.zeros((2, 4), np.float32), x=np.zeros(full, np.float32))
        assert [value.shape for value in visit.outputs] == [value.shape for value in expected]
        assert visit.times == 7

    def test_a_scan_of_the_first_form_is_not_followed(self):
        turn = body([node("Relu", ["s"], ["each"])], ["s"], ["each"])
        proto = model([node("Scan", ["x"], ["y"], body=turn, num_scan_inputs=1)], {"x": [7, 2]}, opset=8)
        (visit,) = walk(proto, {"x": (7, 2)})
        assert (visit.times, visit.bodies, visit.outputs[0].shape) == (None, (), None)

    def test_a_subgraph_sees_what_is_outside_and_hides_what_is_inside(self):
        turn = body([node("Identity", ["go"], ["on"]), node("Relu", ["outer"], ["each"])], ["i", "go"], ["on", "each"])
        nodes = [node("Neg", ["x"], ["outer"]), node("Loop", ["n", ""], ["y"], body=turn), node("Abs", ["each"], ["z"])]
        found = walk(model(nodes, {"x": [2, 3]}, {"n": 4}), {"x": (2, 3)})
        assert [visit.outputs[0].shape for visit in found] == [(2, 3), (4, 2, 3), None]

    def test_sequences_go_through(self):
        nodes = [
            node("SplitToSequence", ["x"], ["parts"], axis=0),
            node("SequenceAt", ["parts", "first"], ["part"]),
            node("Relu", ["part"], ["y"]),
        ]
        found = values(model(nodes, {"x": [4, 3]}, {"first": np.int64(0)}), {"x": (4, 3)})
        assert found["parts"].other is not None
        assert found["part"].elements == TensorProto.FLOAT


class TestRobustness:
    @pytest.mark.parametrize("kind", ["Constant", "Shape", "Relu", "If", "Loop", "Scan", "SequenceMap", "Concat"])
    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_a_node_of_the_wrong_arity_makes_nothing_known_and_no_crash(self, kind, count):
        made = node(kind, ["x"] * count, ["y", "z"])
        found = walk(model([made], {"x": [2, 3]}), {"x": (2, 3)})
        assert len(found[0].outputs) == 2

    def test_optional_inputs_and_outputs_may_be_left_out(self):
        nodes = [node("Dropout", ["x", "", ""], ["y", ""]), node("Clip", ["y", "", "top"], ["z"])]
        assert last(model(nodes, {"x": [2, 3]}, {"top": np.float32(6)}), {"x": (2, 3)}) == (2, 3)

    def test_the_model_is_not_changed(self):
        proto = model([node("Relu", ["x"], ["y"])], {"x": ["n", 3]}, {"w": np.ones((64, 64), np.float32)})
        before = proto.SerializeToString()
        walk(proto, {"x": (2, 3)})
        assert proto.SerializeToString() == before
