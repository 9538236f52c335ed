"""Converts PyTorch and ONNX models to OpenVINO's own format, and checks that the outputs stayed the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.core.protocols import Context
from trimtab.core.values import Settings, Signature, Step, Task, Variant, options
from trimtab.formats import openvino as ir
from trimtab.formats.torch_tracing import FORMATS
from trimtab.techniques.agreement import check_agreement
from trimtab.techniques.export_onnx import fixed, free_else_fixed, program_at


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOpenVino:
    """PyTorch or ONNX to OpenVINO's IR.

    `batch` fixes the batch at this size. None keeps it free; where PyTorch's tracer can't, it is fixed at 1 and the
    step says so.
    """

    batch: int | None = None

    name = "export-openvino"
    lossless = True
    produces = "openvino"

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what OpenVINO can't convert."""
        if variant.model.format not in (*FORMATS, "onnx"):
            return f"it converts PyTorch and ONNX models, this one is {variant.model.format}"
        return None

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the converted variant, run by openvino in fp32.

        Raises:
            Refused: OpenVINO can't convert it, or the outputs differ.
        """

        def made(batch: int | None) -> Variant:
            source, signature = _source(variant, batch)
            model = ir.save(ir.converted(source, signature), context.folder, signature)
            step = Step(technique=self.name, options=options(batch=batch), seed=context.seed)
            found = variant.after(model, step).on(Settings(runtime="openvino", precision="fp32"))
            check_agreement(variant, found, context.seed)
            return found

        return made(self.batch) if variant.model.format == "onnx" else free_else_fixed(variant, self.batch, made)


def _source(variant: Variant, batch: int | None) -> tuple[Any, Signature]:
    if variant.model.format == "onnx":
        return variant.model.path, fixed(variant.model.signature, batch)
    return program_at(variant, batch)
