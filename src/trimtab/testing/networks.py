"""Tiny networks with known truth: what each one computes is written down twice, as an ONNX graph and in numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from trimtab.core.protocols import Array, Arrays

if TYPE_CHECKING:
    import onnx

CLASSES = 4
_EPSILON = 1e-5  # ONNX's default


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


_GRAPHS = {
    "perceptron": """
        perceptron (float[batch, 16] x) => (float[batch, 4] scores) {
            h = Gemm(x, w1, b1)
            r = Relu(h)
            scores = Gemm(r, w2, b2)
        }""",
    "convolution": """
        convolution (float[batch, 3, 8, 8] image) => (float[batch, 4] scores) {
            c = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
            n = BatchNormalization(c, scale, shift, mean, var)
            r = Relu(n)
            g = GlobalAveragePool(r)
            f = Flatten(g)
            scores = Gemm(f, w2, b2)
        }""",
    "tokens": """
        tokens (int64[batch, sequence] ids, int64[batch, sequence] mask) => (float[batch, 4] scores)
        <int64[1] last = {2}, int64[1] middle = {1}> {
            e = Gather(table, ids)
            m = Cast <to = 1> (mask)
            m1 = Unsqueeze(m, last)
            masked = Mul(e, m1)
            total = ReduceSum <keepdims = 0> (masked, middle)
            count = ReduceSum <keepdims = 0> (m1, middle)
            average = Div(total, count)
            scores = MatMul(average, w)
        }""",
}
"""The networks in the text form of ONNX; weights are named as in `weights`."""


def _graph(name: str, seed: int) -> onnx.ModelProto:
    from onnx import numpy_helper, parser

    proto = parser.parse_model('<ir_version: 8, opset_import: ["": 17]>' + _GRAPHS[name])
    for node in proto.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    proto.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in weights(name, seed).items())
    return proto


PERCEPTRON = Network(
    name="perceptron", inputs=partial(_normal, (16,), "x"), answer=_perceptron, graph=partial(_graph, "perceptron")
)
CONVOLUTION = Network(
    name="convolution",
    inputs=partial(_normal, (3, 8, 8), "image"),
    answer=_convolution,
    graph=partial(_graph, "convolution"),
)
TOKENS = Network(name="tokens", inputs=_token_inputs, answer=_tokens, graph=partial(_graph, "tokens"))
