"""Plug-ins from a folder on the path, as a separate distribution would bring them, and races on a tiny model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core import plugins
from trimtab.core.machine import machine
from trimtab.core.values import Goal, Model, Settings, Task, Variant
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.formats.onnx import save
from trimtab.meters.predict import predict
from trimtab.runtimes.session import open_session
from trimtab.search.budget import Budget
from trimtab.search.journal import Journal
from trimtab.search.making import Shop
from trimtab.search.progress import Silent
from trimtab.search.race import Race

Install = Callable[[str, str, str], None]

ITEMS = 600


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a plug-in: group, name and the code of its module, whose class is called Plugin."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def add(group: str, name: str, code: str) -> None:
        module = f"foreign_{name.replace('-', '_')}"
        (site / f"{module}.py").write_text(code)
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[trimtab.{group}]\n{name} = {module}:Plugin\n")
        _forget()

    _forget()
    yield add
    for loaded in [name for name in sys.modules if name.startswith("foreign_")]:
        del sys.modules[loaded]
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    plugins._found.cache_clear()
    plugins.plugin_class.cache_clear()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A linear model of 3 classes over 4 numbers: the class is the largest of the first three."""
    weights = np.eye(4, 3, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return save(proto, tmp_path_factory.mktemp("tiny") / "tiny.onnx")


@pytest.fixture(scope="session")
def task(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Items that the tiny model answers rightly."""
    inputs = np.random.default_rng(0).normal(size=(ITEMS, 4)).astype(np.float32)
    labels = inputs[:, :3].argmax(axis=1)
    return open_task((inputs, labels), tiny, tmp_path_factory.mktemp("data"), DataRequest())


@pytest.fixture
def original(tiny: Model) -> Variant:
    return Variant(model=tiny, settings=Settings(runtime="onnxruntime"))


@pytest.fixture
def race(original: Variant, task: Task, tmp_path: Path) -> Iterator[Race]:
    """A race that has not begun."""
    split = task.split("select")
    assert split is not None
    with open_session(original) as session:
        outputs = predict(session, task, split, Goal().workload)
    answers = tmp_path / "answers.npy"
    np.save(answers, outputs)
    shop = Shop(task=task, goal=Goal(), original=original, folder=tmp_path / "variants", answers=answers)
    made = Race(
        shop=shop,
        journal=Journal(tmp_path / "journal.jsonl"),
        budget=Budget(seconds=120),
        progress=Silent(),
        machine=machine(),
        outputs=outputs,
    )
    yield made
    made.close()
