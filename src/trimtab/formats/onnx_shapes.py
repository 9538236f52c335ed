"""Walks an ONNX graph in order and says of every node what goes in and out: shapes, and small constants.

Shapes are inferred node by node, with the sizes of free dimensions filled in. Sizes that the graph computes itself
(Shape → Gather → Concat → Reshape) are followed by evaluating those small nodes; subgraphs are followed with the sizes
that enter them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.formats import graph as graphs
from trimtab.formats.macs import MALFORMED
from trimtab.formats.onnx_inference import Scope, Shape, Value, Visit, declared, domain_of, infer

if TYPE_CHECKING:
    import onnx

_LARGEST = 4096  # elements of a constant that is followed


def walk(
    proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int | str]], folder: Path | None = None
) -> tuple[Visit, ...]:
    """Return the visits of a model's nodes in order.

    Args:
        proto: The model; it is not changed.
        shapes: The shapes of its inputs by name; a name stands for a size that is not known.
        folder: Where external data lie; without it, constants kept in other files are not followed.
    """
    import onnx.inliner

    light = graphs.outline(proto)
    if light.functions:
        light = onnx.inliner.inline_local_functions(light)
    known = {
        name: tuple(size if isinstance(size, int) else None for size in given_shape)
        for name, given_shape in shapes.items()
    }
    sizes: dict[str, int] = {}
    for given in light.graph.input:
        dims = given.type.tensor_type.shape.dim
        pairs = zip(dims, known.get(given.name, ()), strict=False)
        sizes |= {dim.dim_param: size for dim, size in pairs if dim.dim_param and size is not None}
    scope = Scope()
    for given in light.graph.input:
        value = declared(given.type, sizes)
        scope.values[given.name] = replace(value, shape=known.get(given.name, value.shape)) if value.shape else value
    opsets = {domain_of(opset): opset.version for opset in light.opset_import}
    walker = _Walker(opsets, folder, {weight.name: weight for weight in proto.graph.initializer}, sizes)
    return walker.graph(light.graph, scope)


@dataclass(frozen=True, slots=True)
class _Walker:
    """Visits graphs of one model.

    `originals` are its initializers with their content, which the outline lacks; `sizes` those of named dimensions.
    """

    opsets: dict[str, int]
    folder: Path | None
    originals: dict[str, onnx.TensorProto]
    sizes: dict[str, int]

    def graph(self, graph: onnx.GraphProto, scope: Scope) -> tuple[Visit, ...]:
        """Visit a graph; `scope` holds the values of its inputs and is filled with all others."""
        for tensor in graph.initializer:
            scope.weights[tensor.name] = self.originals.get(tensor.name, tensor)
            scope.values[tensor.name] = self._weight(tensor)
        for sparse in graph.sparse_initializer:
            scope.values[sparse.values.name] = Value(sparse.values.data_type, tuple(sparse.dims))
        written = {info.name: declared(info.type, self.sizes) for info in (*graph.value_info, *graph.output)}
        visits = []
        for node in graph.node:
            visit = self._visit(node, scope)
            outputs = itertools.chain(visit.outputs, itertools.repeat(Value()))
            for name, found in zip(node.output, outputs, strict=False):
                if name:
                    unknown = found.shape is None and found.other is None
                    scope.values[name] = written.get(name, found) if unknown else found
                    scope.producers[name] = node
            visits.append(replace(visit, outputs=tuple(scope.values.get(name, Value()) for name in node.output)))
        return tuple(visits)

    def _weight(self, tensor: onnx.TensorProto) -> Value:
        shape = tuple(tensor.dims)
        small = math.prod(shape) <= _LARGEST and tensor.data_type != tensor.STRING
        content = graphs.array(tensor, self.folder) if small else None
        return Value(tensor.data_type, shape, content)

    def _visit(self, node: onnx.NodeProto, scope: Scope) -> Visit:
        inputs = tuple(scope.values.get(name, Value()) if name else Value() for name in node.input)
        made = Visit(node, inputs, (), scope)
        branches = not domain_of(node) and node.op_type in _CONTROL
        try:
            return _CONTROL[node.op_type](self, made) if branches else replace(made, outputs=self._infer(made))
        except MALFORMED:
            return replace(made, times=None if branches else 1)

    def _infer(self, visit: Visit) -> tuple[Value, ...]:
        node = visit.node
        key = (domain_of(node), node.op_type)
        if key == ("", "Constant"):
            return (self._constant(node, visit.scope),)
        if key == ("", "Shape") and visit.inputs[0].shape is not None:
            return (_shape_of(node, visit.inputs[0].shape),)
        outputs = infer(visit, self.opsets.get(key[0], 1))
        return self._fold(visit, outputs) if node.op_type in _FOLDED and not key[0] else outputs

    def _constant(self, node: onnx.NodeProto, scope: Scope) -> Value:
        import onnx

        given = node.attribute[0]
        if given.name == "value":
            scope.weights[node.output[0]] = given.t
            return self._weight(given.t)
        if given.name == "sparse_value":
            return Value(given.sparse_tensor.values.data_type, tuple(given.sparse_tensor.dims))
        value = onnx.helper.get_attribute_value(given)
        if given.name.startswith("value_string"):
            return Value(onnx.TensorProto.STRING, () if given.name == "value_string" else (len(value),))
        content = np.asarray(value, np.float32 if "float" in given.name else np.int64)
        return Value(onnx.helper.np_dtype_to_tensor_dtype(content.dtype), content.shape, content)

    def _fold(self, visit: Visit, outputs: tuple[Value, ...]) -> tuple[Value, ...]:
        """Evaluate a small node whose inputs are all known."""
        from onnx.reference import ReferenceEvaluator

        given = {name: value.content for name, value in zip(visit.node.input, visit.inputs, strict=True) if name}
        if any(content is None for content in given.values()) or not all(_is_small(visit, value) for value in outputs):
            return outputs
        try:
            results = ReferenceEvaluator(visit.node, opsets=self.opsets or {"": 1}).run(None, given)
        except _EVALUATION_ERRORS:
            return outputs
        return tuple(
            replace(value, shape=np.shape(result), content=np.asarray(result)) if np.size(result) <= _LARGEST else value
            for value, result in zip(outputs, results, strict=True)
        )

    def branch(self, visit: Visit) -> Visit:
        """Visit both branches of an If, or the one that is taken when that is known."""
        chosen = visit.inputs[0].content
        named = {found.name: found.g for found in visit.node.attribute}
        taken = [named["then_branch"], named["else_branch"]]
        if chosen is not None and chosen.size == 1:
            taken = taken[:1] if bool(chosen.reshape(())) else taken[1:]
        results = []
        visits = []
        for body in taken:
            scope = visit.scope.inner()
            visits.append(self.graph(body, scope))
            results.append(_results(body, scope))
        return replace(visit, bodies=tuple(visits), outputs=tuple(map(_merge, zip(*results, strict=False))))

    def loop(self, visit: Visit) -> Visit:
        """Visit the body of a Loop, run as often as its trip count says when its condition can't end it early."""
        import onnx

        body = graphs.attribute(visit.node, "body")
        limit = visit.inputs[0].content if visit.has(0) else None
        stays = not visit.has(1) or (visit.inputs[1].content is not None and bool(visit.inputs[1].content.all()))
        carried = [replace(value, content=None) for value in visit.inputs[2:]]
        true = Value(onnx.TensorProto.BOOL, (), np.asarray(True) if stays else None)
        inside, ends, scope = self._turn(body, visit.scope, [Value(onnx.TensorProto.INT64, ()), true], carried, 1)
        condition = scope.values.get(body.output[0].name, Value()).content
        steady = stays and condition is not None and bool(condition.all())
        times = int(limit.reshape(())) if steady and limit is not None else None
        stacked = [_stack(end, times, 0) for end in ends[len(carried) :]]
        return replace(visit, bodies=(inside,), times=times, outputs=(*ends[: len(carried)], *stacked))

    def scan(self, visit: Visit) -> Visit:
        """Visit the body of a Scan, run once per slice of its scanned inputs."""
        if self.opsets.get("", 1) < 9:
            return replace(visit, times=None)
        body = graphs.attribute(visit.node, "body")
        scanned = graphs.attribute(visit.node, "num_scan_inputs", 0)
        count = len(visit.inputs) - scanned
        axes = graphs.attribute(visit.node, "scan_input_axes") or [0] * scanned
        states = [replace(value, content=None) for value in visit.inputs[:count]]
        pairs = list(zip(visit.inputs[count:], axes, strict=False))
        lengths = [value.shape[axis] for value, axis in pairs if value.shape is not None]
        slices = [_slice(value, axis) for value, axis in pairs]
        inside, ends, _ = self._turn(body, visit.scope, [], states, 0, slices)
        times = next((length for length in lengths if length is not None), None)
        places = graphs.attribute(visit.node, "scan_output_axes") or [0] * (len(ends) - count)
        stacked = [_stack(end, times, axis) for end, axis in zip(ends[count:], places, strict=False)]
        return replace(visit, bodies=(inside,), times=times, outputs=(*ends[:count], *stacked))

    def _turn(
        self, body: Any, outer: Scope, first: list[Value], carried: list[Value], skip: int, slices: Sequence[Value] = ()
    ) -> tuple[tuple[Visit, ...], list[Value], Scope]:
        """Visit a body once; sizes that change from turn to turn are visited again as unknown."""
        for _ in range(2):
            scope = outer.inner()
            given = [*first, *carried, *slices]
            scope.values.update({info.name: value for info, value in zip(body.input, given, strict=False)})
            visits = self.graph(body, scope)
            ends = _results(body, scope)[skip:]
            merged = [_merge(pair) for pair in zip(carried, ends, strict=False)]
            if merged == carried:
                break
            carried = merged
        return visits, [*carried, *ends[len(carried) :]], scope


