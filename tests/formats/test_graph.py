"""Everything in an ONNX graph is found, an outline drops only weights, and content is read wherever it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from trimtab.core.errors import BadInput, Unsafe
from trimtab.formats import graph as graphs


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def graph(nodes: list[onnx.NodeProto], *weights: onnx.TensorProto, name: str = "g") -> onnx.GraphProto:
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    return helper.make_graph(nodes, name, [], made, list(weights))


def constant(output: str, *shape: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [output], value=weight(output, *shape))


@pytest.fixture
def nested() -> onnx.ModelProto:
    """A loop in a branch in the graph, and a branch in a local function, each with a weight of its own."""
    inner = graph([constant("deep", 1)], weight("in the loop", 2), name="loop")
    branch = graph([helper.make_node("Loop", ["", ""], ["z"], body=inner)], weight("in the branch", 3), name="branch")
    chosen = graph([constant("y", 4)], name="in the function")
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=graph([constant("y", 5)], name="else"))
    function = helper.make_function(
        "mine", "F", ["a"], ["b"], [helper.make_node("If", ["a"], ["b"], then_branch=chosen, else_branch=chosen)],
        [helper.make_opsetid("", 21)],
    )  # fmt: skip
    proto = helper.make_model(graph([node], weight("outside", 6), name="main"))
    proto.functions.append(function)
    return proto


class TestFinding:
    def test_every_graph_its_own_first(self, nested):
        names = [found.name for found in graphs.graphs(nested)]
        assert names[0] == "main"
        assert sorted(names) == sorted(["main", "branch", "else", "loop", *["in the function"] * 2])

    def test_every_node(self, nested):
        kinds = sorted(node.op_type for node in graphs.nodes(nested))
        assert kinds == ["Constant"] * 4 + ["If", "If", "Loop"]

    def test_every_tensor(self, nested):
        found = sorted(tensor.name for tensor in graphs.tensors(nested))
        assert found == sorted(["outside", "in the branch", "in the loop", "deep", "y", "y", "y"])

    def test_sparse_tensors_with_their_places(self):
        values, places = weight("v", 2), numpy_helper.from_array(np.array([0, 3]), "i")
        sparse = helper.make_sparse_tensor(values, places, [9])
        proto = helper.make_model(graph([helper.make_node("Constant", [], ["y"], sparse_value=sparse)]))
        proto.graph.sparse_initializer.append(sparse)
        assert [tensor.name for tensor in graphs.tensors(proto)] == ["v", "i", "v", "i"]

    def test_attributes_as_values_texts_as_str(self):
        node = helper.make_node("Conv", [], [], auto_pad="SAME_UPPER", group=2, pads=[1, 1])
        assert graphs.attribute(node, "auto_pad") == "SAME_UPPER"
        assert graphs.attribute(node, "group") == 2
        assert list(graphs.attribute(node, "pads")) == [1, 1]
        assert graphs.attribute(node, "absent", 7) == 7

    def test_texts_at_any_depth_with_their_fields(self):
        proto = helper.make_model(graph([helper.make_node("Relu", ["x"], ["имя"], name="n")]), producer_name="p")
        found = set(graphs.texts(proto))
        assert {("producer_name", "p"), ("output", "имя"), ("input", "x"), ("name", "n")} <= found


class TestSizes:
    @pytest.mark.parametrize(
        ("kind", "dims", "size"),
        [
            (TensorProto.FLOAT, [3, 4], 48),
            (TensorProto.DOUBLE, [], 8),
            (TensorProto.BFLOAT16, [5], 10),
            (TensorProto.BOOL, [7], 7),
            (TensorProto.FLOAT8E4M3FN, [9], 9),
            (TensorProto.INT4, [3], 2),
            (TensorProto.UINT4, [4, 4], 8),
            (TensorProto.COMPLEX64, [2], 16),
            (TensorProto.FLOAT, [3, 0], 0),
            (TensorProto.STRING, [100], 0),
        ],
    )
    def test_bytes_of_the_elements_packed_ones_included(self, kind, dims, size):
        assert graphs.byte_size(TensorProto(data_type=kind, dims=dims)) == size

    @pytest.mark.parametrize("kind", [0, 999])
    def test_an_unknown_element_type_is_refused(self, kind):
        with pytest.raises(BadInput, match="'w' has no known element type; export the model again"):
            graphs.byte_size(TensorProto(name="w", data_type=kind, dims=[1]))


class TestOutline:
    def test_drops_the_content_of_large_weights_and_nothing_else(self):
        large, small = weight("large", 64, 64), weight("small", 8)
        proto = helper.make_model(graph([helper.make_node("Relu", ["x"], ["y"])], large, small), producer_name="p")
        before = proto.SerializeToString()
        light = graphs.outline(proto)
        assert proto.SerializeToString() == before
        assert [(t.name, list(t.dims), t.data_type) for t in light.graph.initializer] == [
            ("large", [64, 64], TensorProto.FLOAT),
            ("small", [8], TensorProto.FLOAT),
        ]
        assert [len(t.raw_data) for t in light.graph.initializer] == [0, 32]
        light.graph.initializer[0].CopyFrom(large)
        assert light.SerializeToString() == before

    def test_is_a_copy(self):
        proto = helper.make_model(graph([helper.make_node("Relu", ["x"], ["y"])], weight("w", 2)))
        light = graphs.outline(proto)
        light.graph.node[0].op_type = "Neg"
        light.graph.initializer[0].name = "other"
        assert (proto.graph.node[0].op_type, proto.graph.initializer[0].name) == ("Relu", "w")

    def test_what_it_dropped_has_no_content(self):
        light = graphs.outline(helper.make_model(graph([], weight("w", 64, 64))))
        assert graphs.array(light.graph.initializer[0], None) is None


def external(content: np.ndarray, folder: Path, **entries: object) -> onnx.TensorProto:
    """Write a tensor's bytes after seven others, and return the tensor that says so."""
    whole = numpy_helper.from_array(content, "w")
    (folder / "w.bin").write_bytes(b"\0" * 7 + whole.raw_data)
    made = TensorProto(name="w", data_type=whole.data_type, dims=whole.dims, data_location=TensorProto.EXTERNAL)
    given = {"location": "w.bin", "offset": 7, "length": len(whole.raw_data), **entries}
    for key, value in given.items():
        if value is not None:
            made.external_data.add(key=key, value=str(value))
    return made


