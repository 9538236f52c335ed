"""Dynamic int8 quantization of ONNX models by ONNX Runtime: int8 weights, ranges of activations taken at run time."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from trimtab.core.errors import NothingToGain
from trimtab.core.protocols import Choices, Context
from trimtab.core.values import Settings, Task, Variant
from trimtab.formats.onnx import OnnxFormat
from trimtab.techniques.int8 import Calibrated, applied, reduces, refusal, run_onnx
from trimtab.techniques.simplify import optimized, saved

if TYPE_CHECKING:
    import onnx

_WEIGHTED = {"MatMul": 1, "Gemm": 1, "Gather": 0, "LSTM": 1}
"""What is quantized, and which input must be constant. Dynamic convolutions are slower than those in float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicInt8:
    """Quantizes the weights of matrix products, LSTMs and embeddings to 8 bits; needs no data.

    `reduce_range` limits weights to 7 bits, None where this processor would overflow otherwise. Layers named in
    `keep` (separated by |) stay in float.
    """

    per_channel: Annotated[bool, Choices(True, False)] = True
    reduce_range: bool | None = None
    keep: str = ""

    name = "dynamic-int8"
    order = 3

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what isn't a float ONNX model, and a model without anything to quantize this way."""
        reason = refusal(variant, task, self.name, ("onnx",), calibrates=False)
        if reason is None and not _WEIGHTED.keys() & dict(OnnxFormat().contents(variant.model).operators):
            return "dynamic-int8 quantizes matrix products, LSTMs and embeddings; the model has none"
        return reason

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the variant with its weights in int8."""
        return applied(self, variant, context, reduce_range=reduces(self.reduce_range))

    def prepare(self, variant: Variant, context: Context) -> Calibrated:
        """Return the model ready to have any of its layers quantized; raise `NothingToGain` when none can be."""
        from onnxruntime.quantization.quant_utils import add_pre_process_metadata

        settings = variant.settings
        if settings.runtime != "onnxruntime":
            settings = Settings(runtime="onnxruntime", threads=settings.threads)
        proto = optimized(variant.model.path, "basic")
        layers = _layers(proto)
        if not layers:
            raise NothingToGain(
                "no layer can be quantized: the matrix products, LSTMs and embeddings have no constant weights, or lie "
                "inside If, Loop or Scan, where dynamic-int8 doesn't reach"
            )
        add_pre_process_metadata(proto)  # or it advises to do what has just been done
        del proto.graph.value_info[:]  # it transposes weights, after which their shapes noted here are wrong
        return Calibrated(
            original=proto,
            layers=layers,
            build=partial(self._build, proto),
            run=partial(run_onnx, threads=settings.threads),
            save=lambda made, folder: saved(made, variant, folder),
            settings=settings,
        )

    def _build(self, proto: onnx.ModelProto, keep: Collection[str]) -> onnx.ModelProto:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            onnx.save(proto, source)
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=sorted(_WEIGHTED),
                per_channel=self.per_channel,
                reduce_range=reduces(self.reduce_range),
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[
                    name for kept in sorted(keep) for name in (kept, f"{kept}_MatMul")
                ],  # a Gemm becomes both
            )
            made: onnx.ModelProto = onnx.load(target)
        return made


def _layers(proto: onnx.ModelProto) -> tuple[str, ...]:
    weights = {tensor.name for tensor in proto.graph.initializer if tensor.data_type == tensor.FLOAT}
    return tuple(
        node.name
        for node in proto.graph.node
        if node.op_type in _WEIGHTED and node.input[_WEIGHTED[node.op_type]] in weights
    )
