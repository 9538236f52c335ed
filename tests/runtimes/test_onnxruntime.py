from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.machine import machine
from trimtab.core.values import Settings, Variant, Workload
from trimtab.runtimes.onnxruntime import OnnxRuntime, _cause
from trimtab.testing.networks import PERCEPTRON

PLAIN = Settings(runtime="onnxruntime")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[onnxruntime.SessionOptions]:
    """Remember the options of every session that is made."""
    given: list[onnxruntime.SessionOptions] = []
    real = onnxruntime.InferenceSession

    def remember(path, options, **more):
        given.append(options)
        return real(path, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", remember)
    return given


@pytest.mark.parametrize(
    "settings",
    [PLAIN, replace(PLAIN, threads=1), replace(PLAIN, spinning=False), replace(PLAIN, spinning=True, fusion=False)],
    ids=lambda settings: settings.label(),
)
def test_settings_change_how_it_runs_and_never_what_it_answers(perceptron, settings):
    inputs = PERCEPTRON.inputs(4, 0)
    answer = OnnxRuntime().load(perceptron(settings))(inputs)
    assert np.allclose(answer["scores"], PERCEPTRON.answer(inputs)["scores"], atol=1e-5)


def test_settings_reach_the_engine(perceptron, made):
    OnnxRuntime().load(perceptron(replace(PLAIN, threads=1, spinning=False, fusion=False)))
    (options,) = made
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


def test_what_is_left_open_stays_the_engines_own_default(perceptron, made):
    OnnxRuntime().load(perceptron(PLAIN))
    (options,), default = made, onnxruntime.SessionOptions()
    assert options.intra_op_num_threads == default.intra_op_num_threads
    assert options.graph_optimization_level == default.graph_optimization_level


def test_offers_its_defaults_first_then_every_halving_of_the_cores():
    offered = OnnxRuntime().settings(replace(machine(), cores=8), Workload())
    assert offered[0] == PLAIN
    assert [settings.threads for settings in offered if settings.threads] == [8, 4, 2, 1]
    assert any(settings.spinning is False for settings in offered)
    assert [settings for settings in offered if not settings.fusion] == [replace(PLAIN, fusion=False)]


def test_an_operator_without_a_kernel_is_named_in_one_line(operator):
    model = operator("Mystery", domain="acme")
    with pytest.raises(BadInput, match=r"onnxruntime can't run this model: .*acme:Mystery") as raised:
        OnnxRuntime().load(Variant(model=model, settings=PLAIN))
    assert "\n" not in str(raised.value)
    assert "ONNXRuntimeError" not in str(raised.value)


def test_a_file_that_is_gone_is_told_in_one_line(perceptron):
    variant = perceptron(PLAIN)
    variant.model.path.unlink()
    with pytest.raises(BadInput, match="File doesn't exist"):
        OnnxRuntime().load(variant)


def test_refuses_what_is_not_onnx_or_not_for_the_cpu(perceptron):
    variant = perceptron(PLAIN)
    assert OnnxRuntime().refuses(variant) is None
    assert "this one is torch" in str(
        OnnxRuntime().refuses(replace(variant, model=replace(variant.model, format="torch")))
    )
    assert "'cuda'" in str(OnnxRuntime().refuses(variant.on(replace(PLAIN, device="cuda"))))


@pytest.mark.parametrize("asked", [{"precision": "bf16"}, {"streams": 2}, {"replicas": 2}], ids=str)
def test_settings_that_it_would_ignore_are_refused(perceptron, asked):
    reason = OnnxRuntime().refuses(perceptron(replace(PLAIN, **asked)))
    assert f"onnxruntime has no setting {next(iter(asked))}=" in str(reason)


def test_the_words_of_an_error_come_without_its_number_and_its_source_file():
    said = "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an\n implementation for Mystery(1)"
    assert _cause(said) == "Could not find an implementation for Mystery(1)"
    placed = "[ONNXRuntimeError] : 1 : FAIL : /a/b.cc:12 void f(int, char) Load failed"
    assert _cause(placed) == "Load failed"
    assert len(_cause("word " * 1000)) <= 300
