"""Reads an OpenVINO graph (IR) as XML: its operators, parameters and multiply-accumulates. No framework is needed.

`formats/macs.py` says what counts. Sizes are those written at the ports of a layer, or, for a graph with
free dimensions, those that `sizes` gives by the layer's name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

import numpy as np

from trimtab.core.values import Contents, Layer, Work, options
from trimtab.formats.macs import Part, Share, counted, einsum_macs, share_kept, uncounted, within

if TYPE_CHECKING:
    from trimtab.core.protocols import Array

Shape = tuple[int, ...]
"""A free dimension is -1."""

Sizes = Mapping[str, tuple[tuple[Shape, ...], tuple[Shape, ...]]]
"""Shapes of the inputs and of the outputs of layers, by name."""

_STORED = {
    "f64": "float64", "f32": "float32", "f16": "float16", "i8": "int8", "u8": "uint8", "i16": "int16", "u16": "uint16",
    "i32": "int32", "i64": "int64", "bf16": "uint16",
}  # fmt: skip
_WEIGHTS = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i8": "int8", "u8": "uint8",
            "i4": "int4", "u4": "uint4", "nf4": "nf4", "f8e4m3": "float8_e4m3", "f8e5m2": "float8_e5m2"}  # fmt: skip
_LOW = ("i8", "u8", "i4", "u4", "nf4", "f8e4m3", "f8e5m2")
_TRANSPARENT = ("Convert", "FakeQuantize", "Multiply", "Reshape", "Squeeze", "Subtract", "Transpose", "Unsqueeze")
_CONTROL_FLOW = ("If", "Loop", "TensorIterator")
_BODIES = ("body", "then_body", "else_body")
_WITHOUT_RULE = ("DFT", "IDFT", "RDFT", "IRDFT", "STFT", "Inverse", "PagedAttentionExtension")
_NO_OPERATORS = ("Const", "Parameter", "Result")


class Graph:
    """The layers of a graph by id, and what feeds each of their inputs."""

    def __init__(self, root: Element, weights: Path, sizes: Sizes | None = None) -> None:
        self.layers = {layer.get("id", ""): layer for layer in root.findall("./layers/layer")}
        self.weights = weights
        self.sizes = sizes or {}
        self.sources: dict[tuple[str, int], str] = {}
        for edge in root.findall("./edges/edge"):
            end = self.layers[edge.attrib["to-layer"]]
            ports = [port.get("id") for port in end.findall("./input/port")]
            self.sources[edge.attrib["to-layer"], ports.index(edge.attrib["to-port"])] = edge.attrib["from-layer"]

    def source(self, layer: Element, index: int) -> Element | None:
        """Return the layer that feeds an input."""
        return self.layers.get(self.sources.get((layer.get("id", ""), index), ""))

    def inputs(self, layer: Element) -> list[Shape]:
        """Return the shapes of a layer's inputs."""
        known = self.sizes.get(layer.get("name", ""))
        return list(known[0]) if known else [_dims(port) for port in layer.findall("./input/port")]

    def output(self, layer: Element) -> Shape:
        """Return the shape of a layer's first output."""
        known = self.sizes.get(layer.get("name", ""))
        if known:
            return known[1][0]
        port = layer.find("./output/port")
        return _dims(port) if port is not None else ()

    def content(self, layer: Element | None) -> Array | None:
        """Return the content of a constant, memory-mapped; None for what is none or is packed below a byte."""
        if layer is None or layer.get("type") != "Const":
            return None
        dtype, shape = _STORED.get(_attribute(layer, "element_type")), _numbers(_attribute(layer, "shape"))
        if dtype is None or not math.prod(shape):
            return None
        found: Array = np.memmap(self.weights, dtype, "r", int(_attribute(layer, "offset", "0")), shape or (1,))
        return found


def contents(root: Element, files: tuple[Path, ...]) -> Contents:
    """Return what an OpenVINO model holds; `files` are the XML and its weights."""
    operators = Counter(str(layer.get("type")) for layer in root.iter("layer"))
    for name in _NO_OPERATORS:
        del operators[name]
    runtime = root.find("./rt_info/Runtime_version")
    return Contents(
        files=files,
        operators=tuple(operators.most_common()),
        parameters=count_parameters(root, files[-1]),
        control_flow=tuple(name for name in _CONTROL_FLOW if operators[name]),
        quantization=is_quantized(root),
        facts=options(ir_version=root.get("version"), producer=runtime.get("value") if runtime is not None else None),
    )


