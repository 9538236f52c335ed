"""PyTorch compiled: it needs a compiler and time, and answers like the module."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.machine import machine
from trimtab.core.values import Model, Settings, Variant, Workload

torch = pytest.importorskip("torch")

from trimtab.formats.torch import save_module  # noqa: E402 (after the skip)
from trimtab.runtimes.torch_compile import TorchCompileRuntime  # noqa: E402
from trimtab.testing import PERCEPTRON, perceptron  # noqa: E402

PLAIN = Settings(runtime="torch-compile")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    return save_module(perceptron.make(), PERCEPTRON.inputs(1, 0), folder, output_names=perceptron.output_names)


def test_without_a_compiler_it_is_refused_with_what_to_install(model, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = TorchCompileRuntime().refuses(Variant(model=model, settings=PLAIN)) or ""
    assert "there is no no-such-compiler; install g++ or set CXX" in reason


def test_the_compiler_that_the_user_names_is_the_one_that_counts(model, monkeypatch, tmp_path):
    compiler = tmp_path / "my-compiler"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("PATH", "")
    assert TorchCompileRuntime().refuses(Variant(model=model, settings=PLAIN)) is None


def test_what_eager_refuses_is_refused_in_its_own_name(model, monkeypatch):
    monkeypatch.setenv("CXX", "sh")
    onnx = replace(model, format="onnx", path=Path("m.onnx"))
    assert TorchCompileRuntime().refuses(Variant(model=onnx, settings=PLAIN)) == (
        "torch-compile runs PyTorch models, this one is onnx"
    )
    streams = Variant(model=model, settings=replace(PLAIN, streams=2))
    assert "torch-compile has no setting streams=2" in str(TorchCompileRuntime().refuses(streams))


def test_offers_its_defaults_first_and_bf16_only_where_the_processor_computes_it():
    here = machine()
    for flags, expected in (((), [None]), (("avx512_bf16",), [None, "bf16"]), (("amx_bf16",), [None, "bf16"])):
        offered = TorchCompileRuntime().settings(replace(here, flags=flags), Workload())
        assert [settings.precision for settings in offered] == expected
        assert offered[0] == PLAIN


def test_tells_the_search_that_starting_is_dear():
    assert TorchCompileRuntime.startup_s >= 10


@pytest.mark.slow
def test_the_compiled_program_answers_like_the_module(model):
    variant = Variant(model=model, settings=replace(PLAIN, threads=1))
    if reason := TorchCompileRuntime().refuses(variant):
        pytest.skip(reason)
    inputs = PERCEPTRON.inputs(2, 0)
    found = TorchCompileRuntime().load(variant)(inputs)
    np.testing.assert_allclose(found["scores"], PERCEPTRON.answer(inputs)["scores"], atol=1e-5)
