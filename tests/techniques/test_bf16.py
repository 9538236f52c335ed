"""Sixteen bits: what is stored in half its size, and where the hint for the arithmetic goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from trimtab.core.errors import NothingToGain
from trimtab.core.machine import machine
from trimtab.core.values import Settings
from trimtab.techniques.bf16 import Bf16, halved


def weights(inputs: tuple[str, ...] = (), **held: np.ndarray) -> onnx.ModelProto:
    """A model that adds up its weights, all of one shape."""
    shape = next(iter(held.values())).shape
    graph = helper.make_graph(
        [helper.make_node("Sum", list(held), ["y"])],
        "weights",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def kinds(proto: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in proto.graph.initializer}


class TestHalved:
    @settings(max_examples=20, deadline=None)
    @drawn(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
    def test_the_answer_is_that_of_weights_rounded_to_16_bits(self, seed: int, spread: float) -> None:
        value = (np.random.default_rng(seed).normal(size=(8, 16)) * spread).astype(np.float32)
        proto = weights(a=value)
        before = proto.SerializeToString()
        (found,) = ReferenceEvaluator(halved(proto)).run(None, {})
        np.testing.assert_array_equal(found, value.astype(np.float16).astype(np.float32))
        assert proto.SerializeToString() == before

    @pytest.mark.parametrize("bad", [1e6, float("inf"), float("nan")])
    def test_weights_beyond_16_bits_stay(self, bad: float) -> None:
        value = np.ones((8, 16), np.float32)
        spoilt = value.copy()
        spoilt[3, 3] = bad
        assert kinds(halved(weights(a=value, b=spoilt))) == {"a_fp16": TensorProto.FLOAT16, "b": TensorProto.FLOAT}

    def test_small_ones_other_types_and_inputs_with_a_default_stay(self) -> None:
        value = np.ones((8, 16), np.float32)
        with pytest.raises(NothingToGain, match="no large fp32 weights"):
            halved(weights(a=np.ones(63, np.float32)))
        with pytest.raises(NothingToGain, match="no large fp32 weights"):
            halved(weights(a=value.astype(np.float64)))
        assert kinds(halved(weights(("a",), a=value, b=value))) == {
            "a": TensorProto.FLOAT,
            "b_fp16": TensorProto.FLOAT16,
        }

    def test_a_weight_that_a_subgraph_uses_is_found_there(self) -> None:
        value = np.full((8, 16), 2.0, np.float32)
        branch = helper.make_graph(
            [helper.make_node("Neg", ["a"], ["o"])], "b", [], [helper.make_empty_tensor_value_info("o")]
        )
        proto = weights(a=value)
        proto.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
        proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
        proto.graph.output.append(helper.make_empty_tensor_value_info("z"))
        _, found = ReferenceEvaluator(halved(proto)).run(None, {})
        np.testing.assert_array_equal(found, -value)


class TestTechnique:
    @pytest.mark.parametrize(
        ("flags", "runtime", "precision"),
        [
            (("avx512_bf16",), "openvino", "bf16"),
            (("amx_bf16",), "openvino", "bf16"),
            (("bf16",), "openvino", "bf16"),
            (("avx2",), "openvino", None),
            (("avx512_bf16",), "onnxruntime", None),
        ],
    )
    def test_the_hint_is_given_where_processor_and_engine_have_such_arithmetic(
        self, flags: tuple[str, ...], runtime: str, precision: str | None, given: Any, context: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        found = replace(machine(), flags=flags)
        monkeypatch.setattr("trimtab.techniques.bf16.machine", lambda: found)
        variant, task = given("transformer")
        made = Bf16().apply(variant.on(Settings(runtime=runtime)), context(variant, task))
        assert made.settings == Settings(runtime=runtime, precision=precision)

    @pytest.mark.parametrize(("flags", "reason"), [(("amx_bf16",), None), (("avx2",), "nothing would be faster")])
    def test_of_pytorch_models_only_the_settings_change(
        self, flags: tuple[str, ...], reason: str | None, given: Any, context: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = replace(machine(), flags=flags)
        monkeypatch.setattr("trimtab.techniques.bf16.machine", lambda: found)
        variant, task = given("cnn")
        torch = replace(variant, model=replace(variant.model, format="torch")).on(Settings(runtime="torch"))
        said = Bf16().refuses(torch, task)
        assert said is None if reason is None else reason in str(said)
        if reason is None:
            made = Bf16().apply(torch, context(variant, task))
            assert (made.model, made.settings.precision) == (torch.model, "bf16")

    @pytest.mark.parametrize("network", ["cnn", "transformer"])
    def test_an_openvino_model_is_halved_too(self, network: str, given: Any, context: Any, outputs: Any) -> None:
        from trimtab.techniques.export_openvino import ExportOpenVino

        variant, task = given(network)
        converted = ExportOpenVino().apply(variant, context(variant, task, "converted"))
        made = Bf16().apply(converted, context(converted, task))
        sizes = [v.model.path.with_suffix(".bin").stat().st_size for v in (converted, made)]
        assert sizes[1] < 0.75 * sizes[0]
        np.testing.assert_allclose(outputs(made, task), outputs(converted, task), atol=0.05)
