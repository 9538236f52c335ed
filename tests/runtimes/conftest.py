from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from trimtab.core.protocols import Opening
from trimtab.core.values import Model, Settings, Variant
from trimtab.formats.onnx import OnnxFormat
from trimtab.testing.networks import PERCEPTRON


@pytest.fixture
def perceptron(tmp_path: Path) -> Callable[[Settings], Variant]:
    """Write a tiny network as ONNX and return it on the settings given."""

    def make(settings: Settings) -> Variant:
        path = tmp_path / "perceptron.onnx"
        path.write_bytes(PERCEPTRON.graph(0).SerializeToString())
        return Variant(model=OnnxFormat().open(str(path), Opening(folder=tmp_path)), settings=settings)

    return make


@pytest.fixture
def operator(tmp_path: Path) -> Callable[..., Model]:
    """Write a model of a single operator, y = operator(x)."""

    def make(name: str, *sizes: int, domain: str = "", **attributes: Any) -> Model:
        shape = ("n", *(sizes or (4,)))
        node = helper.make_node(name, ["x"], ["y"], domain=domain, **attributes)
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        versions = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
        path = tmp_path / f"{name}.onnx"
        graph = helper.make_graph([node], "g", [given], [made])
        onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=8), path)
        return OnnxFormat().open(str(path), Opening(folder=tmp_path))

    return make
