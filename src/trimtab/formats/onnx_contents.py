"""Says what an ONNX file holds: operators, parameters by dtype, how it is quantized, who made it."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.core.values import Contents, options
from trimtab.formats import graph as graphs

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
_INTEGER_KERNELS = frozenset({"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul",
                              "DynamicQuantizeLSTM", "MatMulIntegerToFloat", "QAttention"})  # fmt: skip
_PACKED = frozenset({"MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "GatherBlockQuantized", "QMoE"})


def contents(proto: onnx.ModelProto, files: tuple[Path, ...]) -> Contents:
    """Return what a model holds; `files` are those it was read from."""
    operators = Counter(node.op_type for node in graphs.nodes(proto))
    opsets = {f"opset {opset.domain or 'ai.onnx'}": opset.version for opset in proto.opset_import}
    producer = " ".join(part for part in (proto.producer_name, proto.producer_version) if part)
    return Contents(
        files=files,
        operators=tuple(operators.most_common()),
        parameters=count_parameters(proto),
        control_flow=tuple(name for name in _CONTROL_FLOW if operators[name]),
        quantization=is_quantized(proto),
        facts=options(opsets, producer=producer or None, ir_version=proto.ir_version),
    )


def is_quantized(proto: onnx.ModelProto) -> str | None:
    """Say in words how a model is quantized already; None when it isn't."""
    found = {node.op_type for node in graphs.nodes(proto)}
    packed = found & _PACKED
    if packed:
        return f"weights packed to few bits ({', '.join(sorted(packed))})"
    operators = {name for name in found if name.startswith("QLinear") or name == "QGemm"}
    if operators:
        return f"static, integer operators ({', '.join(sorted(operators))})"
    if found & _INTEGER_KERNELS:
        return f"dynamic, integer operators ({', '.join(sorted(found & _INTEGER_KERNELS))})"
    if "QuantizeLinear" in found:
        return "static, QuantizeLinear/DequantizeLinear pairs"
    if "DequantizeLinear" in found:
        return "weights only, DequantizeLinear"
    return None


def count_parameters(proto: onnx.ModelProto) -> tuple[tuple[str, int], ...]:
    """Return the elements of all weights by dtype, most first.

    Weights are initializers and constants of floats and of quantized integers with at least one axis. Not counted:
    scales and zero points of quantization, scalars, and integers that are indices or shapes (int64, and int32 but
    for the biases of quantized layers).
    """
    import onnx

    uses = _uses(proto)
    total: Counter[str] = Counter()
    for name, tensor in _named(proto):
        kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        roles = uses.get(name, set())
        if not tensor.dims or kind in _NO_WEIGHTS or (roles and roles <= {"constant"}):
            continue
        if kind == "int32" and "bias" not in roles:
            continue
        packed = next((role for role in roles if isinstance(role, tuple)), None)
        if packed is not None:
            total[packed[0]] += packed[1]
        else:
            total[_NUMPY_NAMES.get(kind, kind)] += math.prod(tensor.dims)
    return tuple(total.most_common())


_NO_WEIGHTS = frozenset({"int64", "uint64", "uint32", "bool", "string", "undefined"})
_NUMPY_NAMES = {"float": "float32", "double": "float64"}

_CONSTANTS: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2), "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7), "QLinearAdd": (1, 2, 4, 5, 6, 7), "QLinearMul": (1, 2, 4, 5, 6, 7),
    "QGemm": (1, 2, 4, 5, 7, 8), "MatMulInteger": (2, 3), "ConvInteger": (2, 3), "MatMulNBits": (2, 3, 4),
    "MatMulBnb4": (2,), "DynamicQuantizeMatMul": (2, 3), "MatMulIntegerToFloat": (2, 3, 4, 5),
    "DynamicQuantizeLSTM": (8, 9, 10, 11), "QAttention": (3, 4, 6, 7), "QLinearSigmoid": (1, 2, 3, 4),
    "QLinearLeakyRelu": (1, 2, 3, 4), "QLinearSoftmax": (1, 2, 3, 4), "QLinearAveragePool": (1, 2, 3, 4),
    "QLinearGlobalAveragePool": (1, 2, 3, 4), "QLinearReduceMean": (1, 2, 3, 4), "GatherBlockQuantized": (2, 3),
    "Resize": (1, 2, 3), "Upsample": (1,), "Clip": (1, 2), "Pad": (1, 2), "Range": (0, 1, 2), "OneHot": (1, 2),
}  # fmt: skip
_BIASES = {"DequantizeLinear": 0, "QLinearConv": 8, "QGemm": 6}

Role = str | tuple[str, int]


def _named(proto: onnx.ModelProto) -> Iterable[tuple[str, onnx.TensorProto]]:
    for graph in graphs.graphs(proto):
        yield from ((tensor.name, tensor) for tensor in graph.initializer)
        yield from ((sparse.values.name, sparse.values) for sparse in graph.sparse_initializer)
    for node in graphs.nodes(proto):
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            yield "".join(node.output), node.attribute[0].t


def _uses(proto: onnx.ModelProto) -> dict[str, set[Role]]:
    """Return what each value is used as: "constant", "bias", "weight", or (dtype, elements) of a packed weight."""
    uses: dict[str, set[Role]] = {}
    scales = {
        name for node in graphs.nodes(proto) if node.op_type == "DynamicQuantizeLinear" for name in node.output[1:2]
    }
    for node in graphs.nodes(proto):
        for index, name in enumerate(node.input):
            uses.setdefault(name, set()).add(_role(node, index, scales))
    return uses


def _role(node: Any, index: int, scales: set[str]) -> Role:
    if index in _CONSTANTS.get(node.op_type, ()) or (node.op_type == "QLinearConcat" and (index < 2 or index % 3 != 2)):
        return "constant"
    if node.op_type == "Mul" and scales.intersection(node.input):
        return "constant"
    if index == 1 and node.op_type in ("MatMulNBits", "MatMulBnb4"):
        return (f"int{graphs.attribute(node, 'bits', 4)}", math.prod(graphs.attribute(node, name, 0) for name in "NK"))
    return "bias" if _BIASES.get(node.op_type) == index else "weight"
