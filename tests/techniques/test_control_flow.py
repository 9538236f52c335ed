"""Control flow in ONNX models: each way through an If, Loop or Scan answers right, in every engine and technique."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core import plugins
from trimtab.core.errors import NothingToGain
from trimtab.core.protocols import Array
from trimtab.core.values import Settings, Task, Variant
from trimtab.formats.onnx import OnnxFormat, save

WIDTH, CLASSES = 16, 4
node = helper.make_node
Reference = Callable[[Array], Array]


def random(seed: int, *shape: int) -> Array:
    return (np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)


WEIGHTS = {"wide": random(0, WIDTH, WIDTH) + 0.1, "high": random(1, WIDTH, CLASSES), "low": random(2, WIDTH, CLASSES)}


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes: list[onnx.NodeProto], shape: tuple[int | str, ...], **weights: Array) -> onnx.ModelProto:
    """A model of x and y whose first layer is wide, and whose last node does nothing that could not be left out."""
    given, made = [value("x", *shape)], [value("y", shape[0], CLASSES)]
    kept = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph([*nodes, node("Identity", ["answer"], ["y"])], "net", given, made, kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def branches() -> onnx.ModelProto:
    """With h = x·wide, y = relu(h·high) if the sum of h is above zero, else −h·low; `low` is kept in its branch."""
    then = helper.make_graph(
        [node("MatMul", ["h", "high"], ["t"]), node("Relu", ["t"], ["then_y"])],
        "then",
        [],
        [value("then_y", "n", CLASSES)],
    )
    other = helper.make_graph(
        [node("MatMul", ["h", "low"], ["e"]), node("Neg", ["e"], ["else_y"])],
        "else", [], [value("else_y", "n", CLASSES)], [numpy_helper.from_array(WEIGHTS["low"], "low")],
    )  # fmt: skip
    nodes = [
        node("MatMul", ["x", "wide"], ["h"], name="wide_product"),
        node("ReduceSum", ["h"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["above"]),
        node("If", ["above"], ["answer"], then_branch=then, else_branch=other),
    ]
    weights = {"wide": WEIGHTS["wide"], "high": WEIGHTS["high"], "zero": np.array(0, np.float32)}
    return model(nodes, ("n", WIDTH), **weights)


def branches_by_hand(x: Array) -> Array:
    h = x @ WEIGHTS["wide"]
    return np.maximum(h @ WEIGHTS["high"], 0) if h.sum() > 0 else -(h @ WEIGHTS["low"])


def loop() -> onnx.ModelProto:
    """Add |x·wide| to h = x·wide until its sum is at least 300 or 8 turns are over; y = h·high."""
    body = helper.make_graph(
        [
            node("Add", ["before", "step"], ["after"]),
            node("ReduceSum", ["after"], ["sum"], keepdims=0),
            node("Less", ["sum", "enough"], ["again"]),
        ],
        "body",
        [value("turn", kind=TensorProto.INT64), value("going", kind=TensorProto.BOOL), value("before", "n", WIDTH)],
        [value("again", kind=TensorProto.BOOL), value("after", "n", WIDTH)],
    )
    nodes = [
        node("MatMul", ["x", "wide"], ["h"], name="wide_product"),
        node("Abs", ["h"], ["step"]),
        node("Loop", ["turns", "yes", "h"], ["last"], body=body),
        node("MatMul", ["last", "high"], ["answer"], name="head"),
    ]
    weights = {"wide": WEIGHTS["wide"], "high": WEIGHTS["high"], "enough": np.array(300, np.float32)}
    return model(nodes, ("n", WIDTH), **weights, turns=np.array(8, np.int64), yes=np.array(True))


def loop_by_hand(x: Array) -> Array:
    return _looped(x)[0] @ WEIGHTS["high"]


def _looped(x: Array) -> tuple[Array, int]:
    h = x @ WEIGHTS["wide"]
    step, turns = np.abs(h), 0
    for _ in range(8):
        h, turns = h + step, turns + 1
        if h.sum() >= 300:
            break
    return h, turns


def scan() -> onnx.ModelProto:
    """h = h / 2 + x·wide, step by step along the second axis; y = the last h·high."""
    body = helper.make_graph(
        [node("Mul", ["before", "half"], ["less"]), node("Add", ["less", "now"], ["after"])],
        "body",
        [value("before", "n", WIDTH), value("now", "n", WIDTH)],
        [value("after", "n", WIDTH)],
        [numpy_helper.from_array(np.array(0.5, np.float32), "half")],
    )
    nodes = [
        node("MatMul", ["x", "wide"], ["h"], name="wide_product"),
        node("ReduceSum", ["h", "second"], ["sum"], keepdims=0),
        node("Mul", ["sum", "zero"], ["nothing"]),
        node("Scan", ["nothing", "h"], ["last"], body=body, num_scan_inputs=1, scan_input_axes=[1]),
        node("MatMul", ["last", "high"], ["answer"], name="head"),
    ]
    weights = {"wide": WEIGHTS["wide"], "high": WEIGHTS["high"], "zero": np.array(0, np.float32)}
    return model(nodes, ("n", "time", WIDTH), **weights, second=np.array([1], np.int64))


def scan_by_hand(x: Array) -> Array:
    h = np.zeros((len(x), WIDTH))
    for now in (x @ WEIGHTS["wide"]).swapaxes(0, 1):
        h = h / 2 + now
    return h @ WEIGHTS["high"]


def inputs(items: int, *more: int, sign: float = 1.0) -> Array:
    return (sign * np.random.default_rng(items).uniform(0.5, 1.5, (items, *more, WIDTH))).astype(np.float32)


NETS: dict[str, tuple[Callable[[], onnx.ModelProto], Reference, tuple[Array, ...]]] = {
    "If": (branches, branches_by_hand, (inputs(3), inputs(3, sign=-1.0))),
    "Loop": (loop, loop_by_hand, (inputs(2), inputs(7), inputs(40), inputs(2, sign=-1.0))),
    "Scan": (scan, scan_by_hand, (inputs(3, 5), inputs(3, 1), inputs(2, 9, sign=-1.0))),
}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Variant, Reference, tuple[Array, ...]]:
    """A model with control flow, what it computes, and inputs that take different ways through it."""
    make, reference, given = NETS[request.param]
    held = save(make(), tmp_path / "given" / "net.onnx")
    return request.param, Variant(model=held, settings=Settings(runtime="onnxruntime", threads=1)), reference, given


def answers(variant: Variant, given: tuple[Array, ...]) -> list[Array]:
    engine = plugins.make("runtimes", variant.settings.runtime).load(variant)
    return [np.asarray(engine({"x": each})["y"]).copy() for each in given]


def distance(found: list[Array], expected: list[Array]) -> float:
    """Return the largest difference, as a share of what the answers are like."""
    pairs = zip(found, expected, strict=True)
    return float(max(np.abs(one - other).max() / np.abs(other).max() for one, other in pairs))


def test_the_ways_through_the_models_differ() -> None:
    one, other = NETS["If"][2]
    assert distance([-branches_by_hand(-one)], [branches_by_hand(one)]) > 0.5, "the branches compute the same"
    assert ((one @ WEIGHTS["wide"]).sum() > 20, (other @ WEIGHTS["wide"]).sum() < -20) == (True, True)
    assert len({_looped(given)[1] for given in NETS["Loop"][2]}) >= 3, "every input takes as many turns"


@pytest.mark.parametrize(
    "settings",
    [
        Settings(runtime="onnxruntime", threads=1),
        Settings(runtime="onnxruntime", threads=1, fusion=False),
        Settings(runtime="openvino", precision="fp32", threads=1),
    ],
    ids=Settings.label,
)
def test_every_engine_goes_the_right_way(net: Any, settings: Settings) -> None:
    name, variant, reference, given = net
    assert OnnxFormat().contents(variant.model).control_flow == (name,)
    assert distance(answers(variant.on(settings), given), [reference(each) for each in given]) < 1e-4


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_simplifying_keeps_every_way(net: Any, context: Any, engine: str) -> None:
    name, variant, reference, given = net
    made = plugins.make("techniques", "simplify").apply(variant, context(variant, Task()))
    assert "Identity" not in {each.op_type for each in onnx.load(made.model.path).graph.node}
    assert OnnxFormat().contents(made.model).control_flow == (name,)
    found = answers(made.on(Settings(runtime=engine)), given)
    assert distance(found, [reference(each) for each in given]) < (1e-4 if engine == "onnxruntime" else 0.03)


def test_dynamic_int8_goes_every_way_and_is_almost_as_exact(net: Any, context: Any) -> None:
    name, variant, reference, given = net
    made = plugins.make("techniques", "dynamic-int8").apply(variant, context(variant, Task()))
    contents = OnnxFormat().contents(made.model)
    assert contents.control_flow == (name,)
    assert contents.quantization is not None
    found = distance(answers(made, given), [reference(each) for each in given])
    assert 1e-5 < found < 0.1


def test_weights_that_lie_only_in_branches_are_nothing_to_quantize(tmp_path: Path, context: Any) -> None:
    proto = branches()
    product = next(each for each in proto.graph.node if each.name == "wide_product")
    product.CopyFrom(node("Mul", ["x", "two"], ["h"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(2, np.float32), "two"))
    held = save(proto, tmp_path / "inside.onnx")
    variant = Variant(model=held, settings=Settings(runtime="onnxruntime", threads=1))
    with pytest.raises(NothingToGain, match="inside If"):
        plugins.make("techniques", "dynamic-int8").apply(variant, context(variant, Task()))