class TestContent:
    @settings(max_examples=40, deadline=None)
    @given(
        st.sampled_from(["FLOAT", "FLOAT16", "DOUBLE", "INT8", "UINT8", "INT64", "BOOL", "INT4", "BFLOAT16"]),
        st.lists(st.integers(0, 5), max_size=3),
        st.integers(0, 2**32 - 1),
    )
    def test_is_the_same_inside_and_outside_of_the_file(self, tmp_path_factory, kind, shape, seed):
        dtype = helper.tensor_dtype_to_np_dtype(getattr(TensorProto, kind))
        content = np.random.default_rng(seed).integers(-7, 8, shape).astype(dtype)
        inside = graphs.array(numpy_helper.from_array(content), None)
        folder = tmp_path_factory.mktemp("external")
        outside = graphs.array(external(content, folder), folder)
        assert inside.shape == outside.shape == content.shape
        assert inside.dtype == outside.dtype == content.dtype
        np.testing.assert_array_equal(inside.astype(np.float32), content.astype(np.float32))
        np.testing.assert_array_equal(outside.astype(np.float32), content.astype(np.float32))

    def test_of_typed_fields_is_read_too(self):
        tensor = helper.make_tensor("w", TensorProto.INT64, [3], [1, 2, 3])
        assert not tensor.HasField("raw_data")
        assert graphs.array(tensor, None).tolist() == [1, 2, 3]

    def test_outside_of_the_file_needs_the_folder(self, tmp_path):
        assert graphs.array(external(np.ones(3, np.float32), tmp_path), None) is None

    def test_of_large_weights_is_mapped_not_read(self, tmp_path):
        found = graphs.array(external(np.ones((8, 8), np.float32), tmp_path), tmp_path)
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable

    @pytest.mark.parametrize(
        ("entries", "error", "words"),
        [
            ({"location": None}, BadInput, "doesn't say in which file its data is"),
            ({"location": "gone.bin"}, BadInput, r"'gone\.bin' is missing; put it beside the model"),
            ({"location": "../w.bin"}, Unsafe, "outside the model's folder"),
            ({"location": "/etc/passwd"}, Unsafe, "outside the model's folder"),
            ({"location": "w\0.bin"}, Unsafe, "outside the model's folder"),
            ({"location": "."}, BadInput, "is missing"),
            ({"offset": "seven"}, BadInput, "broken reference"),
            ({"offset": -1}, BadInput, "does not hold tensor 'w'"),
            ({"offset": 8}, BadInput, r"\(12 bytes at 8\); it is truncated"),
            ({"length": 11}, BadInput, "does not hold tensor 'w'"),
        ],
    )
    def test_a_broken_reference_is_one_clear_line(self, tmp_path, entries, error, words):
        tensor = external(np.ones(3, np.float32), tmp_path, **entries)
        with pytest.raises(error, match=words) as caught:
            graphs.array(tensor, tmp_path)
        assert "\n" not in str(caught.value)

    def test_a_reference_without_offset_and_length_is_to_the_whole_file(self, tmp_path):
        tensor = external(np.ones(3, np.float32), tmp_path, offset=None, length=None)
        (tmp_path / "w.bin").write_bytes(np.arange(3, dtype=np.float32).tobytes())
        assert graphs.array(tensor, tmp_path).tolist() == [0, 1, 2]

    def test_a_file_in_a_folder_below_is_beside_the_model(self, tmp_path):
        (tmp_path / "weights").mkdir()
        tensor = external(np.ones(3, np.float32), tmp_path, location="weights/w.bin")
        (tmp_path / "w.bin").rename(tmp_path / "weights" / "w.bin")
        assert graphs.external_range(tensor, tmp_path) == (tmp_path / "weights" / "w.bin", 7, 12)
