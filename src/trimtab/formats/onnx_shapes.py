"""Walks an ONNX graph in order and says of every node what goes in and out: shapes, and small constants.

Shapes come from ONNX's own inference, node by node, with the sizes of free dimensions filled in. Sizes that the graph
computes itself (Shape → Gather → Concat → Reshape) are followed by evaluating those small nodes. Operators of
onnxruntime's domain `com.microsoft` have no inference in ONNX; rules for them stand at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.formats import graph as graphs

if TYPE_CHECKING:
    import onnx

    from trimtab.core.protocols import Array

Shape = tuple[int | None, ...]
"""A dimension that is not known is None."""

MICROSOFT = "com.microsoft"
_LARGEST = 4096  # elements of a constant that is followed


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a value in the graph: element type (0 is unknown), shape (None is unknown), content if small."""

    elements: int = 0
    shape: Shape | None = None
    content: Array | None = field(default=None, compare=False)
    other: Any = field(default=None, compare=False)
    """The type of what is no tensor (a sequence, an optional)."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What can be seen from inside one graph: values by name, where each comes from, the tensors that are weights."""

    values: dict[str, Value] = field(default_factory=dict)
    producers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    weights: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def inner(self) -> Scope:
        """Return the scope of a subgraph: it sees everything outside."""
        return Scope(dict(self.values), dict(self.producers), dict(self.weights))


@dataclass(frozen=True, slots=True)
class Visit:
    """One node as it is reached, and the visits of its subgraphs.

    `times` is how often the subgraphs run, None when that is not known; of a branching node only one of them runs.
    """

    node: onnx.NodeProto
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    scope: Scope
    bodies: tuple[tuple[Visit, ...], ...] = ()
    times: int | None = 1

    def shape(self, index: int) -> Shape | None:
        """Return the shape of an input; None when it is absent or unknown."""
        return self.inputs[index].shape if index < len(self.inputs) else None

    def has(self, index: int) -> bool:
        """Say whether an optional input is given."""
        return index < len(self.node.input) and self.node.input[index] != ""


def walk(
    proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int | str]], folder: Path | None = None
) -> tuple[Visit, ...]:
    """Return the visits of a model's nodes in order, given the shapes of its inputs; names stand for unknown sizes."""
    import onnx.inliner

    light = graphs.outline(proto)
    if light.functions:
        light = onnx.inliner.inline_local_functions(light)
    scope = Scope()
    sizes: dict[str, int] = {}
    for given in light.graph.input:
        shape = shapes.get(given.name, ())
        dims = given.type.tensor_type.shape.dim
        sizes |= {dim.dim_param: size for dim, size in zip(dims, shape, strict=False) if isinstance(size, int)}
    for given in light.graph.input:
        scope.values[given.name] = _declared(given.type, sizes)
    for name, given_shape in shapes.items():
        if scope.values[name].shape is not None:
            known = tuple(size if isinstance(size, int) else None for size in given_shape)
            scope.values[name] = replace(scope.values[name], shape=known)
    opsets = {domain_of(opset): opset.version for opset in light.opset_import}
    walker = _Walker(opsets, folder, {weight.name: weight for weight in proto.graph.initializer}, sizes)
    return walker.graph(light.graph, scope)


def domain_of(given: Any) -> str:
    """Return the domain of a node or an opset, "" for ONNX's own."""
    return "" if given.domain == "ai.onnx" else str(given.domain)


def _declared(given: Any, sizes: Mapping[str, int]) -> Value:
    if given.HasField("tensor_type"):
        kind = given.tensor_type
        if not kind.HasField("shape"):
            return Value(kind.elem_type)
        return Value(kind.elem_type, tuple(_size(dim, sizes) for dim in kind.shape.dim))
    return Value(other=given)


def _size(dimension: Any, sizes: Mapping[str, int]) -> int | None:
    if dimension.HasField("dim_value"):
        return dimension.dim_value if dimension.dim_value >= 0 else None
    return sizes.get(dimension.dim_param)


