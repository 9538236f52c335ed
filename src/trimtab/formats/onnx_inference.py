"""What is known of the values in an ONNX graph, and what comes out of one node: element types and shapes.

Most of it ONNX infers itself. Operators of onnxruntime's domain `com.microsoft` have no inference in ONNX; rules for
them, and standard operators that stand in for them, are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.formats import graph as graphs

if TYPE_CHECKING:
    import onnx

    from trimtab.core.protocols import Array

Shape = tuple[int | None, ...]
"""A dimension that is not known is None."""

MICROSOFT = "com.microsoft"
_STAND_IN_OPSET = 20


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


def domain_of(given: Any) -> str:
    """Return the domain of a node or an opset, "" for ONNX's own."""
    return "" if given.domain == "ai.onnx" else str(given.domain)


def declared(given: Any, sizes: Mapping[str, int]) -> Value:
    """Return the value that a type of ONNX declares; `sizes` are those of dimensions by name."""
    if not given.HasField("tensor_type"):
        return Value(other=given)
    kind = given.tensor_type
    return Value(kind.elem_type, tuple(_size(dim, sizes) for dim in kind.shape.dim) if kind.HasField("shape") else None)


def _size(dimension: Any, sizes: Mapping[str, int]) -> int | None:
    if dimension.HasField("dim_value"):
        return dimension.dim_value if dimension.dim_value >= 0 else None
    return sizes.get(dimension.dim_param)


def infer(visit: Visit, opset: int) -> tuple[Value, ...]:
    """Return what its inputs tell of the outputs of a node; there may be fewer values than outputs.

    Raises:
        AttributeError, IndexError, KeyError, TypeError, ValueError: The node is not as its operator says.
    """
    key = (domain_of(visit.node), visit.node.op_type)
    if key in _RULES:
        return _RULES[key](visit)
    if key in _STAND_INS:
        return _stand_in(visit)
    return _inferred(visit.node, visit.inputs, opset)


def _inferred(node: onnx.NodeProto, inputs: Sequence[Value], opset: int) -> tuple[Value, ...]:
    """Return what ONNX itself infers of the outputs of a node."""
    from onnx import checker, defs, helper, numpy_helper, shape_inference

    named = {name: value for name, value in zip(node.input, inputs, strict=True) if name}
    unknown = (Value(),) * len(node.output)
    if not all(value.elements or value.other is not None for value in named.values()):
        return unknown
    types = {
        name: helper.make_tensor_type_proto(value.elements, value.shape) if value.other is None else value.other
        for name, value in named.items()
    }
    data = {
        name: numpy_helper.from_array(np.ascontiguousarray(value.content), name)
        for name, value in named.items()
        if value.content is not None and value.content.dtype.kind in "iuf"
    }
    try:
        schema = defs.get_schema(node.op_type, opset, domain_of(node))
        found = shape_inference.infer_node_outputs(schema, node, types, data)
    except (defs.SchemaError, shape_inference.InferenceError, checker.ValidationError, KeyError, RuntimeError):
        return unknown
    return tuple(declared(found[name], {}) if name in found else Value() for name in node.output)


def _stand_in(visit: Visit) -> tuple[Value, ...]:
    """Infer an operator without inference through a standard one of the same shape, on floats."""
    import onnx

    like, picks, attributes = _STAND_INS[visit.node.domain, visit.node.op_type]
    if graphs.attribute(visit.node, "channels_last", 0):
        return ()
    count = len(visit.node.input)
    chosen = [i for i in (picks if picks is not None else range(2, count, 3)) if i < count]
    floats = [replace(visit.inputs[i], elements=onnx.TensorProto.FLOAT, content=None) for i in chosen]
    node = onnx.helper.make_node(like, [visit.node.input[i] for i in chosen], [visit.node.output[0]])
    node.attribute.extend(found for found in visit.node.attribute if found.name in attributes)
    (first,) = _inferred(node, floats, _STAND_IN_OPSET)
    return (replace(first, elements=visit.inputs[chosen[0]].elements),)


def _same(visit: Visit) -> tuple[Value, ...]:
    return (replace(visit.inputs[0], content=None),)


def _skip(visit: Visit) -> tuple[Value, ...]:
    same = replace(visit.inputs[0], content=None)
    return (same, Value(), Value(), same)


