"""Tiny networks with known truth: what each one computes is written down twice, as an ONNX graph and in numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.core.protocols import Array, Arrays

if TYPE_CHECKING:
    import onnx

CLASSES = 4
_OPSET = 17
_EPSILON = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network by its graph and by what it computes.

    `inputs(items, seed)` returns random inputs; `answer(inputs)` what the network must answer to them, computed in
    numpy; `graph(seed)` the same network as ONNX. Equal seeds of graph and answer are equal weights.
    """

    name: str
    inputs: Callable[[int, int], dict[str, Array]]
    answer: Callable[[Arrays], dict[str, Array]]
    graph: Callable[[int], onnx.ModelProto]


def weights(name: str, seed: int = 0) -> dict[str, Array]:
    """Return the weights of a network, float32, scaled so that its answers are of the order of one."""
    rng = np.random.default_rng([seed, len(name)])
    found = {key: rng.normal(size=shape) / np.sqrt(fan) for key, (shape, fan) in _SHAPES[name].items()}
    if name == "convolution":
        found |= {"mean": rng.normal(size=8) / 4, "var": rng.uniform(0.5, 1.5, 8), "scale": rng.uniform(0.5, 1.5, 8)}
    return {key: value.astype(np.float32) for key, value in found.items()}


_SHAPES: dict[str, dict[str, tuple[tuple[int, ...], int]]] = {
    "perceptron": {"w1": ((16, 32), 16), "b1": ((32,), 4), "w2": ((32, CLASSES), 32), "b2": ((CLASSES,), 4)},
    "convolution": {
        "w1": ((8, 3, 3, 3), 27), "b1": ((8,), 4), "shift": ((8,), 4),
        "w2": ((8, CLASSES), 8), "b2": ((CLASSES,), 4),
    },
    "tokens": {"table": ((50, 16), 1), "w": ((16, CLASSES), 16)},
}  # fmt: skip


def _normal(shape: tuple[int, ...], name: str, items: int, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(items, *shape)).astype(np.float32)}


def _token_inputs(items: int, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 8, size=(items, 1))
    return {"ids": rng.integers(1, 50, size=(items, 7)), "mask": (np.arange(7) < lengths).astype(np.int64)}


def _perceptron(given: Arrays) -> dict[str, Array]:
    w = weights("perceptron")
    return {"scores": np.maximum(given["x"] @ w["w1"] + w["b1"], 0) @ w["w2"] + w["b2"]}


def _convolution(given: Arrays) -> dict[str, Array]:
    w = weights("convolution")
    padded = np.pad(given["image"], ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    found = np.einsum("nchwij,ocij->ohwn", windows, w["w1"]).transpose(3, 0, 1, 2) + w["b1"][:, None, None]
    slope = (w["scale"] / np.sqrt(w["var"] + _EPSILON))[:, None, None]
    normal = (found - w["mean"][:, None, None]) * slope + w["shift"][:, None, None]
    return {"scores": np.maximum(normal, 0).mean(axis=(2, 3)) @ w["w2"] + w["b2"]}


def _tokens(given: Arrays) -> dict[str, Array]:
    w = weights("tokens")
    mask = given["mask"].astype(np.float32)[..., None]
    return {"scores": (w["table"][given["ids"]] * mask).sum(1) / mask.sum(1) @ w["w"]}


def _perceptron_graph(seed: int) -> onnx.ModelProto:
    return _graph(
        "perceptron",
        seed,
        [("Gemm", ["x", "w1", "b1"], "h", {}), ("Relu", ["h"], "r", {}), ("Gemm", ["r", "w2", "b2"], "scores", {})],
        [("x", "FLOAT", ["batch", 16])],
    )


def _convolution_graph(seed: int) -> onnx.ModelProto:
    return _graph(
        "convolution",
        seed,
        [
            ("Conv", ["image", "w1", "b1"], "c", {"pads": [1, 1, 1, 1]}),
            ("BatchNormalization", ["c", "scale", "shift", "mean", "var"], "n", {"epsilon": _EPSILON}),
            ("Relu", ["n"], "r", {}),
            ("GlobalAveragePool", ["r"], "g", {}),
            ("Flatten", ["g"], "f", {}),
            ("Gemm", ["f", "w2", "b2"], "scores", {}),
        ],
        [("image", "FLOAT", ["batch", 3, 8, 8])],
    )


def _token_graph(seed: int) -> onnx.ModelProto:
    return _graph(
        "tokens",
        seed,
        [
            ("Gather", ["table", "ids"], "e", {}),
            ("Cast", ["mask"], "m", {"to": 1}),
            ("Unsqueeze", ["m", "last"], "m1", {}),
            ("Mul", ["e", "m1"], "masked", {}),
            ("ReduceSum", ["masked", "middle"], "total", {"keepdims": 0}),
            ("ReduceSum", ["m1", "middle"], "count", {"keepdims": 0}),
            ("Div", ["total", "count"], "average", {}),
            ("MatMul", ["average", "w"], "scores", {}),
        ],
        [("ids", "INT64", ["batch", "sequence"]), ("mask", "INT64", ["batch", "sequence"])],
        {"last": np.array([2]), "middle": np.array([1])},
    )


def _graph(
    name: str,
    seed: int,
    nodes: list[tuple[str, list[str], str, dict[str, Any]]],
    inputs: list[tuple[str, str, list[int | str]]],
    constants: Arrays | None = None,
) -> onnx.ModelProto:
    from onnx import TensorProto, helper, numpy_helper

    held = {**weights(name, seed), **(constants or {})}
    graph = helper.make_graph(
        [helper.make_node(kind, given, [made], name=f"{kind}_{made}", **more) for kind, given, made, more in nodes],
        name,
        [helper.make_tensor_value_info(key, getattr(TensorProto, kind), shape) for key, kind, shape in inputs],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value, key) for key, value in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)


PERCEPTRON = Network(
    name="perceptron", inputs=partial(_normal, (16,), "x"), answer=_perceptron, graph=_perceptron_graph
)
CONVOLUTION = Network(
    name="convolution", inputs=partial(_normal, (3, 8, 8), "image"), answer=_convolution, graph=_convolution_graph
)
TOKENS = Network(name="tokens", inputs=_token_inputs, answer=_tokens, graph=_token_graph)