_CONTROL: dict[str, Callable[[_Walker, Visit], Visit]] = {
    "If": _Walker.branch,
    "Loop": _Walker.loop,
    "Scan": _Walker.scan,
    "SequenceMap": lambda _, visit: replace(visit, times=None),
}

_FOLDED = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "CumSum", "Div", "Equal", "Expand", "Floor",
    "Gather", "GatherND", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod",
    "Mul", "Neg", "NonZero", "Not", "Or", "Pow", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum",
    "Reshape", "Round", "ScatterND", "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose",
    "Unsqueeze", "Where",
})  # fmt: skip
_EVALUATION_ERRORS = (*MALFORMED, ArithmeticError, RuntimeError, AssertionError, ImportError)


def _shape_of(node: onnx.NodeProto, shape: Shape) -> Value:
    import onnx

    taken = shape[graphs.attribute(node, "start", 0) : graphs.attribute(node, "end", len(shape))]
    known = tuple(size for size in taken if size is not None)
    content = np.asarray(known, np.int64) if len(known) == len(taken) else None
    return Value(onnx.TensorProto.INT64, (len(taken),), content)


def _is_small(visit: Visit, output: Value) -> bool:
    """Say whether an output is known to be small; of small inputs only a few operators make large outputs."""
    if output.shape is None or None in output.shape:
        return visit.node.op_type not in ("ConstantOfShape", "Expand", "Range", "Tile")
    return math.prod(size or 0 for size in output.shape) <= _LARGEST


def _results(body: onnx.GraphProto, scope: Scope) -> list[Value]:
    """Return what leaves a subgraph; its content may differ from turn to turn, or between branches."""
    return [replace(scope.values.get(output.name, Value()), content=None) for output in body.output]


def _merge(options: Sequence[Value]) -> Value:
    first, *rest = options
    for other in rest:
        if first.shape is None or other.shape is None or len(first.shape) != len(other.shape):
            return Value(first.elements, other=first.other)
        shape = tuple(a if a == b else None for a, b in zip(first.shape, other.shape, strict=True))
        first = Value(first.elements, shape)
    return first


def _stack(value: Value, times: int | None, axis: int) -> Value:
    if value.shape is None:
        return value
    at = axis if axis >= 0 else len(value.shape) + 1 + axis
    return replace(value, shape=(*value.shape[:at], times, *value.shape[at:]))


def _slice(value: Value, axis: int) -> Value:
    if value.shape is None:
        return replace(value, content=None)
    at = axis % len(value.shape)
    return Value(value.elements, (*value.shape[:at], *value.shape[at + 1 :]))
