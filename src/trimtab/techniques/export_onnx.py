"""Exports PyTorch models to ONNX with the dynamo exporter, and checks that the outputs stayed the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from trimtab.core.errors import BadInput, MissingExtra, Refused
from trimtab.core.protocols import Context
from trimtab.core.values import Settings, Signature, Step, Task, TensorSpec, Variant, options
from trimtab.formats import graph as graphs
from trimtab.formats import onnx as onnx_format
from trimtab.formats.torch_tracing import (
    BATCH,
    FOREIGN_ERRORS,
    FORMATS,
    export,
    first_line,
    import_torch,
    load_live,
    quiet,
)
from trimtab.techniques.agreement import check_agreement

_KEPT_METADATA = ("pkg.torch.onnx.name_scopes",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOnnx:
    """PyTorch to ONNX.

    `opset` is the ONNX operator set; None takes the exporter's own. `batch` fixes the batch at this size. None keeps it
    free; where the exporter can't, it is fixed at 1 and the step says so.
    """

    opset: int | None = None
    batch: int | None = None

    name = "export-onnx"
    lossless = True
    tidy = True
    produces = "onnx"

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what is not a PyTorch model."""
        if variant.model.format not in FORMATS:
            return f"it exports PyTorch models, this one is {variant.model.format}"
        return None

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the exported variant, run by onnxruntime with its defaults.

        Raises:
            Refused: PyTorch can't export it, or the outputs differ from PyTorch's own.
        """

        def made(batch: int | None) -> Variant:
            program, signature = program_at(variant, batch)
            model = onnx_format.save(_proto(program, signature, self.opset), context.folder / "model.onnx")
            step = Step(technique=self.name, options=options(opset=self.opset, batch=batch), seed=context.seed)
            found = variant.after(replace(model, signature=signature), step).on(Settings(runtime="onnxruntime"))
            check_agreement(variant, found, context.seed)
            return found

        return free_else_fixed(variant, self.batch, made)


def free_else_fixed(variant: Variant, batch: int | None, make: Callable[[int | None], Variant]) -> Variant:
    """Return what `make` makes with a free batch or, where that is refused, with a batch of 1; a given one is kept.

    Code that loops over the batch is traced for the batch it saw: either the tracer or the comparison finds out.
    """
    try:
        return make(batch)
    except Refused as error:
        if batch is not None or not any(BATCH in spec.shape for spec in variant.model.signature.inputs):
            raise
        try:
            return make(1)
        except Refused:
            raise error from None


def program_at(variant: Variant, batch: int | None) -> tuple[Any, Signature]:
    """Return a variant's exported program and its signature, with the batch fixed at a size unless that is None.

    Raises:
        Refused: torch.export can't trace the model; the message holds PyTorch's reason.
    """
    torch = import_torch("exporting a PyTorch model")
    live, signature = load_live(variant.model), variant.model.signature
    if batch is None and not isinstance(live, torch.nn.Module):
        return live, signature
    try:
        return export(live, signature, batch), fixed(signature, batch)
    except BadInput as error:
        raise Refused(str(error)) from error


def fixed(signature: Signature, batch: int | None) -> Signature:
    """Return a signature with the batch at this size; None leaves it as it is.

    Raises:
        Refused: The batch is fixed already.
    """
    if batch is None:
        return signature
    firsts = {spec.shape[0] for spec in signature.data_inputs if spec.shape and isinstance(spec.shape[0], str)}
    if not firsts:
        raise Refused("the batch of this model is fixed already: leave the option batch out")

    def at(spec: TensorSpec) -> TensorSpec:
        sizes = enumerate(spec.shape)
        return replace(spec, shape=tuple(batch if s in firsts and (s != "?" or axis == 0) else s for axis, s in sizes))

    return Signature(inputs=tuple(map(at, signature.inputs)), outputs=tuple(map(at, signature.outputs)))


def _proto(program: Any, signature: Signature, opset: int | None) -> Any:
    """Return the ONNX model with the signature's names, free dimensions named, and nothing that varies between runs."""
    torch = import_torch("exporting to ONNX")
    try:
        with quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
            )
    except ImportError as error:
        raise MissingExtra("onnxscript", "torch", "exporting to ONNX") from error
    except FOREIGN_ERRORS as error:
        raise Refused(f"PyTorch can't export this model to ONNX: {_cause(error)}") from error
    proto = exported.model_proto
    _name_dimensions(proto, signature)
    _drop_metadata(proto)
    return proto


def _cause(error: BaseException) -> str:
    """Return the operator that is missing, or the innermost reason."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = first_line(error)
    missing = re.search(
        r"No decompositions registered for the (?:real-valued|complex-valued) input.*|aten[.:]\S+", str(error)
    )
    return f"{said} ({missing[0][:120]})" if missing and missing[0] not in said else said


def _name_dimensions(proto: Any, signature: Signature) -> None:
    """Give free dimensions the names of the signature instead of the exporter's symbols (s40 …)."""
    called: dict[str, str] = {}
    for value, spec in zip(proto.graph.input, signature.inputs, strict=True):
        for dim, size in zip(value.type.tensor_type.shape.dim, spec.shape, strict=True):
            if dim.dim_param and isinstance(size, str):
                called.setdefault(dim.dim_param, size)
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in called:
                dim.dim_param = called[dim.dim_param]


def _drop_metadata(proto: Any) -> None:
    """Remove stack traces and other remarks: they hold paths of this machine and make equal models differ."""
    holders = [proto, *proto.functions, *graphs.nodes(proto)]
    for graph in graphs.graphs(proto):
        holders += [graph, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    holders += [value for function in proto.functions for value in function.value_info]
    for holder in holders:
        kept = [entry for entry in holder.metadata_props if entry.key in _KEPT_METADATA]
        del holder.metadata_props[:]
        holder.metadata_props.extend(kept)
