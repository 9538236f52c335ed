"""Counts the multiply-accumulates (MACs) of an ONNX graph, its quantized forms included.

Conventions: convolution, matrix products, attention and recurrent cells count, with padding and the full attention
square; biases, elementwise operators, normalization, softmax, pooling and data movement don't. The non-zero count
leaves out the products with a weight that is zero (for integer weights: at its zero point); packed weights and
products of two activations count as dense.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.core.values import Layer, Work, Workload
from trimtab.formats import graph as graphs
from trimtab.formats.onnx_shapes import MALFORMED, MICROSOFT, Scope, Visit, domain_of, walk

if TYPE_CHECKING:
    import onnx

    from trimtab.core.protocols import Array


@dataclass(frozen=True, slots=True)
class Part:
    """MACs of one product; the inputs that may hold its weight, and the input that holds the weight's zero point."""

    macs: int
    weights: tuple[int, ...] = ()
    zero: int | None = None


class UnknownError(Exception):
    """The MACs of an operator can't be determined; the message says why."""


def count_macs(proto: onnx.ModelProto, workload: Workload, folder: Path | None = None) -> Work:
    """Return the MACs of one call of the model under the workload, layer by layer.

    Args:
        proto: The model; it is not changed.
        workload: Sizes of free dimensions: the batch, and others by name.
        folder: Where external data lie; without it, weights kept in other files count as dense.
    """
    from trimtab.formats.onnx_signature import signature

    shapes = workload.shapes(signature(proto, states=()))
    count = _Count(folder)
    return count.total(walk(proto, shapes, folder))