def is_quantized(root: Element) -> str | None:
    """Say in words how a model is quantized already; None when it isn't."""
    if any(layer.get("type") == "FakeQuantize" for layer in root.iter("layer")):
        return "static, FakeQuantize"
    constants = (layer for layer in root.iter("layer") if layer.get("type") == "Const")
    low = {_attribute(layer, "element_type") for layer in constants} & set(_LOW)
    return f"weights only ({', '.join(sorted(_WEIGHTS[kind] for kind in low))})" if low else None


def count_parameters(root: Element, weights: Path) -> tuple[tuple[str, int], ...]:
    """Return the elements of all weights by dtype, most first.

    Weights are constants of floats or few-bit integers; scalars, scales and zero points of quantization, and the
    bounds of FakeQuantize are none.
    """
    total: Counter[str] = Counter()
    for body in (root, *(body for tag in _BODIES for body in root.iter(tag))):
        graph = Graph(body, weights)
        constants = _constants(graph)
        for number, layer in graph.layers.items():
            if layer.get("type") != "Const" or number in constants:
                continue
            size = math.prod(_numbers(_attribute(layer, "shape")))
            dtype = _WEIGHTS.get(_attribute(layer, "element_type"))
            if dtype is not None and size > 1:
                total[dtype] += size
    return tuple(total.most_common())


def _constants(graph: Graph) -> set[str]:
    """Return the ids of constants that say how others are quantized."""
    found: set[str] = set()
    for (number, index), source in graph.sources.items():
        layer = graph.layers[number]
        kind = layer.get("type")
        scales = kind in ("Multiply", "Subtract") and index == 1 and _is_low(graph, graph.source(layer, 0))
        if (kind == "FakeQuantize" and index > 0) or scales:
            found.add(_behind_convert(graph, source))
    return found


def _behind_convert(graph: Graph, number: str) -> str:
    layer = graph.layers[number]
    origin = graph.source(layer, 0) if layer.get("type") == "Convert" else layer
    return origin.get("id", "") if origin is not None else number


def _is_low(graph: Graph, layer: Element | None) -> bool:
    """Say whether a value comes from integers of few bits."""
    for _ in graph.layers:  # no more often: a broken graph may turn in a circle
        if layer is None or layer.get("type") not in ("Convert", "Subtract"):
            break
        layer = graph.source(layer, 0)
    return layer is not None and layer.get("type") == "Const" and _attribute(layer, "element_type") in _LOW


def count_macs(root: Element, weights: Path, sizes: Sizes | None = None) -> Work:
    """Return the multiply-accumulates of one call, layer by layer.

    Args:
        root: The root of the XML, or a body in it.
        weights: The `.bin` file.
        sizes: Shapes of the layers, where those in the XML have free dimensions.
    """
    graph = Graph(root, weights, sizes)
    layers: list[Layer] = []
    excluded: Counter[str] = Counter()
    for layer in graph.layers.values():
        name, kind = str(layer.get("name")), str(layer.get("type"))
        bodies = [count_macs(body, weights) for tag in _BODIES for body in layer.findall(tag)]
        if bodies:
            inner = within(name, bodies, 1 if kind == "If" else _turns(graph, layer))
            layers.extend(inner.layers)
            excluded.update(dict(inner.excluded))
            excluded[kind] += 1
        elif kind in _RULES:
            layers.append(_layer(graph, layer))
        elif kind in (*_CONTROL_FLOW, *_WITHOUT_RULE) or not str(layer.get("version")).startswith("opset"):
            layers.append(uncounted(name, kind))
        elif kind not in _NO_OPERATORS:
            excluded[kind] += 1
    return Work(layers=tuple(layers), excluded=tuple(excluded.most_common()))


def _layer(graph: Graph, layer: Element) -> Layer:
    name, operator = str(layer.get("name")), str(layer.get("type"))
    shapes, output = graph.inputs(layer), graph.output(layer)
    if any(size < 0 for shape in (*shapes, output) for size in shape):
        return uncounted(name, operator, "its shape has a free dimension; name its length in the workload")
    return counted(name, operator, partial(_RULES[operator], layer, shapes, output), partial(_share, graph, layer))


