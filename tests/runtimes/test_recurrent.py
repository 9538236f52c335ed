"""Stateful models over whole sequences, against the recurrences written out in numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trimtab.core.engine import ready
from trimtab.core.protocols import Opening
from trimtab.core.values import Model, Settings, Split, Task, Variant, Workload
from trimtab.data.task import open_task
from trimtab.formats.onnx import OnnxFormat
from trimtab.meters.predict import predict
from trimtab.runtimes.session import open_session

FEATURES, HIDDEN, CLASSES = 3, 5, 4
Weights = dict[str, NDArray[Any]]
RUNTIMES = [Settings(runtime="onnxruntime", threads=1), Settings(runtime="openvino", precision="fp32", threads=1)]


def random(seed: int, *shape: int) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def save(path: Path, nodes: list[Any], states: dict[str, tuple[int | str, ...]], weights: Weights) -> Model:
    given = [value("x", "n", FEATURES), *(value(f"{name}_in", *shape) for name, shape in states.items())]
    made = [value("y", "n", CLASSES), *(value(f"{name}_out", *shape) for name, shape in states.items())]
    kept = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "net", given, made, kept)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    return OnnxFormat().open(str(path), Opening(folder=path.parent))


def gru_model(folder: Path) -> tuple[Model, Weights]:
    """A GRU cell out of plain operators."""
    weights = {f"w{gate}": random(i, FEATURES + HIDDEN, HIDDEN) for i, gate in enumerate("zrn")}
    weights |= {"v": random(9, HIDDEN, CLASSES), "one": np.ones(1, np.float32)}
    nodes = [
        helper.make_node("Concat", ["x", "h_in"], ["xh"], axis=1),
        helper.make_node("MatMul", ["xh", "wz"], ["z0"]),
        helper.make_node("Sigmoid", ["z0"], ["z"]),
        helper.make_node("MatMul", ["xh", "wr"], ["r0"]),
        helper.make_node("Sigmoid", ["r0"], ["r"]),
        helper.make_node("Mul", ["r", "h_in"], ["rh"]),
        helper.make_node("Concat", ["x", "rh"], ["xrh"], axis=1),
        helper.make_node("MatMul", ["xrh", "wn"], ["n0"]),
        helper.make_node("Tanh", ["n0"], ["n1"]),
        helper.make_node("Sub", ["one", "z"], ["kept"]),
        helper.make_node("Mul", ["kept", "n1"], ["new"]),
        helper.make_node("Mul", ["z", "h_in"], ["old"]),
        helper.make_node("Add", ["new", "old"], ["h_out"]),
        helper.make_node("MatMul", ["h_out", "v"], ["y"]),
    ]
    return save(folder / "gru.onnx", nodes, {"h": ("n", HIDDEN)}, weights), weights


def sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return 1 / (1 + np.exp(-x))


def gru(weights: Weights, sequences: NDArray[Any]) -> NDArray[Any]:
    h = np.zeros((len(sequences), HIDDEN))
    for x in sequences.swapaxes(0, 1):
        xh = np.concatenate([x, h], axis=1)
        z, r = sigmoid(xh @ weights["wz"]), sigmoid(xh @ weights["wr"])
        h = (1 - z) * np.tanh(np.concatenate([x, r * h], axis=1) @ weights["wn"]) + z * h
    return h @ weights["v"]


def lstm_model(folder: Path) -> tuple[Model, Weights]:
    """One step of ONNX's own LSTM operator, whose states have their batch on the second axis."""
    weights = {
        "W": random(1, 1, 4 * HIDDEN, FEATURES), "R": random(2, 1, 4 * HIDDEN, HIDDEN), "B": random(3, 1, 8 * HIDDEN),
        "v": random(4, HIDDEN, CLASSES), "first": np.array([0], np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Unsqueeze", ["x", "first"], ["sequence"]),
        helper.make_node(
            "LSTM", ["sequence", "W", "R", "B", "", "h_in", "c_in"], ["", "h_out", "c_out"], hidden_size=HIDDEN
        ),
        helper.make_node("Squeeze", ["h_out", "first"], ["last"]),
        helper.make_node("MatMul", ["last", "v"], ["y"]),
    ]
    return save(folder / "lstm.onnx", nodes, {"h": (1, "n", HIDDEN), "c": (1, "n", HIDDEN)}, weights), weights


def lstm(weights: Weights, sequences: NDArray[Any]) -> NDArray[Any]:
    h = c = np.zeros((len(sequences), HIDDEN))
    bias = weights["B"][0].reshape(2, -1).sum(axis=0)
    for x in sequences.swapaxes(0, 1):
        gates = x @ weights["W"][0].T + h @ weights["R"][0].T + bias
        i, o, f, new = np.split(gates, 4, axis=1)  # ONNX's order
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(new)
        h = sigmoid(o) * np.tanh(c)
    return h @ weights["v"]


NETS = {"gru": (gru_model, gru), "lstm": (lstm_model, lstm)}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Model, Callable[[NDArray[Any]], NDArray[Any]]]:
    """A recurrent model and what it computes."""
    make, reference = NETS[request.param]
    model, weights = make(tmp_path)
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    return model, lambda sequences: reference(wide, sequences)


