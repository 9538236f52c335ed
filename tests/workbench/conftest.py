"""A small trained model with real data, and jobs on it that end within seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from trimtab.core.values import Goal
from trimtab.workbench.optimize import Effort, Job


@pytest.fixture(scope="session")
def digits_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A linear classifier of scikit-learn's digits as ONNX, and the items it was not trained on as .npz."""
    folder = tmp_path_factory.mktemp("digits")
    inputs, labels = load_digits(return_X_y=True)
    inputs = inputs.astype(np.float32) / 16
    fitted = LogisticRegression(max_iter=300).fit(inputs[:600], labels[:600])
    weights = [fitted.coef_.T.astype(np.float32), fitted.intercept_.astype(np.float32)]
    hidden = np.eye(64, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "hidden"], ["h"], name="first"),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "w", "b"], ["scores"], name="second"),
        ],
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        [
            numpy_helper.from_array(value, name)
            for value, name in zip([*weights, hidden], ["w", "b", "hidden"], strict=True)
        ],
    )
    model, data = folder / "linear.onnx", folder / "data.npz"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    np.savez(data, inputs=inputs[600:], labels=labels[600:])
    return model, data


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))


@pytest.fixture
def job(digits_files: tuple[Path, Path], tmp_path: Path) -> Callable[..., Job]:
    """Make a job on the linear classifier; keywords replace its parts."""

    def make(**given: Any) -> Job:
        model, data = digits_files
        effort = Effort(seconds=20, only=("onnxruntime", "static-int8", "dynamic-int8"), trials=4)
        parts = {"model": model, "data": data, "output": tmp_path / "out", "goal": Goal(), "effort": effort}
        return Job(**{**parts, **given})

    return make
