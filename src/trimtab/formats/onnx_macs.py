"""Counts the multiply-accumulates (MACs) of an ONNX graph, its quantized forms included; `formats/macs.py` says how."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.core.values import Layer, Work, Workload
from trimtab.formats import graph as graphs
from trimtab.formats.macs import Part, Share, UnknownError, counted, einsum_macs, share_kept, uncounted, within
from trimtab.formats.onnx_inference import MICROSOFT, Visit, domain_of
from trimtab.formats.onnx_shapes import walk

if TYPE_CHECKING:
    import onnx

Rule = Callable[[Visit], list[Part]]

_TRANSPARENT = ("Cast", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose",
                "Unsqueeze")  # fmt: skip


def count_macs(proto: onnx.ModelProto, workload: Workload, folder: Path | None = None) -> Work:
    """Return the MACs of one call of the model under the workload, layer by layer.

    Args:
        proto: The model; it is not changed.
        workload: Sizes of free dimensions: the batch, and others by name.
        folder: Where external data lie; without it, weights kept in other files count as dense.
    """
    from trimtab.formats.onnx_signature import signature

    shapes = workload.shapes(signature(proto, states=()))
    return _total(walk(proto, shapes, folder), folder)


def _total(visits: Iterable[Visit], folder: Path | None) -> Work:
    layers: list[Layer] = []
    excluded: Counter[str] = Counter()
    for visit in visits:
        node, domain = visit.node, domain_of(visit.node)
        name = node.name or next((name for name in node.output if name), node.op_type)
        operator = f"{domain}.{node.op_type}" if domain else node.op_type
        rule = _RULES.get((domain, node.op_type))
        if visit.bodies:
            inner = within(name, [_total(body, folder) for body in visit.bodies], visit.times)
            layers.extend(inner.layers)
            excluded.update(dict(inner.excluded))
            excluded[node.op_type] += 1
        elif visit.times is None:
            layers.append(uncounted(name, operator, "its subgraph can't be followed"))
        elif rule is not None:
            layers.append(counted(name, operator, partial(rule, visit), partial(_share, visit, folder)))
        elif _is_excluded(domain, node.op_type):
            excluded[node.op_type] += 1
        else:
            layers.append(uncounted(name, operator))
    return Work(layers=tuple(layers), excluded=tuple(excluded.most_common()))


def _share(visit: Visit, folder: Path | None, part: Part, index: int) -> Share:
    """Follow an input back to a weight, through what does not change which of its elements are zero."""
    if not visit.has(index):
        return (1, 1)
    scope, name = visit.scope, visit.node.input[index]
    zero = visit.node.input[part.zero] if part.zero is not None and visit.has(part.zero) else ""
    seen: set[str] = set()  # a broken graph may turn in a circle
    while name not in scope.weights:
        node = scope.producers.get(name)
        if node is None or node.op_type not in _TRANSPARENT or name in seen:
            return (1, 1)
        seen.add(name)
        name = node.input[0]
        if node.op_type == "DequantizeLinear":
            zero = node.input[2] if len(node.input) > 2 else ""
    content = graphs.array(scope.weights[name], folder)
    if content is None:
        return (1, 1)
    return share_kept(content, graphs.array(scope.weights[zero], folder) if zero in scope.weights else None)


def _is_excluded(domain: str, operator: str) -> bool:
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


def _conv(visit: Visit, weight: int, zero: int | None = None) -> list[Part]:
    """Output elements × channels of a group × kernel elements; the weight is [out, channels of a group, *kernel]."""
    return [Part(math.prod(_output(visit)) * math.prod(_input(visit, weight)[1:]), (weight,), zero)]


def _conv_transpose(visit: Visit) -> list[Part]:
    """Input elements × output channels of a group × kernel elements; the weight is [in, out of a group, *kernel]."""
    return [Part(math.prod(_input(visit, 0)) * math.prod(_input(visit, 1)[1:]), (1,))]


def _matmul(visit: Visit, weight: int, zero: int | None = None) -> list[Part]:
    """Output elements × length of the axis that is summed over."""
    transposed = graphs.attribute(visit.node, "transA", 0)
    a = _input(visit, 0)
    if not a:
        raise UnknownError("its first input is a scalar")
    inner = a[-2] if transposed else a[-1]
    weights = (0, weight) if zero is None and weight == 1 else (weight,)
    return [Part(math.prod(_output(visit)) * inner, weights, zero)]


def _packed_matmul(visit: Visit) -> list[Part]:
    return [Part(math.prod(_output(visit)) * int(graphs.attribute(visit.node, "K")))]


def _einsum(visit: Visit) -> list[Part]:
    shapes = [_input(visit, index) for index in range(len(visit.inputs))]
    return [Part(einsum_macs(graphs.attribute(visit.node, "equation"), shapes), (0, 1))]


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
        q, k, v = ((x[0], count, x[1], x[2] // count) for x, count in ((q, heads), (k, shared), (v, shared)))
    keys = k[2] + (_input(visit, 4)[2] if visit.has(4) else 0)
    return [_scores(q[0], q[1], q[2], keys, (q[3], v[3]))]


def _fused_attention(visit: Visit, past: int, zero: int | None = None) -> list[Part]:
    """com.microsoft Attention: one projection of the input to q, k and v, then attention."""
    (batch, tokens, width), weight = _input(visit, 0), _input(visit, 1)
    sizes = graphs.attribute(visit.node, "qkv_hidden_sizes") or [weight[1] // 3] * 3
    keys = tokens + (_input(visit, past)[3] if visit.has(past) else 0)
    heads = graphs.attribute(visit.node, "num_heads")
    scores = _scores(batch, heads, tokens, keys, (sizes[1] // heads, sizes[2] // heads))
    return [Part(batch * tokens * width * weight[1], (1,), zero), scores]


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


_RULES: dict[tuple[str, str], Rule] = {
    **{("", name): partial(_conv, weight=1) for name in ("Conv", "CausalConvWithState", "DeformConv")},
    (MICROSOFT, "FusedConv"): partial(_conv, weight=1),
    ("", "ConvInteger"): partial(_conv, weight=1, zero=3),
    **dict.fromkeys((("", "QLinearConv"), (MICROSOFT, "QLinearConv")), partial(_conv, weight=3, zero=5)),
    ("", "ConvTranspose"): _conv_transpose,
    **dict.fromkeys((("", "MatMul"), ("", "Gemm")), partial(_matmul, weight=1)),
    **{
        (MICROSOFT, name): partial(_matmul, weight=1)
        for name in (
            "FusedGemm", "FusedMatMul", "FusedMatMulActivation", "GemmFastGelu", "MatMulInteger16", "TransposeMatMul"
        )
    },
    **dict.fromkeys((("", "MatMulInteger"), (MICROSOFT, "DynamicQuantizeMatMul")), partial(_matmul, weight=1, zero=3)),
    **dict.fromkeys((("", "QLinearMatMul"), (MICROSOFT, "QGemm")), partial(_matmul, weight=3, zero=5)),
    (MICROSOFT, "MatMulIntegerToFloat"): partial(_matmul, weight=1, zero=5),
    **dict.fromkeys(((MICROSOFT, "MatMulNBits"), (MICROSOFT, "MatMulBnb4")), _packed_matmul),
    ("", "Einsum"): _einsum,
    **dict.fromkeys((("", "LSTM"), ("", "GRU"), ("", "RNN"), (MICROSOFT, "DynamicQuantizeLSTM")), _recurrent),
    ("", "Attention"): _standard_attention,
    (MICROSOFT, "Attention"): partial(_fused_attention, past=4),
    (MICROSOFT, "QAttention"): partial(_fused_attention, past=8, zero=7),
    (MICROSOFT, "MultiHeadAttention"): _multi_head,
    (MICROSOFT, "GroupQueryAttention"): _grouped,
    **dict.fromkeys((("ai.onnx.ml", "LinearClassifier"), ("ai.onnx.ml", "LinearRegressor")), _linear_model),
}  # fmt: skip
