"""Static int8 quantization of ONNX models by ONNX Runtime: weights and activations, ranges from calibration data."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from trimtab.core.protocols import Array, Arrays, Choices, Context
from trimtab.core.values import Task, Variant
from trimtab.techniques.int8 import LAYERS, Calibrated, applied, attends, feeds, followers, reduces, refusal, run_onnx
from trimtab.techniques.simplify import optimized, saved, session

if TYPE_CHECKING:
    import onnx

Ranges = dict[str, tuple[float, float]]
"""The lowest and highest value of each tensor by name."""

Feeds = Callable[[], Iterable[Arrays]]

METHODS = ("minmax", "entropy", "percentile")
_BINS = 2048
_PERCENTILE = 0.9999
_TINY = 1e-12
_SAMPLED = 1 << 15  # values per tensor and feed, about, that enter a histogram: bounds the time, not the range
_PER_CHANNEL_OPSET = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticInt8:
    """Quantizes weights and activations to 8 bits with ONNX Runtime (QuantizeLinear / DequantizeLinear pairs).

    `calibration` chooses the range of each activation from at most `items` calibration items: all of it, the one
    that loses least information, or all but the largest 0.01 % of the magnitudes. `symmetric` centres the ranges of
    activations at zero. `reduce_range` limits weights to 7 bits, None where this processor would overflow otherwise.
    Layers named in `keep` (separated by |) stay in float. Of models with attention only matrix products are quantized.
    """

    calibration: Annotated[str, Choices("minmax", "entropy", "percentile")] = "minmax"
    per_channel: Annotated[bool, Choices(True, False)] = True
    symmetric: bool = False
    reduce_range: bool | None = None
    items: int = 300
    keep: str = ""

    name = "static-int8"
    order = 2

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what isn't a float ONNX model, missing calibration data, and an unknown kind of calibration."""
        if self.calibration not in METHODS:
            return f"there is no calibration {self.calibration!r}: choose minmax, entropy or percentile"
        return refusal(variant, task, self.name, ("onnx",), calibrates=True)

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the variant with its layers in int8."""
        return applied(self, variant, context, reduce_range=reduces(self.reduce_range))

    def prepare(self, variant: Variant, context: Context) -> Calibrated:
        """Return the model calibrated, ready to have any of its layers quantized."""
        proto = _prepared(variant.model.path)
        threads = variant.settings.threads
        given = partial(feeds, variant, context.task, self.items)
        return Calibrated(
            original=proto,
            layers=tuple(node.name for node in proto.graph.node if node.op_type in LAYERS),
            build=partial(self._build, proto, _ranges(proto, given, self.calibration, threads)),
            run=partial(run_onnx, threads=threads),
            save=lambda made, folder: saved(made, variant, folder),
            settings=variant.settings,
        )

    def _build(self, proto: onnx.ModelProto, ranges: Any, keep: Collection[str]) -> onnx.ModelProto:
        import onnx
        from onnxruntime.quantization import QDQQuantizer, QuantType

        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        quantizer = QDQQuantizer(
            copy,
            self.per_channel,
            reduces(self.reduce_range),
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=_in_float(proto, keep),
            op_types_to_quantize=_operators(proto),
            extra_options={"ActivationSymmetric": self.symmetric},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        made: onnx.ModelProto = quantizer.model.model
        return made


def _in_float(proto: onnx.ModelProto, keep: Collection[str]) -> list[str]:
    """Return the names of the nodes not to quantize when the layers `keep` are not."""
    makers = {name: node.name for node in proto.graph.node for name in node.output}
    consumers: dict[str, list[str]] = {}
    for node in proto.graph.node:
        for name in node.input:
            if name in makers:
                consumers.setdefault(makers[name], []).append(node.name)
    layers = {node.name for node in proto.graph.node if node.op_type in LAYERS}
    merges = {node.name for node in proto.graph.node if sum(name in makers for name in node.input) > 1}
    return sorted({*keep, *(node for name in keep for node in followers(name, consumers, layers, merges))})


def _prepared(path: Path) -> onnx.ModelProto:
    """Return the model folded, with the type of every tensor, at an operator set that knows scales per channel."""
    from onnx import shape_inference, version_converter

    proto = optimized(path, "basic")
    version = next(given.version for given in proto.opset_import if given.domain in ("", "ai.onnx"))
    if version < _PER_CHANNEL_OPSET:
        proto = version_converter.convert_version(proto, _PER_CHANNEL_OPSET)
    inferred: onnx.ModelProto = shape_inference.infer_shapes(proto, data_prop=True)
    return inferred


def _operators(proto: onnx.ModelProto) -> list[str]:
    """Return the operators to quantize: all that can be, but only matrix products where there is attention.

    Quantized softmax and normalization cost accuracy there, and their conversions more time than they save.
    """
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted(LAYERS) if attends(proto) else sorted({*QDQRegistry, *QLinearOpsRegistry})


def _ranges(proto: onnx.ModelProto, given: Feeds, method: str, threads: int | None) -> Any:
    """Return ONNX Runtime's record of the range of every activation.

    One feed is in memory at a time: first the extremes are taken, then histograms of the magnitudes.
    """
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    run = _watch(proto, threads)
    ranges: Ranges = {}
    for feed in given():
        for name, value in run(feed):
            low, high = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = min(low, float(value.min())), max(high, float(value.max()))
    if method != "minmax":
        bound_of = entropy_bound if method == "entropy" else percentile_bound
        for name, counts in _histograms(map(run, given()), ranges).items():
            low, high = ranges[name]
            bound = max(-low, high) * bound_of(counts)
            ranges[name] = max(low, -bound), min(high, bound)
    pairs = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    return TensorsData(CalibrationMethod.MinMax, pairs)


def _histograms(runs: Iterable[Iterable[tuple[str, Array]]], ranges: Ranges) -> dict[str, Array]:
    """Return how many values of each tensor fall into even bins between zero and its largest magnitude."""
    # The step between sampled values is odd: an even one would always hit the same columns of most images.
    counts = {name: np.zeros(_BINS, dtype=np.int64) for name in ranges}
    for outputs in runs:
        for name, value in outputs:
            flat = value.reshape(-1)
            low, high = ranges[name]
            largest = max(-low, high) or 1.0
            places = np.abs(flat[:: flat.size // _SAMPLED | 1]) * (_BINS / largest)
            counts[name] += np.bincount(np.minimum(places.astype(np.int64), _BINS - 1), minlength=_BINS)
    return counts


def percentile_bound(counts: Array) -> float:
    """Return the share of the histogram's width below which all but the largest 0.01 % of the values lie."""
    return float(np.searchsorted(np.cumsum(counts) / counts.sum(), _PERCENTILE) + 1) / len(counts)