class _Walker:
    def __init__(
        self,
        opsets: dict[str, int],
        folder: Path | None,
        originals: dict[str, onnx.TensorProto],
        sizes: dict[str, int],
    ) -> None:
        self.opsets = opsets
        self.folder = folder
        self.originals = originals
        self.sizes = sizes

    def graph(self, graph: onnx.GraphProto, scope: Scope) -> tuple[Visit, ...]:
        """Visit a graph; `scope` holds the values of its inputs and is filled with all others."""
        for tensor in graph.initializer:
            scope.weights[tensor.name] = self.originals.get(tensor.name, tensor)
            scope.values[tensor.name] = self._weight(tensor)
        for sparse in graph.sparse_initializer:
            scope.values[sparse.values.name] = Value(sparse.values.data_type, tuple(sparse.dims))
        declared = {info.name: _declared(info.type, self.sizes) for info in (*graph.value_info, *graph.output)}
        visits = []
        for node in graph.node:
            visit = self._visit(node, scope)
            for name, found in zip(node.output, visit.outputs, strict=True):
                if name:
                    unknown = found.shape is None and found.other is None
                    scope.values[name] = declared.get(name, found) if unknown else found
                    scope.producers[name] = node
            visits.append(replace(visit, outputs=tuple(scope.values.get(name, Value()) for name in node.output)))
        return tuple(visits)

    def _weight(self, tensor: onnx.TensorProto) -> Value:
        shape = tuple(tensor.dims)
        small = math.prod(shape) <= _LARGEST and tensor.data_type != tensor.STRING
        content = graphs.array(tensor, self.folder) if small else None
        return Value(tensor.data_type, shape, content)

    def _visit(self, node: onnx.NodeProto, scope: Scope) -> Visit:
        inputs = tuple(scope.values.get(name, Value()) if name else Value() for name in node.input)
        made = Visit(node, inputs, (Value(),) * len(node.output), scope)
        branches = not domain_of(node) and node.op_type in _CONTROL
        try:
            return _CONTROL[node.op_type](self, made) if branches else replace(made, outputs=self._infer(made))
        except MALFORMED:
            return replace(made, times=None if branches else 1)

    def _constant(self, node: onnx.NodeProto, scope: Scope) -> Value:
        import onnx

        given = node.attribute[0]
        if given.name == "value":
            scope.weights[node.output[0]] = given.t
            return self._weight(given.t)
        if given.name == "sparse_value":
            return Value(given.sparse_tensor.values.data_type, tuple(given.sparse_tensor.dims))
        value = onnx.helper.get_attribute_value(given)
        if given.name.startswith("value_string"):
            return Value(onnx.TensorProto.STRING, () if given.name == "value_string" else (len(value),))
        content = np.asarray(value, np.float32 if "float" in given.name else np.int64)
        return Value(onnx.helper.np_dtype_to_tensor_dtype(content.dtype), content.shape, content)

    def _infer(self, visit: Visit) -> tuple[Value, ...]:
        node = visit.node
        key = (domain_of(node), node.op_type)
        if key == ("", "Constant"):
            return (self._constant(node, visit.scope),)
        if key == ("", "Shape") and visit.inputs[0].shape is not None:
            return (_shape_of(node, visit.inputs[0].shape),)
        if key in _RULES:
            return _fit(_RULES[key](visit), len(node.output))
        if key in _STAND_INS:
            return self._stand_in(visit)
        outputs = self._standard(node, visit.inputs)
        return self._fold(visit, outputs) if node.op_type in _FOLDED and not key[0] else outputs

    def _standard(self, node: onnx.NodeProto, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        from onnx import checker, numpy_helper, shape_inference

        schema = _schema(node.op_type, domain_of(node), self.opsets.get(domain_of(node), 1))
        unknown = (Value(),) * len(node.output)
        named = {name: value for name, value in zip(node.input, inputs, strict=True) if name}
        if schema is None or not all(value.elements or value.other is not None for value in named.values()):
            return unknown
        types = {name: _type(value) for name, value in named.items()}
        data = {
            name: numpy_helper.from_array(np.ascontiguousarray(value.content), name)
            for name, value in named.items()
            if value.content is not None and value.content.dtype.kind in "iuf"
        }
        try:
            found = shape_inference.infer_node_outputs(schema, node, types, data)
        except (shape_inference.InferenceError, checker.ValidationError, KeyError, RuntimeError):
            return unknown
        return tuple(_declared(found[name], {}) if name in found else Value() for name in node.output)

    def _stand_in(self, visit: Visit) -> tuple[Value, ...]:
        """Infer an operator without inference through a standard one of the same shape, on floats."""
        import onnx

        like, picks, attributes = _STAND_INS[visit.node.domain, visit.node.op_type]
        if graphs.attribute(visit.node, "channels_last", 0):
            return visit.outputs
        count = len(visit.node.input)
        chosen = [i for i in (picks if picks is not None else range(2, count, 3)) if i < count]
        floats = tuple(replace(visit.inputs[i], elements=onnx.TensorProto.FLOAT, content=None) for i in chosen)
        names = [visit.node.input[i] for i in chosen]
        node = onnx.helper.make_node(like, names, [visit.node.output[0]])
        node.attribute.extend(found for found in visit.node.attribute if found.name in attributes)
        stand_in = _Walker({"": _STAND_IN_OPSET}, None, {}, {})
        (first,) = stand_in._standard(node, floats)
        data = visit.inputs[chosen[0]].elements if chosen else 0
        return (replace(first, elements=data), *(Value(),) * (len(visit.node.output) - 1))

    def _fold(self, visit: Visit, outputs: tuple[Value, ...]) -> tuple[Value, ...]:
        """Evaluate a small node whose inputs are all known."""
        from onnx.reference import ReferenceEvaluator

        given = {name: value.content for name, value in zip(visit.node.input, visit.inputs, strict=True) if name}
        if any(content is None for content in given.values()) or not all(_is_small(visit, value) for value in outputs):
            return outputs
        try:
            results = ReferenceEvaluator(visit.node, opsets=self.opsets or {"": 1}).run(None, given)
        except _EVALUATION_ERRORS:
            return outputs
        return tuple(
            replace(value, shape=np.shape(result), content=np.asarray(result)) if np.size(result) <= _LARGEST else value
            for value, result in zip(outputs, results, strict=True)
        )

    def branch(self, visit: Visit) -> Visit:
        """Visit both branches of an If, or the one that is taken when that is known."""
        chosen = visit.inputs[0].content
        named = {found.name: found.g for found in visit.node.attribute}
        if chosen is not None and chosen.size == 1:
            taken = [named["then_branch" if bool(chosen.reshape(())) else "else_branch"]]
        else:
            taken = [named["then_branch"], named["else_branch"]]
        results = []
        visits = []
        for body in taken:
            scope = visit.scope.inner()
            visits.append(self.graph(body, scope))
            results.append([replace(scope.values.get(out.name, Value()), content=None) for out in body.output])
        merged = [_merge(options) for options in zip(*results, strict=False)]
        return replace(visit, bodies=tuple(visits), outputs=_fit(merged, len(visit.node.output)))

    def loop(self, visit: Visit) -> Visit:
        """Visit the body of a Loop, run as often as its trip count says when its condition can't end it early."""
        import onnx

        body = graphs.attribute(visit.node, "body")
        limit = visit.inputs[0].content if visit.has(0) else None
        stays = not visit.has(1) or (visit.inputs[1].content is not None and bool(visit.inputs[1].content.all()))
        carried = [replace(value, content=None) for value in visit.inputs[2:]]
        true = Value(onnx.TensorProto.BOOL, (), np.asarray(True) if stays else None)
        inside, ends, scope = self._turn(body, visit.scope, [Value(onnx.TensorProto.INT64, ()), true], carried, 1)
        condition = scope.values.get(body.output[0].name, Value()).content
        steady = stays and condition is not None and bool(condition.all())
        times = int(limit.reshape(())) if steady and limit is not None else None
        stacked = [_stack(end, times, 0) for end in ends[len(carried) :]]
        outputs = _fit([*ends[: len(carried)], *stacked], len(visit.node.output))
        return replace(visit, bodies=(inside,), times=times, outputs=outputs)

    def scan(self, visit: Visit) -> Visit:
        """Visit the body of a Scan, run once per slice of its scanned inputs."""
        body = graphs.attribute(visit.node, "body")
        scanned = graphs.attribute(visit.node, "num_scan_inputs", 0)
        count = len(visit.inputs) - scanned
        if self.opsets.get("", 1) < 9:
            return replace(visit, times=None)
        axes = graphs.attribute(visit.node, "scan_input_axes") or [0] * scanned
        states = [replace(value, content=None) for value in visit.inputs[:count]]
        pairs = list(zip(visit.inputs[count:], axes, strict=False))
        lengths = [value.shape[axis] for value, axis in pairs if value.shape is not None]
        slices = [_slice(value, axis) for value, axis in pairs]
        inside, ends, _ = self._turn(body, visit.scope, [], states, 0, slices)
        times = next((length for length in lengths if length is not None), None)
        places = graphs.attribute(visit.node, "scan_output_axes") or [0] * (len(ends) - count)
        stacked = [_stack(end, times, axis) for end, axis in zip(ends[count:], places, strict=False)]
        return replace(
            visit, bodies=(inside,), times=times, outputs=_fit([*ends[:count], *stacked], len(visit.node.output))
        )

    def _turn(
        self, body: Any, outer: Scope, first: list[Value], carried: list[Value], skip: int, slices: Sequence[Value] = ()
    ) -> tuple[tuple[Visit, ...], list[Value], Scope]:
        """Visit a body once; sizes that change from turn to turn are visited again as unknown."""
        for _ in range(2):
            scope = outer.inner()
            given = [*first, *carried, *slices]
            scope.values.update({info.name: value for info, value in zip(body.input, given, strict=False)})
            visits = self.graph(body, scope)
            ends = [replace(scope.values.get(out.name, Value()), content=None) for out in body.output[skip:]]
            merged = [_merge(pair) for pair in zip(carried, ends, strict=False)]
            if merged == carried:
                break
            carried = merged
        return visits, [*carried, *ends[len(carried) :]], scope


_CONTROL: dict[str, Callable[[_Walker, Visit], Visit]] = {
    "If": _Walker.branch,
    "Loop": _Walker.loop,
    "Scan": _Walker.scan,
    "SequenceMap": lambda _, visit: replace(visit, times=None),
}

_FOLDED = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "CumSum", "Div", "Equal", "Expand", "Floor",
    "Gather", "GatherND", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod",
    "Mul", "Neg", "NonZero", "Not", "Or", "Pow", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum",
    "Reshape", "Round", "ScatterND", "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose",
    "Unsqueeze", "Where",
})  # fmt: skip
MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError)
"""What a node raises whose inputs or attributes are not as its operator says."""