class _Count:
    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.nonzero: dict[tuple[int, str | None], tuple[int, int]] = {}

    def total(self, visits: Iterable[Visit]) -> Work:
        layers: list[Layer] = []
        excluded: Counter[str] = Counter()
        for visit in visits:
            found = self._node(visit)
            layers.extend(found.layers)
            excluded.update(dict(found.excluded))
        return Work(layers=tuple(layers), excluded=tuple(excluded.most_common()))

    def _node(self, visit: Visit) -> Work:
        node = visit.node
        key = (domain_of(node), node.op_type)
        if visit.bodies or visit.times is None:
            return self._control(visit)
        if key in _MACS:
            return Work(layers=(self._layer(visit, _MACS[key]),))
        if is_excluded(*key):
            return Work(layers=(), excluded=((node.op_type, 1),))
        reason = "there is no rule for this operator"
        return Work(layers=(Layer(name=_name(node), operator=_operator(node), macs=None, reason=reason),))

    def _control(self, visit: Visit) -> Work:
        name = _name(visit.node)
        inner = [self.total(body) for body in visit.bodies]
        if not inner:
            reason = "its subgraph can't be followed"
            return Work(layers=(Layer(name=name, operator=_operator(visit.node), macs=None, reason=reason),))
        larger = max(inner, key=lambda work: work.macs)
        open_ends = tuple(layer for work in inner if work is not larger for layer in work.uncounted)
        layers = tuple(repeated(layer, name, visit.times) for layer in (*larger.layers, *open_ends))
        excluded = Counter({visit.node.op_type: 1}) + Counter(dict(larger.excluded))
        return Work(layers=layers, excluded=tuple(excluded.most_common()))

    def _layer(self, visit: Visit, rule: Callable[[Visit], list[Part]]) -> Layer:
        layer = Layer(name=_name(visit.node), operator=_operator(visit.node), macs=None)
        try:
            parts = rule(visit)
        except UnknownError as error:
            return replace(layer, reason=str(error))
        except MALFORMED as error:
            return replace(layer, reason=f"its inputs or attributes are not as they should be ({error!r})")
        nonzero = sum(self._nonzero(visit, part) for part in parts)
        return replace(layer, macs=sum(part.macs for part in parts), nonzero=nonzero)

    def _nonzero(self, visit: Visit, part: Part) -> int:
        found = part.macs
        for index in part.weights:
            if visit.has(index):
                zero = visit.node.input[part.zero] if part.zero is not None and visit.has(part.zero) else None
                kept, size = self._kept(visit.scope, visit.node.input[index], zero)
                found = min(found, part.macs * kept // size)
        return found

    def _kept(self, scope: Scope, name: str, zero: str | None) -> tuple[int, int]:
        """Return how many elements of a weight are not zero, and how many there are; (1, 1) when it is no weight."""
        tensor, zero = _origin(scope, name, zero)
        if tensor is None:
            return (1, 1)
        key = (id(tensor), zero)
        if key not in self.nonzero:
            self.nonzero[key] = _count_nonzero(tensor, scope.weights.get(zero or ""), self.folder)
        return self.nonzero[key]


def _origin(scope: Scope, name: str, zero: str | None) -> tuple[onnx.TensorProto | None, str | None]:
    """Follow a weight back through what does not change which of its elements are zero."""
    while name not in scope.weights:
        node = scope.producers.get(name)
        if node is None or node.op_type not in _TRANSPARENT:
            return None, None
        name = node.input[0]
        if node.op_type == "DequantizeLinear":
            zero = node.input[2] if len(node.input) > 2 and node.input[2] else None
    return scope.weights[name], zero


_TRANSPARENT = frozenset(
    {
        "Cast",
        "DequantizeLinear",
        "Flatten",
        "Identity",
        "QuantizeLinear",
        "Reshape",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)


def _count_nonzero(tensor: Any, zero: Any, folder: Path | None) -> tuple[int, int]:
    content = graphs.array(tensor, folder)
    if content is None or content.size == 0:
        return (1, 1)
    return share_kept(content, graphs.array(zero, folder) if zero is not None else None)


def share_kept(content: Array, zero: Array | None) -> tuple[int, int]:
    """Return how many elements of a weight are not zero (not at their zero point), and how many there are."""
    if content.dtype.kind not in "iuf":
        content = content.astype(np.float32)  # bfloat16 and smaller
    if zero is None or not zero.astype(np.float32).any():
        return int(np.count_nonzero(content)), content.size
    return int(np.count_nonzero(content != _spread(zero.astype(content.dtype), content.shape))), content.size


def _spread(point: Array, shape: tuple[int, ...]) -> Array:
    """Return zero points, one in all or one per channel, in a form that broadcasts against the weight."""
    if point.size == 1:
        return point.reshape(())
    axis = next((axis for axis, size in enumerate(shape) if size == point.size), None)
    if point.ndim == len(shape) or axis is None:
        return point if _broadcasts(point.shape, shape) else np.zeros((), point.dtype)
    return point.reshape([-1 if at == axis else 1 for at in range(len(shape))])


def _broadcasts(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(given) == len(shape) and all(a in (1, b) for a, b in zip(given, shape, strict=True))


def repeated(layer: Layer, outer: str, times: int | None) -> Layer:
    """Return a layer inside another one that runs it that often; None is not known."""
    name = f"{outer}/{layer.name}"
    if layer.macs is None:
        return replace(layer, name=name)
    if times is None:
        return replace(layer, name=name, macs=None, nonzero=None, reason="it is in a loop of unknown length")
    return replace(layer, name=name, macs=layer.macs * times, nonzero=(layer.nonzero or 0) * times)


def _name(node: onnx.NodeProto) -> str:
    return str(node.name or next((name for name in node.output if name), node.op_type))


def _operator(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def is_excluded(domain: str, operator: str) -> bool:
    """Say whether an operator is known and by convention no multiply-accumulate."""
    from onnx import defs

    if domain == MICROSOFT:
        return operator in _MICROSOFT_EXCLUDED
    if operator in _WITHOUT_RULE:
        return False
    if domain == "" and operator == "SimplifiedLayerNormalization":
        return True
    return domain in ("", "ai.onnx.ml") and bool(defs.has(operator, domain))


_WITHOUT_RULE = frozenset({"DFT", "Det", "LinearAttention", "STFT", "SVMClassifier", "SVMRegressor"})
_MICROSOFT_EXCLUDED = frozenset({
    "BiasAdd", "BiasDropout", "BiasGelu", "BiasSoftmax", "BiasSplitGelu", "BitmaskBiasDropout", "BitmaskDropout",
    "ComplexMul", "ComplexMulConj", "CropAndResize", "DequantizeLinear", "EmbedLayerNormalization", "ExpandDims",
    "FastGelu", "GatherBlockQuantized", "GatherND", "Gelu", "GemmaRotaryEmbedding", "GridSample", "GroupNorm",
    "IsAllFinite", "MulInteger", "NGramRepeatBlock", "NhwcMaxPool", "Pad", "QEmbedLayerNormalization", "QLinearAdd",
    "QLinearAveragePool", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul",
    "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QuantizeLinear", "QuickGelu", "Range",
    "ReduceSumInteger", "RelativePositionBias", "RemovePadding", "RestorePadding", "RotaryEmbedding", "SampleOp",
    "ScaledSiLU", "SimplifiedLayerNormalization", "SkipGroupNorm", "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization", "Tokenizer", "Trilu", "UnfoldTensor", "Unique",
})  # fmt: skip


# --- rules: the parts of one node -----------------------------------------------------------------------------------


def _known(shape: tuple[int | None, ...] | None, what: str) -> tuple[int, ...]:
    if shape is None:
        raise UnknownError(f"the shape of its {what} is not known")
    sizes = tuple(size for size in shape if size is not None)
    if len(sizes) != len(shape):
        raise UnknownError(f"the shape of its {what} has a free dimension; name its length in the workload")
    return sizes


def _input(visit: Visit, index: int) -> tuple[int, ...]:
    return _known(visit.shape(index), f"input {index + 1}")


def _output(visit: Visit) -> tuple[int, ...]:
    return _known(visit.outputs[0].shape, "output")


def _conv(weight: int, zero: int | None = None) -> Callable[[Visit], list[Part]]:
    """Output elements × channels of a group × kernel elements; the weight is [out, channels of a group, *kernel]."""

    def rule(visit: Visit) -> list[Part]:
        return [Part(math.prod(_output(visit)) * math.prod(_input(visit, weight)[1:]), (weight,), zero)]

    return rule


def _conv_transpose(visit: Visit) -> list[Part]:
    """Input elements × output channels of a group × kernel elements; the weight is [in, out of a group, *kernel]."""
    return [Part(math.prod(_input(visit, 0)) * math.prod(_input(visit, 1)[1:]), (1,))]


def _matmul(weight: int, zero: int | None = None) -> Callable[[Visit], list[Part]]:
    """Output elements × length of the axis that is summed over."""

    def rule(visit: Visit) -> list[Part]:
        transposed = graphs.attribute(visit.node, "transA", 0)
        a = _input(visit, 0)
        if not a:
            raise UnknownError("its first input is a scalar")
        inner = a[-2] if transposed else a[-1]
        weights = (0, weight) if zero is None and weight == 1 else (weight,)
        return [Part(math.prod(_output(visit)) * inner, weights, zero)]

    return rule


def _packed_matmul(visit: Visit) -> list[Part]:
    return [Part(math.prod(_output(visit)) * int(graphs.attribute(visit.node, "K")))]


def _einsum(visit: Visit) -> list[Part]:
    shapes = [_input(visit, index) for index in range(len(visit.inputs))]
    return [Part(einsum_macs(graphs.attribute(visit.node, "equation"), shapes), (0, 1))]


def einsum_macs(equation: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the product of the sizes of all indices, 0 where nothing is summed over.

    Raises:
        UnknownError: There are more than two operands: their order decides.
    """
    terms, arrow, result = equation.replace(" ", "").partition("->")
    operands = terms.split(",")
    if len(operands) > 2:
        raise UnknownError("an Einsum of more than two operands has no single order")
    if len(operands) == 1:
        return 0
    sizes: dict[str, int] = {}
    for operand, shape in zip(operands, shapes, strict=True):
        for index, size in _index_sizes(operand, shape).items():
            sizes[index] = max(size, sizes.get(index, 1))
    kept = result if arrow else "".join(name for name in terms if terms.count(name) == 1)
    summed = [name for name in sizes if len(name) == 1 and name not in kept]
    return math.prod(sizes.values()) if summed else 0


def _index_sizes(operand: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Return sizes by index; the axes of an ellipsis are named from the right, so that they meet when broadcast."""
    before, dots, after = operand.partition("...")
    hidden = len(shape) - len(before) - len(after) if dots else 0
    names = [*before, *(f"...{place}" for place in range(hidden, 0, -1)), *after]
    return dict(zip(names, shape, strict=True))


def _recurrent(visit: Visit) -> list[Part]:
    """Steps × batch × elements of both weights: directions × gates × hidden size × (input size + hidden size)."""
    x, weight, recurrence = _input(visit, 0), _input(visit, 1), _input(visit, 2)
    calls = x[0] * x[1]
    quantized = visit.node.op_type == "DynamicQuantizeLSTM"
    return [
        Part(calls * math.prod(weight), (1,), 9 if quantized else None),
        Part(calls * math.prod(recurrence), (2,), 11 if quantized else None),
    ]


def _scores(batch: int, heads: int, queries: int, keys: int, sizes: tuple[int, int]) -> Part:
    """Query × key over the size of a head of k, and the weights × value over that of v."""
    return Part(batch * heads * queries * keys * sum(sizes))


def _standard_attention(visit: Visit) -> list[Part]:
    """ONNX's Attention: 4-D inputs are [batch, heads, tokens, size], 3-D ones [batch, tokens, heads × size]."""
    q, k, v = (_input(visit, index) for index in range(3))
    if len(q) == 3:
        heads, shared = (graphs.attribute(visit.node, name) for name in ("q_num_heads", "kv_num_heads"))
        q, k, v = (
            (x[0], count, x[1], x[2] // count) for x, count in ((q, heads), (k, shared), (v, shared))
        )  # fmt: skip
    keys = k[2] + (_input(visit, 4)[2] if visit.has(4) else 0)
    return [_scores(q[0], q[1], q[2], keys, (q[3], v[3]))]


def _fused_attention(past: int, zero: int | None = None) -> Callable[[Visit], list[Part]]:
    """com.microsoft Attention: one projection of the input to q, k and v, then attention."""

    def rule(visit: Visit) -> list[Part]:
        (batch, tokens, width), weight = _input(visit, 0), _input(visit, 1)
        sizes = graphs.attribute(visit.node, "qkv_hidden_sizes") or [weight[1] // 3] * 3
        keys = tokens + (_input(visit, past)[3] if visit.has(past) else 0)
        heads = graphs.attribute(visit.node, "num_heads")
        scores = _scores(batch, heads, tokens, keys, (sizes[1] // heads, sizes[2] // heads))
        return [Part(batch * tokens * width * weight[1], (1,), zero), scores]

    return rule


def _multi_head(visit: Visit) -> list[Part]:
    """com.microsoft MultiHeadAttention on projected inputs: packed, flat, or with heads split off."""
    q = _input(visit, 0)
    heads = graphs.attribute(visit.node, "num_heads")
    past = _input(visit, 6)[2] if visit.has(6) else 0
    if len(q) == 5:
        return [_scores(q[0], heads, q[1], q[1] + past, (q[4], q[4]))]
    k = _input(visit, 1)
    if len(k) == 5:
        return [_scores(q[0], heads, q[1], k[1] + past, (k[4], k[4]))]
    v = _input(visit, 2)
    keys = k[2] if len(k) == 4 else k[1]
    size = v[3] if len(v) == 4 else v[2] // heads
    return [_scores(q[0], heads, q[1], keys + past, (q[2] // heads, size))]


def _grouped(visit: Visit) -> list[Part]:
    """com.microsoft GroupQueryAttention: packed or separate q, k, v; the past is at its full length."""
    q = _input(visit, 0)
    heads, shared = (graphs.attribute(visit.node, name) for name in ("num_heads", "kv_num_heads"))
    size = q[2] // heads if visit.has(1) else q[2] // (heads + 2 * shared)
    past = _input(visit, 3)[2] if visit.has(3) else 0
    return [_scores(q[0], heads, q[1], q[1] + past, (size, size))]


def _linear_model(visit: Visit) -> list[Part]:
    rows, _ = _input(visit, 0)
    return [Part(rows * len(graphs.attribute(visit.node, "coefficients", ())))]


_MACS: dict[tuple[str, str], Callable[[Visit], list[Part]]] = {
    ("", "Conv"): _conv(1),
    ("", "CausalConvWithState"): _conv(1),
    ("", "DeformConv"): _conv(1),
    ("", "ConvInteger"): _conv(1, zero=3),
    ("", "QLinearConv"): _conv(3, zero=5),
    ("", "ConvTranspose"): _conv_transpose,
    ("", "MatMul"): _matmul(1),
    ("", "Gemm"): _matmul(1),
    ("", "MatMulInteger"): _matmul(1, zero=3),
    ("", "QLinearMatMul"): _matmul(3, zero=5),
    ("", "Einsum"): _einsum,
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
    ("", "Attention"): _standard_attention,
    ("ai.onnx.ml", "LinearClassifier"): _linear_model,
    ("ai.onnx.ml", "LinearRegressor"): _linear_model,
    (MICROSOFT, "FusedConv"): _conv(1),
    (MICROSOFT, "QLinearConv"): _conv(3, zero=5),
    (MICROSOFT, "DynamicQuantizeLSTM"): _recurrent,
    (MICROSOFT, "FusedMatMul"): _matmul(1),
    (MICROSOFT, "FusedMatMulActivation"): _matmul(1),
    (MICROSOFT, "TransposeMatMul"): _matmul(1),
    (MICROSOFT, "FusedGemm"): _matmul(1),
    (MICROSOFT, "GemmFastGelu"): _matmul(1),
    (MICROSOFT, "MatMulInteger16"): _matmul(1),
    (MICROSOFT, "QGemm"): _matmul(3, zero=5),
    (MICROSOFT, "DynamicQuantizeMatMul"): _matmul(1, zero=3),
    (MICROSOFT, "MatMulIntegerToFloat"): _matmul(1, zero=5),
    (MICROSOFT, "MatMulNBits"): _packed_matmul,
    (MICROSOFT, "MatMulBnb4"): _packed_matmul,
    (MICROSOFT, "Attention"): _fused_attention(past=4),
    (MICROSOFT, "QAttention"): _fused_attention(past=8, zero=7),
    (MICROSOFT, "MultiHeadAttention"): _multi_head,
    (MICROSOFT, "GroupQueryAttention"): _grouped,
}