def entropy_bound(counts: Array, levels: int = 128) -> float:
    """Return the share of the histogram's width at which clipping loses least information.

    The bound with the smallest Kullback-Leibler divergence between the clipped values and the same in `levels` steps
    (Migacz, 8-bit inference with TensorRT, 2017). The bin of the zeros counts like its neighbour, or a ReLU's
    zeros would outweigh everything else.
    """
    counts = counts.astype(np.float64)
    counts[0] = counts[1]
    stops = range(levels, len(counts) + 1, 16)
    losses = [_divergence(counts, stop, levels) for stop in stops]
    return stops[int(np.argmin(losses))] / len(counts)


def _divergence(counts: Array, stop: int, levels: int) -> float:
    starts = np.arange(levels) * stop // levels
    clipped = counts[:stop].copy()
    clipped[-1] += counts[stop:].sum()
    held = clipped > 0
    sums, holders = np.add.reduceat(counts[:stop], starts), np.add.reduceat(held.astype(np.int64), starts)
    coarse = np.repeat(sums / np.maximum(holders, 1), np.diff([*starts, stop]))[held]
    fine = clipped[held]
    if not coarse.any():
        return math.inf
    return float(np.sum(fine * np.log(fine / fine.sum() / np.maximum(coarse / coarse.sum(), _TINY))) / fine.sum())


def _watch(proto: onnx.ModelProto, threads: int | None) -> Any:
    """Return a function that runs one feed and yields every float tensor of the graph, with its name."""
    import onnx
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    outputs = {value.name for value in copy.graph.output}
    known = outputs | {tensor.name for tensor in copy.graph.initializer}
    inputs = {value.name for value in copy.graph.input}
    for value in copy.graph.value_info:
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in known:
            copy.graph.output.append(value)
    floats = [v.name for v in copy.graph.output if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    running = session(
        copy.SerializeToString(),
        intra_op_num_threads=threads or 0,
        graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    )

    def run(feed: Arrays) -> Iterable[tuple[str, Array]]:
        yield from zip(floats, running.run(floats, dict(feed)), strict=True)
        yield from ((name, value) for name, value in feed.items() if name in inputs and value.dtype == np.float32)

    return run