_EVALUATION_ERRORS = (
    ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, RuntimeError, AssertionError,
    ImportError,
)  # fmt: skip
_STAND_IN_OPSET = 20


@cache
def _schema(operator: str, domain: str, version: int) -> Any:
    from onnx import defs

    try:
        return defs.get_schema(operator, version, domain)
    except defs.SchemaError:
        return None


def _type(value: Value) -> Any:
    import onnx

    if value.other is not None:
        return value.other
    return onnx.helper.make_tensor_type_proto(value.elements, value.shape)


def _shape_of(node: onnx.NodeProto, shape: Shape) -> Value:
    import onnx

    taken = shape[graphs.attribute(node, "start", 0) : graphs.attribute(node, "end", len(shape))]
    known = tuple(size for size in taken if size is not None)
    content = np.asarray(known, np.int64) if len(known) == len(taken) else None
    return Value(onnx.TensorProto.INT64, (len(taken),), content)


def _is_small(visit: Visit, output: Value) -> bool:
    """Say whether an output is known to be small; of small inputs only a few operators make large outputs."""
    if output.shape is None or None in output.shape:
        return visit.node.op_type not in ("ConstantOfShape", "Expand", "Range", "Tile")
    return math.prod(size or 0 for size in output.shape) <= _LARGEST


