from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core import plugins
from trimtab.core.errors import MissingExtra
from trimtab.core.protocols import Opening
from trimtab.core.values import Contents, Model
from trimtab.formats.onnx import OnnxFormat, save
from trimtab.workbench.inspect import inspect, precision


@pytest.fixture
def recurrent(tmp_path) -> Model:
    """A step of a recurrent net: h_out = tanh([x, h_in] · w)."""
    nodes = [
        helper.make_node("Concat", ["x", "h_in"], ["both"], axis=1),
        helper.make_node("MatMul", ["both", "w"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["h_out"]),
        helper.make_node("MatMul", ["h_out", "v"], ["y"]),
    ]

    def info(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in (("w", (12, 8)), ("v", (8, 2)))
    ]
    given, made = [info("x", "n", 4), info("h_in", "n", 8)], [info("y", "n", 2), info("h_out", "n", 8)]
    graph = helper.make_graph(nodes, "net", given, made, weights)
    return save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")


def test_tells_states_size_work_and_precision(recurrent):
    found = inspect(recurrent)
    values = {reading.name: reading.value for reading in found.readings}
    assert found.states == (("h_in", "h_out"),)
    assert values["parameters"] == 12 * 8 + 8 * 2
    assert values["bytes"] == recurrent.path.stat().st_size
    assert (values["macs"], values["macs_coverage"]) == (12 * 8 + 8 * 2, 1.0)
    assert found.precision == (("float32", 1.0),)
    assert found.contents is not None
    assert dict(found.contents.operators) == {"MatMul": 2, "Concat": 1, "Tanh": 1}


def test_asks_every_runtime_and_technique(recurrent):
    found = inspect(recurrent)
    assert [ability.name for ability in found.runtimes] == list(plugins.names("runtimes"))
    assert [ability.name for ability in found.techniques] == list(plugins.names("techniques"))
    assert next(ability for ability in found.runtimes if ability.name == "onnxruntime").refusal is None
    assert all(ability.refusal is None or ability.refusal for ability in found.techniques)


def test_a_plug_in_that_can_not_be_loaded_is_told_and_stops_nothing(recurrent, monkeypatch):
    made = plugins.make

    def make(group: str, name: str, *options: object) -> object:
        if name == "openvino":
            raise MissingExtra("openvino", "openvino", "running on OpenVINO")
        if name == "static-int8":
            raise ModuleNotFoundError("No module named 'gone'")
        return made(group, name, *options)

    monkeypatch.setattr(plugins, "make", make)
    found = inspect(recurrent)
    refusals = {ability.name: ability.refusal for ability in (*found.runtimes, *found.techniques)}
    assert "pip install 'trimtab[openvino]'" in refusals["openvino"]
    assert refusals["static-int8"] == "it can't be loaded: No module named 'gone'"
    assert refusals["onnxruntime"] is None


def test_a_format_that_does_not_tell_is_said_not_guessed(tmp_path, recurrent, monkeypatch):
    class FakeFormat:
        name = "fake"

    made = plugins.make

    def make(group: str, name: str, *options: object) -> object:
        return FakeFormat() if (group, name) == ("formats", "fake") else made(group, name, *options)

    monkeypatch.setattr(plugins, "make", make)
    found = inspect(replace(recurrent, format="fake"))
    values = {reading.name: reading for reading in found.readings}
    assert (found.contents, found.work, found.precision) == (None, None, ())
    assert all(ability.refusal for ability in found.runtimes), "nothing runs such a model"
    assert (values["macs"].value, values["macs"].provenance) == (None, "unavailable")


def test_precision_is_the_share_of_the_parameters():
    assert precision(Contents(files=(), parameters=(("int8", 75), ("float32", 25)))) == (
        ("int8", 0.75),
        ("float32", 0.25),
    )
    assert precision(Contents(files=())) == ()


def test_imports_no_framework(recurrent):
    code = (
        "import sys; from pathlib import Path; from trimtab.formats.onnx import OnnxFormat;"
        "from trimtab.core.protocols import Opening; from trimtab.workbench.inspect import inspect;"
        f"inspect(OnnxFormat().open({str(recurrent.path)!r}, Opening(folder=Path('/'))));"
        "print(sorted({'torch', 'onnxruntime', 'openvino', 'nncf', 'transformers'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_tells_the_same_wherever_the_weights_lie(tmp_path, recurrent):
    path = tmp_path / "external" / "m.onnx"
    save(OnnxFormat().load(recurrent), path, inline=0)
    found = inspect(OnnxFormat().open(str(path), Opening(folder=tmp_path)))
    one = inspect(recurrent)
    assert found.work == one.work
    assert found.precision == one.precision