@pytest.mark.parametrize("settings", RUNTIMES, ids=lambda settings: settings.runtime)
def test_whole_sequences_answer_like_the_recurrence_and_shuffled_steps_do_not(net, settings):
    model, reference = net
    assert len(model.signature.states) in (1, 2)
    sequences = random(5, 4, 12, FEATURES)
    engine = ready(Variant(model=model, settings=settings))
    assert np.allclose(engine({"x": sequences})["y"], reference(sequences), atol=1e-5)
    shuffled = sequences[:, np.random.default_rng(0).permutation(12)]
    assert np.allclose(engine({"x": shuffled})["y"], reference(shuffled), atol=1e-5)
    assert np.abs(engine({"x": shuffled})["y"] - engine({"x": sequences})["y"]).max() > 0.05


@pytest.mark.parametrize("settings", RUNTIMES, ids=lambda settings: settings.runtime)
def test_items_of_a_task_are_sequences_and_go_through_the_worker_in_batches(net, settings, tmp_path):
    model, reference = net
    sequences = random(6, 40, 7, FEATURES)
    truth = reference(sequences).argmax(axis=1)
    task: Task = open_task({"inputs": sequences, "labels": truth}, model, tmp_path / "data")
    split = task.split("certify")
    assert isinstance(split, Split)
    with open_session(Variant(model=model, settings=settings)) as session:
        outputs = predict(session, task, split, Workload(batch=3))
        timed = session.time({"x": sequences[:1]}, 3)
    rows = np.load(split.rows.path)
    assert np.allclose(outputs, reference(sequences[rows]), atol=1e-5)
    assert timed.wall_ns.shape == (3,)
    assert (timed.wall_ns > 0).all()


@pytest.mark.parametrize("settings", RUNTIMES, ids=lambda settings: settings.runtime)
def test_a_cache_of_keys_begins_empty_in_every_engine(settings, tmp_path):
    nodes = [
        helper.make_node("Unsqueeze", ["x", "second"], ["step"]),
        helper.make_node("Concat", ["past_k", "step"], ["present_k"], axis=1),
        helper.make_node("ReduceMean", ["present_k"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "v"], ["y"]),
    ]
    weights = {"second": np.array([1], np.int64), "v": random(1, FEATURES, CLASSES)}
    graph = helper.make_graph(
        nodes,
        "cache",
        [value("x", "n", FEATURES), value("past_k", "n", "past", FEATURES)],
        [value("y", "n", CLASSES), value("present_k", "n", "past + 1", FEATURES)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    model = OnnxFormat().open(str(tmp_path / "m.onnx"), Opening(folder=tmp_path))
    assert [spec.name for spec in model.signature.states] == ["past_k"]
    sequences = random(5, 4, 6, FEATURES)
    answer = ready(Variant(model=model, settings=settings))({"x": sequences})["y"]
    assert np.allclose(answer, sequences.mean(axis=1) @ weights["v"], atol=1e-5)