def _merge(options: Sequence[Value]) -> Value:
    first, *rest = options
    for other in rest:
        if first.shape is None or other.shape is None or len(first.shape) != len(other.shape):
            return Value(first.elements, other=first.other)
        shape = tuple(a if a == b else None for a, b in zip(first.shape, other.shape, strict=True))
        first = Value(first.elements, shape)
    return first


def _stack(value: Value, times: int | None, axis: int) -> Value:
    if value.shape is None:
        return value
    at = axis if axis >= 0 else len(value.shape) + 1 + axis
    return replace(value, shape=(*value.shape[:at], times, *value.shape[at:]))


def _slice(value: Value, axis: int) -> Value:
    if value.shape is None:
        return replace(value, content=None)
    at = axis % len(value.shape)
    return Value(value.elements, (*value.shape[:at], *value.shape[at + 1 :]))


def _fit(values: Sequence[Value], count: int) -> tuple[Value, ...]:
    return (*values[:count], *(Value(),) * (count - len(values)))


# --- operators whose shapes ONNX can't infer -------------------------------------------------------------------------


def _same(visit: Visit) -> tuple[Value, ...]:
    return (replace(visit.inputs[0], content=None),)


def _skip(visit: Visit) -> tuple[Value, ...]:
    same = replace(visit.inputs[0], content=None)
    return (same, Value(), Value(), same)


