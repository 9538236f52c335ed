"""Reads how much a model computes: multiply-accumulates (MACs), counted on its graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from trimtab.core import plugins
from trimtab.core.errors import BadInput, MissingExtra
from trimtab.core.protocols import Described, Session
from trimtab.core.values import Layer, Model, Reading, Signature, Task, Trace, Variant, Work, Workload
from trimtab.meters.feed import timing_inputs
from trimtab.meters.readings import unavailable

_SOURCE = "graph counter: convolution, matrix products, attention and recurrent cells; one MAC is two FLOPs"


class ComputeMeter:
    """Reads the MACs of one call, of the shapes that are timed.

    Args:
        layers: Return the MACs of every layer too, each at its place.
    """

    name = "compute"
    readings: ClassVar = {"macs": "1", "macs_nonzero": "1", "macs_coverage": "1"}

    def __init__(self, layers: bool = False) -> None:
        self.layers = layers

    def read(self, session: Session, variant: Variant, task: Task, workload: Workload) -> Sequence[Reading | Trace]:
        """Return `macs`, `macs_nonzero` and `macs_coverage`, and with `layers` the `macs` of each layer."""
        given = timing_inputs(variant, task, workload)
        workload = bound(variant.model.signature, workload, {name: array.shape for name, array in given.items()})
        found = work(variant.model, workload)
        if isinstance(found, str):
            return [unavailable(name, found) for name in ("macs", "macs_nonzero", "macs_coverage")]
        return [*readings(found, workload), *(_layer(layer) for layer in found.layers if self.layers)]


def bound(signature: Signature, workload: Workload, shapes: Mapping[str, Sequence[int]]) -> Workload:
    """Return the workload with a length for every dimension that the signature leaves free, from shapes of inputs.

    The inputs of a stateful model have time as their second axis; what is bound, and counted, is one step.
    """
    lengths = dict(workload.lengths)
    for spec in signature.data_inputs:
        shape = list(shapes[spec.name])
        if signature.states and len(shape) == len(spec.shape) + 1:
            del shape[1]
        for axis, (name, size) in enumerate(zip(spec.shape, shape, strict=False)):
            if isinstance(name, str) and axis > 0:
                lengths[name if name != "?" else f"{spec.name}:{axis}"] = size
    return replace(workload, lengths=tuple(sorted(lengths.items())))


def work(model: Model, workload: Workload) -> Work | str:
    """Return the MACs of one call, layer by layer, or in words why they can't be counted."""
    described = plugins.make("formats", model.format)
    if not isinstance(described, Described):
        return f"the format {model.format} can't be counted; export the model to ONNX first"
    try:
        return described.work(model, workload)
    except (BadInput, MissingExtra) as error:
        return str(error)


def readings(found: Work, workload: Workload) -> tuple[Reading, ...]:
    """Return `macs`, `macs_nonzero` and `macs_coverage` of one call.

    `macs_coverage` is the share of the compute-bearing operators that could be counted. Operators that by convention
    are no multiply-accumulates do not enter it; unknown ones count as compute-bearing. Below 1, the other two are
    lower bounds; where nothing could be counted they are unavailable.
    """
    missing = Counter(layer.operator for layer in found.uncounted)
    listed = ", ".join(f"{count} × {operator}" for operator, count in missing.most_common())
    if missing and len(found.uncounted) == len(found.layers):
        reason = f"none of the operators could be counted: {listed} ({found.uncounted[0].reason})"
        return (unavailable("macs", reason), unavailable("macs_nonzero", reason), _coverage(found, listed))
    sizes = "".join(f", {name} {size}" for name, size in workload.lengths)
    scope = f"one call of batch {workload.batch}{sizes}" + (f"; at least: without {listed}" if missing else "")
    bound = float(found.macs) if missing else None
    return (
        _counted("macs", found.macs, scope, low=bound),
        _counted("macs_nonzero", found.nonzero, f"{scope}, products with zero weights left out"),
        _coverage(found, listed),
    )


def _coverage(found: Work, listed: str) -> Reading:
    return Reading(
        name="macs_coverage",
        value=found.coverage,
        direction="higher",
        provenance="counted",
        source=_SOURCE,
        scope=f"{len(found.layers)} operators that compute" + (f", uncounted: {listed}" if listed else ", all counted"),
    )


def _counted(name: str, value: int, scope: str, low: float | None = None) -> Reading:
    return Reading(
        name=name, value=float(value), direction="lower", low=low, provenance="counted", source=_SOURCE, scope=scope
    )


def _layer(layer: Layer) -> Reading:
    if layer.macs is None:
        return unavailable("macs", layer.reason, place=layer.name)
    return replace(_counted("macs", layer.macs, layer.operator), place=layer.name)