def _fused_matmul(visit: Visit) -> tuple[Value, ...]:
    import onnx

    if graphs.attribute(visit.node, "transBatchA", 0) or graphs.attribute(visit.node, "transBatchB", 0):
        return ()
    factors = [visit.inputs[0], visit.inputs[1]]
    for index, name in enumerate(("transA", "transB")):
        shape = factors[index].shape
        if shape is not None and graphs.attribute(visit.node, name, 0):
            factors[index] = replace(factors[index], shape=(*shape[:-2], *shape[:-3:-1]), content=None)
    return _inferred(onnx.helper.make_node("MatMul", ["a", "b"], ["y"]), factors, _STAND_IN_OPSET)


def _packed_matmul(visit: Visit) -> tuple[Value, ...]:
    a = visit.shape(0)
    shape = None if a is None else (*a[:-1], graphs.attribute(visit.node, "N"))
    return (Value(visit.inputs[0].elements, shape),)


def _attention(visit: Visit) -> tuple[Value, ...]:
    """Projection and attention in one: [batch, tokens, size of v]; the weight is [size of input, q + k + v]."""
    x, weight = visit.shape(0), visit.shape(1)
    if x is None or weight is None:
        return ()
    sizes = graphs.attribute(visit.node, "qkv_hidden_sizes")
    width = sizes[2] if sizes else (weight[1] // 3 if weight[1] is not None else None)
    return (Value(visit.inputs[0].elements, (*x[:2], width)),)


def _multi_head(visit: Visit) -> tuple[Value, ...]:
    """Attention on projected inputs: [batch, tokens, size of v], from packed, flat or split heads."""
    query, key, value = visit.shape(0), visit.shape(1), visit.shape(2)
    if query is None:
        return ()
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
        return ()
    last = (recurrence[0], x[1], recurrence[1])
    elements = visit.inputs[0].elements
    return (Value(elements, (x[0], *last)), Value(elements, last), Value(elements, last))


def _embedded(visit: Visit) -> tuple[Value, ...]:
    tokens, table = visit.shape(0), visit.shape(2)
    if tokens is None or table is None:
        return ()
    mask = Value(visit.inputs[0].elements, tokens[:1])
    return (Value(visit.inputs[2].elements, (*tokens, table[1])), mask)


def _quantized(visit: Visit) -> tuple[Value, ...]:
    zero = visit.inputs[2].elements if visit.has(2) else 2
    return (Value(zero or 2, visit.shape(0)),)


def _dequantized(visit: Visit) -> tuple[Value, ...]:
    return (Value(visit.inputs[1].elements, visit.shape(0)),)


_RULES: dict[tuple[str, str], Callable[[Visit], tuple[Value, ...]]] = {
    ("", "GroupNormalization"): _same,
    ("", "MeanVarianceNormalization"): _same,
    ("", "SimplifiedLayerNormalization"): _same,
    **{
        (MICROSOFT, name): _same
        for name in (
            "BiasAdd", "BiasGelu", "BiasSoftmax", "FastGelu", "Gelu", "GroupNorm", "QLinearLeakyRelu", "QLinearSigmoid",
            "QLinearSoftmax", "QuickGelu", "RotaryEmbedding", "SimplifiedLayerNormalization",
        )
    },
    **{(MICROSOFT, name): _skip for name in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")},
    (MICROSOFT, "SkipGroupNorm"): lambda visit: _same(visit) * 2,
    **{(MICROSOFT, name): _fused_matmul for name in ("FusedMatMul", "FusedMatMulActivation", "TransposeMatMul")},
    **{(MICROSOFT, name): _packed_matmul for name in ("MatMulNBits", "MatMulBnb4")},
    **{(MICROSOFT, name): _attention for name in ("Attention", "QAttention")},
    (MICROSOFT, "MultiHeadAttention"): _multi_head,
    (MICROSOFT, "GroupQueryAttention"): _grouped,
    (MICROSOFT, "DynamicQuantizeLSTM"): _quantized_lstm,
    (MICROSOFT, "EmbedLayerNormalization"): _embedded,
    (MICROSOFT, "QuantizeLinear"): _quantized,
    (MICROSOFT, "DequantizeLinear"): _dequantized,
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
