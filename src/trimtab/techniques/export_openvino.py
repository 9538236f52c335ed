"""Converts PyTorch and ONNX models to OpenVINO's own format, and checks that the outputs stayed the same."""

from __future__ import annotations

from typing import Any

from trimtab.core.errors import Refused
from trimtab.core.protocols import Context
from trimtab.core.values import Settings, Signature, Step, Task, Variant, options
from trimtab.formats import openvino as ir
from trimtab.formats.torch_tracing import quiet
from trimtab.techniques.agreement import check_agreement
from trimtab.techniques.export_onnx import free_else_fixed, program_at

_TORCH = ("torch", "torch-export", "huggingface")
_HALF = 1e-2


class ExportOpenVino:
    """PyTorch or ONNX to OpenVINO's IR.

    Args:
        compress_to_fp16: Store the weights in half precision; they are computed with as before.
    """

    name = "export-openvino"
    lossless = True
    produces = "openvino"

    def __init__(self, compress_to_fp16: bool = False) -> None:
        self.compress_to_fp16 = compress_to_fp16

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what OpenVINO can't convert."""
        if variant.model.format not in (*_TORCH, "onnx"):
            return f"it converts PyTorch and ONNX models, this one is {variant.model.format}"
        return None

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the converted variant, run by openvino in fp32.

        Raises:
            Refused: OpenVINO can't convert it, or the outputs differ.
        """
        tolerance = {"relative": _HALF} if self.compress_to_fp16 else {}

        def made(batch: int | None) -> Variant:
            source, signature = _source(variant, batch)
            graph = ir.with_names(_converted(source), signature)
            model = ir.save(graph, context.folder, signature, self.compress_to_fp16)
            fixed = {} if batch is None else {"batch": batch}
            said = options(compress_to_fp16=self.compress_to_fp16, **fixed)
            step = Step(technique=self.name, options=said, seed=context.seed)
            found = variant.after(model, step).on(Settings(runtime="openvino", precision="fp32"))
            check_agreement(variant, found, context.seed, **tolerance)
            return found

        return made(None) if variant.model.format == "onnx" else free_else_fixed(variant, None, made)


def _source(variant: Variant, batch: int | None) -> tuple[Any, Signature]:
    if variant.model.format == "onnx":
        return variant.model.path, variant.model.signature
    return program_at(variant, batch)


def _converted(source: Any) -> Any:
    openvino = ir.import_openvino("converting to OpenVINO")
    try:
        with quiet():
            return openvino.convert_model(source)
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise Refused(f"openvino can't convert this model: {(lines or [type(error).__name__])[-1][:200]}") from error