def _share(graph: Graph, layer: Element, part: Part, index: int) -> Share:
    """Follow an input back to a constant, through what does not change which of its elements are zero."""
    origin, zero = graph.source(layer, index), None
    for _ in graph.layers:  # no more often: a broken graph may turn in a circle
        if origin is None or origin.get("type") not in _TRANSPARENT:
            break
        if origin.get("type") == "Subtract":
            zero = graph.source(origin, 1)
            zero = graph.source(zero, 0) if zero is not None and zero.get("type") == "Convert" else zero
        origin = graph.source(origin, 0)
    content = graph.content(origin)
    return (1, 1) if content is None else share_kept(content, graph.content(zero))


def _turns(graph: Graph, layer: Element) -> int | None:
    """Return how often a loop runs, from the input that it cuts into slices; None when that isn't said."""
    shapes = graph.inputs(layer)
    ports = [port.get("id") for port in layer.findall("./input/port")]
    for entry in layer.findall("./port_map/input"):
        if entry.get("axis") is not None and entry.get("external_port_id") in ports:
            size = shapes[ports.index(entry.get("external_port_id"))][int(entry.get("axis", 0))]
            step = abs(int(entry.get("stride", 1))) * max(1, int(entry.get("part_size", 1)))
            return size // step if size >= 0 else None
    return None


def _dims(port: Element) -> Shape:
    return tuple(int(dim.text or -1) for dim in port.findall("dim"))


def _numbers(text: str) -> Shape:
    return tuple(int(part) for part in text.split(",") if part.strip())


Rule = Callable[[Element, list[Shape], Shape], list[Part]]


def _attribute(layer: Element, name: str, default: str = "") -> str:
    data = layer.find("data")
    return data.get(name, default) if data is not None else default


def _conv(_: Element, shapes: list[Shape], output: Shape, weight: int, skipped: int) -> list[Part]:
    """Output elements × elements of one filter; `skipped` axes of the weight number the filters."""
    return [Part(math.prod(output) * math.prod(shapes[weight][skipped:]), (weight,))]


def _backprop(_: Element, shapes: list[Shape], output: Shape, skipped: int) -> list[Part]:
    """Input elements × elements that each of them is spread to."""
    return [Part(math.prod(shapes[0]) * math.prod(shapes[1][skipped:]), (1,))]


def _matmul(layer: Element, shapes: list[Shape], output: Shape) -> list[Part]:
    a = shapes[0]
    transposed = _attribute(layer, "transpose_a") == "true" and len(a) > 1
    return [Part(math.prod(output) * (a[-2] if transposed else a[-1]), (0, 1))]


def _einsum(layer: Element, shapes: list[Shape], output: Shape) -> list[Part]:
    return [Part(einsum_macs(_attribute(layer, "equation"), shapes), (0, 1))]


def _recurrent(_: Element, shapes: list[Shape], output: Shape, weight: int, axes: int) -> list[Part]:
    """Batch × steps × elements of both weights; the first `axes` axes of the input are the calls."""
    calls = math.prod(shapes[0][:axes])
    return [Part(calls * math.prod(shapes[index]), (index,)) for index in (weight, weight + 1)]


def _attention(_: Element, shapes: list[Shape], output: Shape) -> list[Part]:
    q, k, v = shapes[:3]
    return [Part(math.prod(q[:-1]) * k[-2] * (k[-1] + v[-1]))]


_RULES: dict[str, Rule] = {
    "Convolution": partial(_conv, weight=1, skipped=1),
    "BinaryConvolution": partial(_conv, weight=1, skipped=1),
    "GroupConvolution": partial(_conv, weight=1, skipped=2),
    "DeformableConvolution": partial(_conv, weight=2, skipped=1),
    "ConvolutionBackpropData": partial(_backprop, skipped=1),
    "GroupConvolutionBackpropData": partial(_backprop, skipped=2),
    "MatMul": _matmul,
    "Einsum": _einsum,
    "LSTMSequence": partial(_recurrent, weight=4, axes=2),
    "GRUSequence": partial(_recurrent, weight=3, axes=2),
    "RNNSequence": partial(_recurrent, weight=3, axes=2),
    "LSTMCell": partial(_recurrent, weight=3, axes=1),
    "GRUCell": partial(_recurrent, weight=2, axes=1),
    "RNNCell": partial(_recurrent, weight=2, axes=1),
    "ScaledDotProductAttention": _attention,
}