def _fused_matmul(visit: Visit) -> tuple[Value, ...]:
    a, b = (visit.shape(0), visit.shape(1))
    if a is None or b is None or len(a) < 2 or len(b) < 2 or graphs.attribute(visit.node, "transBatchA", 0):
        return (Value(),)
    rows = a[-1] if graphs.attribute(visit.node, "transA", 0) else a[-2]
    columns = b[-2] if graphs.attribute(visit.node, "transB", 0) else b[-1]
    batch = a[:-2] if len(a) >= len(b) else b[:-2]
    return (Value(visit.inputs[0].elements, (*batch, rows, columns)),)


def _packed_matmul(visit: Visit) -> tuple[Value, ...]:
    a = visit.shape(0)
    shape = None if a is None else (*a[:-1], graphs.attribute(visit.node, "N"))
    return (Value(visit.inputs[0].elements, shape),)


def _attention(visit: Visit) -> tuple[Value, ...]:
    """Projection and attention in one: [batch, tokens, size of v]; the weight is [size of input, q + k + v]."""
    x, weight = visit.shape(0), visit.shape(1)
    if x is None or weight is None:
        return (Value(),)
    sizes = graphs.attribute(visit.node, "qkv_hidden_sizes")
    width = sizes[2] if sizes else (weight[1] // 3 if weight[1] is not None else None)
    return (Value(visit.inputs[0].elements, (*x[:2], width)),)


def _multi_head(visit: Visit) -> tuple[Value, ...]:
    """Attention on projected inputs: [batch, tokens, size of v], from packed, flat or split heads."""
    query, key, value = visit.shape(0), visit.shape(1), visit.shape(2)
    if query is None:
        return (Value(),)
    heads = graphs.attribute(visit.node, "num_heads", 1)
    if len(query) == 5:
        width = None if query[4] is None else query[4] * heads
    elif value is None:
        width = key[4] * heads if key is not None and len(key) == 5 and key[4] is not None else query[2]
    elif len(value) == 4:
        width = None if value[3] is None else value[3] * heads
    else:
        width = value[2]
    return (Value(visit.inputs[0].elements, (*query[:2], width)),)


def _grouped(visit: Visit) -> tuple[Value, ...]:
    query = visit.shape(0)
    if query is None or visit.has(1):
        return (Value(visit.inputs[0].elements, query),)
    heads, shared = (graphs.attribute(visit.node, name, 1) for name in ("num_heads", "kv_num_heads"))
    width = None if query[2] is None else query[2] * heads // (heads + 2 * shared)
    return (Value(visit.inputs[0].elements, (*query[:2], width)),)


def _quantized_lstm(visit: Visit) -> tuple[Value, ...]:
    """LSTM with weights [directions, input, gates]: Y, Y_h, Y_c."""
    x, recurrence = visit.shape(0), visit.shape(2)
    if x is None or recurrence is None:
        return (Value(),)
    last = (recurrence[0], x[1], recurrence[1])
    elements = visit.inputs[0].elements
    return (Value(elements, (x[0], *last)), Value(elements, last), Value(elements, last))


def _embedded(visit: Visit) -> tuple[Value, ...]:
    tokens, table = visit.shape(0), visit.shape(2)
    if tokens is None or table is None:
        return (Value(),)
    return (Value(visit.inputs[2].elements, (*tokens, table[1])),)


def _quantized(visit: Visit) -> tuple[Value, ...]:
    zero = visit.inputs[2].elements if visit.has(2) else 2
    return (Value(zero or 2, visit.shape(0)),)


def _dequantized(visit: Visit) -> tuple[Value, ...]:
    return (Value(visit.inputs[1].elements, visit.shape(0)),)


_RULES: dict[tuple[str, str], Callable[[Visit], tuple[Value, ...]]] = {
    ("", "GroupNormalization"): _same,
    ("", "MeanVarianceNormalization"): _same,
    ("", "SimplifiedLayerNormalization"): _same,
    (MICROSOFT, "SkipLayerNormalization"): _skip,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _skip,
    (MICROSOFT, "SkipGroupNorm"): _skip,
    (MICROSOFT, "FusedMatMul"): _fused_matmul,
    (MICROSOFT, "FusedMatMulActivation"): _fused_matmul,
    (MICROSOFT, "TransposeMatMul"): _fused_matmul,
    (MICROSOFT, "DynamicQuantizeLSTM"): _quantized_lstm,
    (MICROSOFT, "MatMulNBits"): _packed_matmul,
    (MICROSOFT, "MatMulBnb4"): _packed_matmul,
    (MICROSOFT, "Attention"): _attention,
    (MICROSOFT, "QAttention"): _attention,
    (MICROSOFT, "MultiHeadAttention"): _multi_head,
    (MICROSOFT, "GroupQueryAttention"): _grouped,
    (MICROSOFT, "EmbedLayerNormalization"): _embedded,
    (MICROSOFT, "QuantizeLinear"): _quantized,
    (MICROSOFT, "DequantizeLinear"): _dequantized,
    **{
        (MICROSOFT, name): _same
        for name in (
            "BiasAdd", "BiasGelu", "BiasSoftmax", "FastGelu", "Gelu", "GroupNorm", "QLinearLeakyRelu", "QLinearSigmoid",
            "QLinearSoftmax", "QuickGelu", "RotaryEmbedding", "SimplifiedLayerNormalization",
        )
    },
}  # fmt: skip

_WINDOW = ("kernel_shape", "strides", "pads", "dilations", "auto_pad", "group", "output_padding", "output_shape")
_STAND_INS: dict[tuple[str, str], tuple[str, tuple[int, ...] | None, tuple[str, ...]]] = {
    (MICROSOFT, "QLinearConv"): ("Conv", (0, 3), _WINDOW),
    (MICROSOFT, "FusedConv"): ("Conv", (0, 1), _WINDOW),
    (MICROSOFT, "FusedGemm"): ("Gemm", (0, 1), ("transA", "transB")),
    (MICROSOFT, "GemmFastGelu"): ("MatMul", (0, 1), ()),
    (MICROSOFT, "QGemm"): ("Gemm", (0, 3), ("transA", "transB")),
    (MICROSOFT, "DynamicQuantizeMatMul"): ("MatMul", (0, 1), ()),
    (MICROSOFT, "MatMulIntegerToFloat"): ("MatMul", (0, 1), ()),
    (MICROSOFT, "MatMulInteger16"): ("MatMul", (0, 1), ()),
    (MICROSOFT, "QLinearAdd"): ("Add", (0, 3), ()),
    (MICROSOFT, "QLinearMul"): ("Add", (0, 3), ()),
    (MICROSOFT, "QLinearAveragePool"): ("AveragePool", (0,), (*_WINDOW[:5], "ceil_mode", "count_include_pad")),
    (MICROSOFT, "QLinearGlobalAveragePool"): ("GlobalAveragePool", (0,), ()),
    (MICROSOFT, "QLinearConcat"): ("Concat", None, ("axis",)),
}
