"""What the int8 techniques share: what counts as quantized, calibration items, layers that stay in float."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.core import plugins
from trimtab.core.errors import BadInput, Refused
from trimtab.core.machine import machine
from trimtab.core.protocols import Array, Arrays, Context
from trimtab.core.values import Machine, Model, Options, Settings, Step, Task, Variant, options
from trimtab.data.batches import batches
from trimtab.techniques.simplify import session

if TYPE_CHECKING:
    import onnx

SEPARATOR = "|"
"""Between the names of layers in a `keep` option; names of layers hold commas, semicolons, slashes and spaces."""

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The ONNX operators that do the work, and so are worth quantizing or keeping in float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A float model of which any choice of layers can be quantized, without looking at the data again.

    `original` is the live float model; `build` returns the live model in which the given layers stay in float;
    `run` returns the outputs of a live model, one list per feed; `save` writes one into a folder.
    """

    original: Any
    layers: tuple[str, ...]
    build: Callable[[Collection[str]], Any]
    run: Callable[[Any, Sequence[Arrays]], list[list[Array]]]
    save: Callable[[Any, Path], Model]
    settings: Settings


def refusal(variant: Variant, task: Task, name: str, formats: tuple[str, ...], calibrates: bool) -> str | None:
    """Return why a variant can't be quantized by the technique of that name, or None."""
    model = variant.model
    if model.format not in formats:
        return f"{name} needs a model in {' or '.join(formats)} format, this one is {model.format}: export it first"
    if is_quantized(model):
        return "the model is already quantized; quantizing twice only loses quality"
    if calibrates and not task.split("calibrate"):
        return f"{name} needs calibration data: give --data"
    if calibrates and model.signature.states:
        return f"{name} can't calibrate a model with states yet; try dynamic-int8"
    return None


def is_quantized(model: Model) -> bool:
    """Say whether a model computes with integers or stores its weights as such, as far as its format tells."""
    return plugins.make("formats", model.format).contents(model).quantization is not None


def saturates(machine: Machine) -> bool:
    """Say whether 8-bit products overflow their 16-bit sums on this processor (x86 without VNNI or AMX).

    There the same int8 file loses points of accuracy, so that weights must be limited to 7 bits.
    """
    sums_in_32_bits = {"avx512_vnni", "avx_vnni", "amx_int8"}
    return "x86_64" in machine.system and not sums_in_32_bits & set(machine.flags)


def reduces(wanted: bool | None) -> bool:
    """Return whether weights are limited to 7 bits: as wanted or, for None, as this processor needs it."""
    return saturates(machine()) if wanted is None else wanted


def feeds(variant: Variant, task: Task, items: int) -> Iterator[Arrays]:
    """Yield about that many calibration items, one per feed or as many as the model's batch is fixed to.

    Raises:
        Refused: There is no calibration data, or less than one batch.
    """
    split = task.split("calibrate")
    if split is None:
        raise Refused("there is no calibration data: give --data")
    left = replace(task, preprocessing=tuple(step for step in task.preprocessing if step not in variant.absorbed))
    sizes = {spec.shape[0] for spec in variant.model.signature.data_inputs if spec.shape}
    fixed = next((size for size in sizes if isinstance(size, int)), None)
    taken = 0
    for feed in batches(left, split, fixed or 1):
        count = len(next(iter(feed.values())))
        if taken >= items or (fixed and count < fixed and taken):
            return
        if fixed and count < fixed:
            raise Refused(f"the model takes {fixed} items at a time, there are {count} to calibrate on: give more data")
        taken += count
        yield feed


def kept(keep: str) -> tuple[str, ...]:
    """Return the names of layers in a `keep` option."""
    return tuple(name for name in (part.strip() for part in keep.split(SEPARATOR)) if name)


def joined(names: Collection[str], order: Sequence[str]) -> str:
    """Return names of layers as a `keep` option, in the order of the model."""
    return SEPARATOR.join(name for name in order if name in names)


def followers(
    name: str, consumers: Mapping[str, Sequence[str]], layers: Collection[str], merges: Collection[str]
) -> set[str]:
    """Return what stays in float along with a layer: the nodes after it up to the next layers.

    The first node that merges it with another branch is among them, a second one is not: a chain of shortcuts would
    pull half of the network along.
    """
    waiting = [(node, False) for node in consumers.get(name, ())]
    seen = set()
    while waiting:
        node, merged = waiting.pop()
        if node in layers or (node, merged) in seen or (merged and node in merges):
            continue
        seen.add((node, merged))
        waiting += [(after, merged or node in merges) for after in consumers.get(node, ())]
    return {node for node, _ in seen}


def options_of(technique: Any, **resolved: Any) -> Options:
    """Return the options of a technique that differ from their defaults; `resolved` were decided at run time."""
    chosen = ((field, resolved.get(field.name, getattr(technique, field.name))) for field in fields(technique))
    return options({field.name: value for field, value in chosen if value != field.default})


def applied(technique: Any, variant: Variant, context: Context, **resolved: Any) -> Variant:
    """Return what a technique that can `prepare` makes of a variant, its own `keep` layers in float."""
    step = Step(technique=technique.name, options=options_of(technique, **resolved), seed=context.seed)
    return quantized(variant, technique.prepare(variant, context), step, kept(technique.keep), context.folder)


def quantized(variant: Variant, calibrated: Calibrated, step: Step, keep: Collection[str], folder: Path) -> Variant:
    """Return the variant in which all layers but `keep` are quantized, its files in the folder."""
    unknown = sorted(set(keep) - set(calibrated.layers))
    if unknown:
        listed = ", ".join(calibrated.layers[:10]) + (", …" if len(calibrated.layers) > 10 else "")
        raise BadInput(f"the model has no layer named {unknown[0]!r} to keep; its layers are: {listed}")
    model = calibrated.save(calibrated.build(frozenset(keep)), folder)
    return replace(variant.after(model, step), settings=calibrated.settings)


def run_onnx(proto: onnx.ModelProto, given: Sequence[Arrays], threads: int | None) -> list[list[Array]]:
    """Return the outputs of an ONNX model in memory, one list per feed."""
    running = session(proto.SerializeToString(), intra_op_num_threads=threads or 0)
    return [running.run(None, dict(feed)) for feed in given]


def attends(proto: onnx.ModelProto) -> bool:
    """Say whether an ONNX model holds attention: a softmax, and a product of two computed matrices."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    constants |= {name for node in proto.graph.node if node.op_type == "Constant" for name in node.output}
    kinds = {node.op_type for node in proto.graph.node}
    return "Attention" in kinds or (
        "Softmax" in kinds
        and any(node.op_type == "MatMul" and not constants & set(node.input) for node in proto.graph.node)
    )
