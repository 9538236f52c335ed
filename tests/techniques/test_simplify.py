"""Fusion groups counted by hand, folding, and what a dynamic or 16-bit model stores."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest

from trimtab.core.errors import Refused
from trimtab.core.values import Settings
from trimtab.techniques.bf16 import Bf16, halved
from trimtab.techniques.dynamic_int8 import DynamicInt8
from trimtab.techniques.nncf_int8 import NncfInt8
from trimtab.techniques.simplify import Simplify, fused_groups, optimized


def test_folds_normalization_and_removes_what_does_nothing(given: Any, context: Any) -> None:
    variant, task = given("cnn")
    made = Simplify().apply(variant, context(variant, task))
    before, after = (Counter(n.op_type for n in onnx.load(v.model.path).graph.node) for v in (variant, made))
    assert before - after == Counter({"BatchNormalization": 1, "Identity": 1})
    assert {given.domain for given in onnx.load(made.model.path).opset_import} == {""}


def test_says_when_there_is_nothing_to_simplify(given: Any, context: Any) -> None:
    variant, task = given("cnn")
    made = Simplify().apply(variant, context(variant, task, "once"))
    with pytest.raises(Refused, match="nothing to simplify"):
        Simplify().apply(made, context(variant, task, "twice"))


def test_lists_the_groups_that_onnxruntime_fuses(given: Any) -> None:
    variant, _ = given("cnn")
    path = variant.model.path
    groups = [group.partition(" (")[0] for group in fused_groups(onnx.load(path), optimized(path, "extended"))]
    assert groups[0] == "Conv + BatchNormalization + Relu → FusedConv"
    assert groups[1] == "Conv + Relu → FusedConv"


def test_fused_operators_are_for_their_own_engine_only(given: Any, context: Any) -> None:
    variant, task = given("cnn")
    technique = Simplify(level="extended")
    assert "openvino" in str(technique.refuses(variant.on(Settings(runtime="openvino")), task))
    made = technique.apply(variant, context(variant, task))
    assert "FusedConv" in {node.op_type for node in onnx.load(made.model.path).graph.node}


def test_16_bits_halve_the_weights_and_keep_what_does_not_fit() -> None:
    values = np.arange(4096, dtype=np.float32)
    huge = values * 1000.0
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["a", "b"], ["y"])],
        "weights",
        [],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4096])],
        [onnx.numpy_helper.from_array(values, "a"), onnx.numpy_helper.from_array(huge, "b")],
    )
    made = halved(onnx.helper.make_model(graph))
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert kinds == {"a_fp16": onnx.TensorProto.FLOAT16, "b": onnx.TensorProto.FLOAT}
    with pytest.raises(Refused, match="16 bits already"):
        halved(made)


@pytest.mark.parametrize("network", ["cnn", "transformer"])
def test_an_openvino_model_is_halved_too(network: str, given: Any, context: Any, outputs: Any) -> None:
    from trimtab.techniques.export_openvino import ExportOpenVino

    variant, task = given(network)
    converted = ExportOpenVino().apply(variant, context(variant, task, "converted"))
    made = Bf16().apply(converted, context(converted, task))
    sizes = [v.model.path.with_suffix(".bin").stat().st_size for v in (converted, made)]
    assert sizes[1] < 0.75 * sizes[0]
    np.testing.assert_allclose(outputs(made, task), outputs(converted, task), atol=0.05)


def test_dynamic_quantization_has_nothing_to_do_without_matrices(given: Any, context: Any, tmp_path: Any) -> None:
    variant, task = given("transformer")
    made = DynamicInt8().apply(variant, context(variant, task))
    ratio = made.model.path.stat().st_size / variant.model.path.stat().st_size
    assert ratio < 0.5
    assert made.settings.runtime == "onnxruntime"


def test_an_openvino_model_is_quantized_in_its_own_format(given: Any, context: Any, outputs: Any) -> None:
    from trimtab.techniques.export_openvino import ExportOpenVino

    variant, task = given("cnn")
    converted = ExportOpenVino().apply(variant, context(variant, task, "converted"))
    made = NncfInt8(preset="mixed").apply(converted, context(converted, task))
    assert [step.technique for step in made.steps] == ["export-openvino", "nncf-int8"]
    before, after = outputs(converted, task), outputs(made, task)
    assert np.sqrt(np.mean((after - before) ** 2)) <= 0.15 * before.std()
