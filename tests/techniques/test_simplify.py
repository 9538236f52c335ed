"""Folding, what was fused counted by hand, and files that every engine reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core import plugins
from trimtab.core.errors import NothingToGain
from trimtab.core.protocols import Opening
from trimtab.core.values import Settings
from trimtab.formats.onnx import OnnxFormat, save
from trimtab.techniques.simplify import Simplify, fused_groups, optimized, saved, session

node = helper.make_node


def test_folds_normalization_and_removes_what_does_nothing(given: Any, context: Any) -> None:
    variant, task = given("cnn")
    made = Simplify().apply(variant, context(variant, task))
    before, after = (Counter(n.op_type for n in onnx.load(v.model.path).graph.node) for v in (variant, made))
    assert before - after == Counter({"BatchNormalization": 1, "Identity": 1})
    assert {given.domain for given in onnx.load(made.model.path).opset_import} == {""}


def test_says_when_there_is_nothing_to_simplify(given: Any, context: Any) -> None:
    variant, task = given("cnn")
    made = Simplify().apply(variant, context(variant, task, "once"))
    with pytest.raises(NothingToGain, match="nothing to simplify"):
        Simplify().apply(made, context(variant, task, "twice"))


def test_fused_operators_are_for_their_own_engine_only(given: Any, context: Any) -> None:
    variant, task = given("cnn")
    technique = Simplify(level="extended")
    assert "openvino" in str(technique.refuses(variant.on(Settings(runtime="openvino")), task))
    made = technique.apply(variant, context(variant, task))
    assert "FusedConv" in {node.op_type for node in onnx.load(made.model.path).graph.node}


def test_tells_what_it_fused(given: Any, context: Any) -> None:
    variant, task = given("cnn")
    made = Simplify().apply(variant, context(variant, task))
    assert Simplify().changes(variant, made)[0].startswith("Conv + BatchNormalization → Conv (")
    assert Simplify().changes(made, made) == ()


class TestGroups:
    def test_are_those_that_onnxruntime_fuses(self, given: Any) -> None:
        path = given("cnn")[0].model.path
        groups = [group.partition(" (")[0] for group in fused_groups(onnx.load(path), optimized(path, "extended"))]
        assert groups[:2] == ["Conv + BatchNormalization + Relu → FusedConv", "Conv + Relu → FusedConv"]

    def model(self, nodes: list[onnx.NodeProto], *weights: str) -> onnx.ModelProto:
        infos = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])] for name in ("x", "y")]
        held = [numpy_helper.from_array(np.ones(2, np.float32), name) for name in weights]
        return helper.make_model(helper.make_graph(nodes, "g", *infos, held))

    def test_stand_for_the_nodes_between_their_inputs_and_outputs(self) -> None:
        before = self.model(
            [node("Neg", ["x"], ["a"], name="first"), node("Mul", ["a", "w"], ["b"]), node("Add", ["b", "a"], ["c"]),
             node("Abs", ["c"], ["y"], name="last")],
            "w",
        )  # fmt: skip
        after = self.model([node("Both", ["x", "w"], ["c"]), node("Abs", ["c"], ["y"])], "w")
        assert fused_groups(before, after) == ("Neg + Mul + Add → Both (first)",)

    def test_a_node_without_a_name_is_called_by_what_it_makes(self) -> None:
        before = self.model([node("Neg", ["x"], ["a"]), node("Abs", ["a"], ["y"])])
        assert fused_groups(before, self.model([node("NegAbs", ["x"], ["y"])])) == ("Neg + Abs → NegAbs (a)",)

    def test_constants_and_what_does_nothing_are_no_members(self) -> None:
        before = self.model(
            [node("Constant", [], ["w"], value_floats=[1.0, 1.0]), node("Identity", ["x"], ["i"]),
             node("Mul", ["i", "w"], ["y"])]
        )  # fmt: skip
        assert fused_groups(before, self.model([node("Scale", ["x"], ["y"])])) == ()

    def test_a_graph_that_stayed_has_none(self) -> None:
        proto = self.model([node("Neg", ["x"], ["a"]), node("Abs", ["a"], ["y"])])
        assert fused_groups(proto, proto) == ()


class TestTidying:
    def test_every_node_gets_a_name_of_its_own(self, tmp_path: Any) -> None:
        graph = helper.make_graph(
            [node("Relu", ["x"], ["a"], name="Relu_1"), node("Relu", ["a"], ["b"]), node("Sigmoid", ["b"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        model = save(proto, tmp_path / "m.onnx")
        names = [found.name for found in optimized(model.path, "basic").graph.node]
        assert len(set(names)) == len(names)
        assert all(names)

    def test_states_stay_states(self, tmp_path: Any, given: Any) -> None:
        infos = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in names]
            for names in (("x", "a"), ("y", "b"))
        ]
        graph = helper.make_graph([node("Add", ["x", "a"], ["y"]), node("Neg", ["a"], ["b"])], "g", *infos)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        variant, _ = given("cnn")
        recurrent = type(variant)(model=save(proto, tmp_path / "m.onnx", (("a", "b"),)), settings=variant.settings)
        again = saved(optimized(recurrent.model.path, "basic"), recurrent, tmp_path / "again")
        assert again.signature == recurrent.model.signature

    def test_a_session_takes_options_by_their_names(self, given: Any, tmp_path: Any) -> None:
        path = given("cnn")[0].model.path
        running = session(str(path), intra_op_num_threads=1, optimized_model_filepath=str(tmp_path / "o.onnx"))
        assert running.get_session_options().intra_op_num_threads == 1
        assert running.get_providers() == ["CPUExecutionProvider"]
        assert (tmp_path / "o.onnx").is_file()


@pytest.mark.parametrize("name", ["simplify", "bf16", "dynamic-int8", "static-int8"])
def test_weights_in_a_file_beside_the_model_are_found(
    name: str, given: Any, context: Any, outputs: Any, tmp_path: Any
) -> None:
    """torch.onnx.export keeps weights in such a file by default."""
    variant, task = given("cnn")
    proto = onnx.load(variant.model.path)
    path = tmp_path / "beside.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="beside.onnx.data", size_threshold=0)
    assert (tmp_path / "beside.onnx.data").stat().st_size > 0
    beside = replace(variant, model=OnnxFormat().open(str(path), Opening(folder=tmp_path)))
    technique = plugins.make("techniques", name)
    made = technique.apply(beside, context(beside, task))
    whole = technique.apply(variant, context(variant, task, "whole"))
    np.testing.assert_allclose(outputs(made, task), outputs(whole, task), rtol=1e-5, atol=1e-6)
