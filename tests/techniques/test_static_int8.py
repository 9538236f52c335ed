"""Calibration against ONNX Runtime's own, the two ways to cut a range, and processors that overflow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from trimtab.core import plugins
from trimtab.core.machine import machine
from trimtab.core.values import options
from trimtab.techniques.int8 import feeds
from trimtab.techniques.simplify import optimized
from trimtab.techniques.static_int8 import StaticInt8, entropy_bound, percentile_bound


def test_the_scales_are_those_of_onnxruntime(given: Any, context: Any, tmp_path: Any) -> None:
    variant, task = given("cnn")
    made = StaticInt8(reduce_range=False).apply(variant, context(variant, task))
    onnx.save(optimized(variant.model.path, "basic"), tmp_path / "prepared.onnx")

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = feeds(variant, task, 300)

        def get_next(self) -> Any:
            return next(self.left, None)

    quantize_static(
        tmp_path / "prepared.onnx", tmp_path / "reference.onnx", Reader(), per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    ours, theirs = (_scales(onnx.load(path)) for path in (made.model.path, tmp_path / "reference.onnx"))
    assert ours.keys() == theirs.keys() != set()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6)


def _scales(proto: onnx.ModelProto) -> dict[str, Any]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if t.name.endswith("_scale")}


def test_the_percentile_leaves_out_the_largest_values() -> None:
    values = np.concatenate([np.linspace(0.0, 1.0, 100_000), [10.0]])
    counts, _ = np.histogram(values, bins=2048, range=(0.0, 10.0))
    assert percentile_bound(counts) * 10 == pytest.approx(np.quantile(values, 0.9999), abs=10 / 2048)


def test_entropy_clips_a_few_outliers_but_not_an_even_spread() -> None:
    rng = np.random.default_rng(0)
    bell = np.abs(rng.normal(size=200_000))
    outliers, _ = np.histogram(np.concatenate([bell, [40.0]]), bins=2048, range=(0.0, 40.0))
    assert 2.0 < entropy_bound(outliers) * 40 < 10.0
    even, _ = np.histogram(rng.uniform(0.0, 40.0, 200_000), bins=2048, range=(0.0, 40.0))
    assert entropy_bound(even) > 0.95


def test_where_they_overflow_weights_have_7_bits_and_the_step_says_so(
    given: Any, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant, task = given("cnn")
    old = replace(machine(), system="Linux 5.4 x86_64", flags=("avx2",))
    monkeypatch.setattr("trimtab.techniques.int8.machine", lambda: old)
    made = plugins.make("techniques", "static-int8").apply(variant, context(variant, task))
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(made.model.path).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]
    assert weights
    assert max(np.abs(weight).max() for weight in weights) <= 64
    assert made.steps[0].options == options(reduce_range=True)
