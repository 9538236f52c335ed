"""Sixteen bits: weights stored in half their size, and bf16 arithmetic where engine and processor have it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trimtab.core.errors import NothingToGain
from trimtab.core.machine import machine
from trimtab.core.protocols import Context
from trimtab.core.values import Model, Step, Task, Variant
from trimtab.formats import openvino
from trimtab.formats.onnx import OnnxFormat
from trimtab.formats.torch_tracing import FORMATS
from trimtab.techniques.int8 import is_quantized
from trimtab.techniques.simplify import saved

if TYPE_CHECKING:
    import onnx

_LARGEST = float(np.finfo(np.float16).max)
_WORTH = 64  # elements; a smaller tensor saves less than its cast takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bf16:
    """Computes in bf16 on openvino and torch; ONNX and OpenVINO models also store their weights in 16 bits.

    Stored are fp16 values, which are eight times finer than bf16; they are cast back when the model is loaded. So on
    onnxruntime, which has no bf16 arithmetic on these processors, only the size changes, not the speed.
    """

    name = "bf16"
    order = 4
    saves = "bytes"  # the arithmetic stays as it is: nothing to try where time is the goal

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse quantized models, and PyTorch models where the processor has no bf16 arithmetic."""
        model = variant.model
        if model.format in FORMATS:
            return None if _computes() else "this processor has no bf16 arithmetic; nothing would be faster"
        if model.format not in ("onnx", "openvino"):
            return f"bf16 works on onnx, openvino and PyTorch models, this one is {model.format}"
        if is_quantized(model):
            return "the model is quantized: its weights are smaller than 16 bits already"
        return None

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the variant with 16-bit weights and, where there is such arithmetic, the precision hint bf16."""
        settings = variant.settings
        if settings.runtime != "onnxruntime" and _computes():
            settings = replace(settings, precision="bf16")
        step = Step(technique=self.name, seed=context.seed)
        return replace(variant.after(self._stored(variant, context), step), settings=settings)

    def _stored(self, variant: Variant, context: Context) -> Model:
        if variant.model.format == "onnx":
            return saved(halved(OnnxFormat().load(variant.model)), variant, context.folder)
        if variant.model.format == "openvino":
            graph = openvino.OpenVinoFormat().load(variant.model)
            return openvino.save(graph, context.folder, variant.model.signature, compress_to_fp16=True)
        return variant.model


def _computes() -> bool:
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(machine().flags))


def halved(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of an ONNX model with its large fp32 weights stored in fp16 and cast back to fp32.

    Weights beyond the range of fp16 stay as they are. Raises `NothingToGain` when there is nothing to halve.
    """
    import onnx
    from onnx import helper, numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    given = {value.name for value in copy.graph.input}
    casts = []
    for tensor in copy.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or tensor.name in given or np.prod(tensor.dims) < _WORTH:
            continue
        values = numpy_helper.to_array(tensor)
        if not np.abs(values).max() <= _LARGEST:
            continue
        half = f"{tensor.name}_fp16"
        casts.append(helper.make_node("Cast", [half], [tensor.name], name=f"{half}_cast", to=onnx.TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
    if not casts:
        raise NothingToGain("the model has no large fp32 weights: they are in 16 bits already, or there are none")
    nodes = [*casts, *copy.graph.node]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy
