"""NNCF int8: layers restored one by one, the presets, and models of OpenVINO's own format."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("nncf")

from trimtab.core.values import Settings, Task
from trimtab.formats.openvino import OpenVinoFormat
from trimtab.techniques.nncf_int8 import NncfInt8


def quantizers(model: Any) -> int:
    return sum(node.get_type_name() == "FakeQuantize" for node in OpenVinoFormat().load(model).get_ordered_ops())


@pytest.fixture(scope="module")
def items() -> int:
    return 8  # enough to calibrate on, and quick


def test_an_openvino_model_is_quantized_in_its_own_format(given: Any, context: Any, outputs: Any, items: int) -> None:
    from trimtab.techniques.export_openvino import ExportOpenVino

    variant, task = given("cnn")
    converted = ExportOpenVino().apply(variant, context(variant, task, "converted"))
    assert NncfInt8().refuses(converted, task) is None
    made = NncfInt8(preset="mixed").apply(converted, context(converted, task))
    assert [step.technique for step in made.steps] == ["export-openvino", "nncf-int8"]
    assert made.settings == converted.settings
    before, after = outputs(converted, task), outputs(made, task)
    assert np.sqrt(np.mean((after - before) ** 2)) <= 0.15 * before.std()


def test_layers_are_restored_in_any_choice_without_quantizing_again(
    given: Any, context: Any, outputs: Any, items: int
) -> None:
    variant, task = given("cnn")
    prepared = NncfInt8(items=items).prepare(variant, context(variant, task))
    assert prepared.settings == Settings(runtime="openvino", precision="fp32", threads=1)
    assert len(prepared.layers) == 4
    feed = [{"x": np.load(task.split("select").inputs[0].path)}]
    ((right,),) = prepared.run(prepared.original, feed)
    np.testing.assert_allclose(right, outputs(variant, task), atol=1e-4)
    saved = [
        prepared.save(prepared.build(keep), context(variant, task).folder)
        for keep in (frozenset(), frozenset(prepared.layers[:1]), frozenset(prepared.layers))
    ]
    counts = [quantizers(model) for model in saved]
    assert counts[0] > counts[1] > counts[2]
    ((restored,),) = prepared.run(prepared.build(frozenset(prepared.layers)), feed)
    np.testing.assert_allclose(restored, right, atol=1e-3)
    assert prepared.save(prepared.build(frozenset()), context(variant, task).folder).digest == saved[0].digest


def test_attention_is_recognized_and_products_of_activations_may_be_kept(given: Any, context: Any, items: int) -> None:
    variant, task = given("transformer")
    prepared = NncfInt8(items=items).prepare(variant, context(variant, task))
    assert {"query", "key", "value", "out"} <= {name.partition("/")[0] for name in prepared.layers}


def test_refusals_say_what_is_missing(given: Any) -> None:
    variant, task = given("cnn")
    assert "choose performance or mixed" in str(NncfInt8(preset="fast").refuses(variant, task))
    assert "give --data" in str(NncfInt8().refuses(variant, Task()))
