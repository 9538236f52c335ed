"""Small float networks as ONNX and as PyTorch factories, tasks of random items, and a context, for every test here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core import plugins
from trimtab.core.protocols import Array, Context, Evaluate, Opening
from trimtab.core.values import Settings, Split, Task, Variant
from trimtab.data.arrays import save_array
from trimtab.formats.onnx import save

RNG = np.random.default_rng
ITEMS = 24


def _model(nodes: list[Any], weights: dict[str, Array], shape: list[Any], classes: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], classes])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def cnn() -> onnx.ModelProto:
    """Convolution with batch normalization, a depthwise one, a shortcut, and a linear head; nodes without names."""
    rng = RNG(0)
    scaled = lambda *size: (rng.normal(size=size) / np.sqrt(np.prod(size[1:]))).astype(np.float32)  # noqa: E731 # brief
    weights = {
        "w1": scaled(8, 3, 3, 3), "b1": scaled(8, 1)[:, 0],
        "scale": rng.uniform(0.5, 1.5, 8).astype(np.float32), "shift": scaled(8, 1)[:, 0],
        "mean": scaled(8, 1)[:, 0], "var": rng.uniform(0.5, 1.5, 8).astype(np.float32),
        "w2": scaled(8, 1, 3, 3), "b2": scaled(8, 1)[:, 0],
        "w3": scaled(8, 8, 1, 1), "b3": scaled(8, 1)[:, 0],
        "w4": scaled(5, 8), "b4": scaled(5, 1)[:, 0],
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["n1"]),
        node("Relu", ["n1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], group=8),
        node("Relu", ["c2"], ["r2"]),
        node("Conv", ["r2", "w3", "b3"], ["c3"]),
        node("Add", ["r1", "c3"], ["a"]),
        node("Identity", ["a"], ["i"]),
        node("GlobalAveragePool", ["i"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "w4", "b4"], ["y"], transB=1),
    ]
    return _model(nodes, weights, ["batch", 3, 12, 12], 5)


def transformer() -> onnx.ModelProto:
    """One head of attention, a residual, layer normalization, a mean over the tokens, and a linear head."""
    rng = RNG(1)
    scaled = lambda *size: (rng.normal(size=size) / np.sqrt(size[0])).astype(np.float32)  # noqa: E731 # brief
    weights = {name: scaled(64, 64) for name in ("wq", "wk", "wv", "wo")}
    weights |= {"wy": scaled(64, 5), "one": np.ones(64, np.float32), "zero": np.zeros(64, np.float32)}
    weights["by"] = scaled(5)
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "wq"], ["q"], name="query"),
        node("MatMul", ["x", "wk"], ["k"], name="key"),
        node("MatMul", ["x", "wv"], ["v"], name="value"),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1], name="transpose"),
        node("MatMul", ["q", "kt"], ["s"], name="scores"),
        node("Softmax", ["s"], ["p"], axis=-1, name="softmax"),
        node("MatMul", ["p", "v"], ["h"], name="mix"),
        node("MatMul", ["h", "wo"], ["o"], name="out"),
        node("Add", ["x", "o"], ["r"], name="residual"),
        node("LayerNormalization", ["r", "one", "zero"], ["n"], name="norm"),
        node("ReduceMean", ["n"], ["m"], axes=[1], keepdims=0, name="mean"),
        node("Gemm", ["m", "wy", "by"], ["y"], name="head"),
    ]
    return _model(nodes, weights, ["batch", 16, 64], 5)


NETWORKS = {"cnn": (cnn, (3, 12, 12)), "transformer": (transformer, (16, 64))}
FACTORIES = Path(__file__).with_name("torch_networks.py")
TOKENS = ("transformer", "fused", "divided", "whole", "shared", "encoder", "broad")
IMAGES = ("cnn", "grouped", "smooth")


@pytest.fixture
def given(tmp_path: Path) -> Callable[[str], tuple[Variant, Task]]:
    """Return a function from the name of a network to its variant and a task of random items."""

    def make(name: str) -> tuple[Variant, Task]:
        network, shape = NETWORKS[name]
        model = save(network(), tmp_path / "given" / f"{name}.onnx")
        variant = Variant(model=model, settings=Settings(runtime="onnxruntime", threads=1))
        splits = tuple(_split(part, tmp_path / part, shape, seed) for seed, part in enumerate(("calibrate", "select")))
        return variant, Task(splits=splits, digest="random items")

    return make


@pytest.fixture
def factory(tmp_path: Path) -> Callable[[str], tuple[Variant, Task]]:
    """Return a function from the name of a factory to its variant and a task of random items with random labels."""

    def make(name: str) -> tuple[Variant, Task]:
        torch = pytest.importorskip("torch")
        from trimtab.formats.torch import TorchFormat

        torch.set_num_threads(1)
        torch.manual_seed(0)
        given, shape, dtype = "x", (8,), "float32"
        if name in TOKENS:
            given, shape, dtype = "tokens", (6,), "int64"
        elif name in IMAGES:
            given, shape = "image", (3, 8, 8) if name != "smooth" else (16, 8, 8)
        opening = Opening(folder=tmp_path / f"opened-{name}", example=((given, (1, *shape), dtype),))
        model = TorchFormat().open(f"{FACTORIES}:{name}", opening)
        split = _labelled(tmp_path / f"items-{name}", given, shape, dtype)
        task = Task(splits=(split,), classes=tuple("abcd"), digest="random items with labels")
        return Variant(model=model, settings=Settings(runtime="torch", threads=1)), task

    return make


def _labelled(folder: Path, name: str, shape: tuple[int, ...], dtype: str) -> Split:
    values = RNG(0).normal(size=(ITEMS, *shape)) if dtype == "float32" else RNG(0).integers(0, 20, (ITEMS, *shape))
    return Split(
        name="calibrate",
        inputs=(save_array(name, folder / "inputs.npy", values.astype(dtype)),),
        rows=save_array("rows", folder / "rows.npy", np.arange(ITEMS)),
        labels=save_array("labels", folder / "labels.npy", RNG(1).integers(0, 4, ITEMS)),
    )


def _split(name: str, folder: Path, shape: tuple[int, ...], seed: int) -> Split:
    inputs = RNG(seed).normal(size=(ITEMS, *shape)).astype(np.float32)
    file = save_array("x", folder / "x.npy", inputs)
    return Split(name=name, inputs=(file,), rows=save_array("rows", folder / "rows.npy", np.arange(ITEMS)))


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., Context]:
    """Return a function that makes a context with a folder of its own; evaluation says that nothing is lost."""

    def make(
        variant: Variant, task: Task, folder: str = "made", evaluate: Evaluate = lambda made, most=None: 0.0
    ) -> Context:
        return Context(
            task=task, original=variant, folder=tmp_path / folder, seed=3, deadline=time.monotonic() + 60.0,
            evaluate=evaluate, time=lambda made: 0.0,
        )  # fmt: skip

    return make


@pytest.fixture
def outputs() -> Callable[[Variant, Task], Array]:
    """Return a function that runs a variant on the select split."""

    def run(variant: Variant, task: Task) -> Array:
        split = task.split("select")
        assert split is not None
        engine = plugins.make("runtimes", variant.settings.runtime).load(variant)
        return np.asarray(engine({"x": np.load(split.inputs[0].path)})["y"]).copy()

    return run
