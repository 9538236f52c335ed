"""Runs ONNX graphs with PyTorch, one operator at a time, so that gradients flow through them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trimtab.core.errors import BadInput
from trimtab.formats.onnx_inference import domain_of
from trimtab.formats.torch_tracing import import_torch

if TYPE_CHECKING:
    import onnx

Attributes = Mapping[str, Any]
Operator = Callable[..., Any]
"""Takes the module `torch`, the attributes of a node and its inputs (None where one is left out)."""


class Graph:
    """The nodes of an ONNX graph as PyTorch runs them.

    Args:
        nodes: in the order in which they run.
        outputs: names of what is to be returned.
        others: operators by type that are meant otherwise than ONNX says.

    Raises:
        BadInput: an operator, or what it is told by its attributes, is not among those that can be run.
    """

    def __init__(
        self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str], others: Mapping[str, Operator] | None = None
    ) -> None:
        self._torch, self._outputs, self._others = import_torch("running an ONNX graph"), tuple(outputs), others or {}
        self._nodes = [
            (_operator(node, self._others), _told(node), tuple(node.input), tuple(node.output)) for node in nodes
        ]
        last = {name: number for number, (_, _, inputs, _) in enumerate(self._nodes) for name in inputs}
        for name in self._outputs:
            last.pop(name, None)
        self._done: dict[int, list[str]] = {}
        for name, number in last.items():
            self._done.setdefault(number, []).append(name)

    def __call__(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs by name, given inputs and weights by name."""
        values: dict[str, Any] = {**given, "": None}
        for number, (run, told, inputs, outputs) in enumerate(self._nodes):
            found = run(self._torch, told, *(values[name] for name in inputs))
            values.update(zip(outputs, found if isinstance(found, tuple | list) else (found,), strict=False))
            for name in self._done.get(number, ()):
                if name:
                    values.pop(name, None)
        return {name: values[name] for name in self._outputs}


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node by name, text as `str`."""
    from onnx import helper

    found = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def _told(node: onnx.NodeProto) -> dict[str, Any]:
    """Return what a node tells: its attributes and, as some operators don't say it, the number of its outputs."""
    return {"num_outputs": len(node.output), **attributes(node)}


def tensor_of(proto: onnx.TensorProto) -> Any:
    """Return the content of an ONNX tensor as a PyTorch tensor."""
    from onnx import numpy_helper

    return import_torch("running an ONNX graph").from_numpy(numpy_helper.to_array(proto).copy())


def _operator(node: onnx.NodeProto, others: Mapping[str, Operator]) -> Operator:
    known = others.get(node.op_type) or OPERATORS.get(node.op_type)
    if known is None or domain_of(node):
        raise BadInput(f"the operator {node.op_type} ({node.name}) can't be trained here")
    if attributes(node).get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise BadInput(f"the padding of {node.name} depends on the size of its input; give it in numbers")
    return known


def _sides(told: Attributes, spatial: int) -> tuple[list[int], list[int]]:
    pads = list(told.get("pads", [0] * 2 * spatial))
    return pads[:spatial], pads[spatial:]


def _padded(torch: Any, x: Any, told: Attributes, spatial: int, value: float = 0.0) -> tuple[Any, list[int]]:
    """Return x with what padding differs between its sides, and the padding that is left, alike on both."""
    before, after = _sides(told, spatial)
    if before == after:
        return x, before
    pads = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    return torch.nn.functional.pad(x, pads, value=value), [0] * spatial


def _conv(torch: Any, told: Attributes, x: Any, weight: Any, bias: Any = None) -> Any:
    spatial = x.ndim - 2
    x, pads = _padded(torch, x, told, spatial)
    run = getattr(torch.nn.functional, f"conv{spatial}d")
    ones = [1] * spatial
    return run(x, weight, bias, told.get("strides", ones), pads, told.get("dilations", ones), told.get("group", 1))


def _conv_transpose(torch: Any, told: Attributes, x: Any, weight: Any, bias: Any = None) -> Any:
    spatial = x.ndim - 2
    before, after = _sides(told, spatial)
    if before != after or "output_shape" in told:
        raise BadInput("a transposed convolution that pads its sides differently can't be trained here")
    ones, run = [1] * spatial, getattr(torch.nn.functional, f"conv_transpose{spatial}d")
    more = told.get("output_padding", [0] * spatial)
    group, dilations = told.get("group", 1), told.get("dilations", ones)
    return run(x, weight, bias, told.get("strides", ones), before, more, group, dilations)


def _max_pool(torch: Any, told: Attributes, x: Any) -> Any:
    size = told["kernel_shape"]
    x, pads = _padded(torch, x, told, len(size), -math.inf)
    ones, run = [1] * len(size), getattr(torch.nn.functional, f"max_pool{len(size)}d")
    return run(x, size, told.get("strides", ones), pads, told.get("dilations", ones), bool(told.get("ceil_mode", 0)))


def _average_pool(torch: Any, told: Attributes, x: Any) -> Any:
    size, counts = told["kernel_shape"], bool(told.get("count_include_pad", 0))
    before, after = _sides(told, len(size))
    if before != after or set(told.get("dilations", [1])) != {1}:
        raise BadInput("an average over windows that are padded differently, or dilated, can't be trained here")
    run = getattr(torch.nn.functional, f"avg_pool{len(size)}d")
    return run(x, size, told.get("strides", [1] * len(size)), before, bool(told.get("ceil_mode", 0)), counts)


def _gemm(torch: Any, told: Attributes, a: Any, b: Any, c: Any = None) -> Any:
    a, b = (each.T if told.get(name) else each for each, name in ((a, "transA"), (b, "transB")))
    found = told.get("alpha", 1.0) * (a @ b) if told.get("alpha", 1.0) != 1.0 else a @ b
    return found if c is None else found + (c if told.get("beta", 1.0) == 1.0 else told["beta"] * c)


def _layer_norm(torch: Any, told: Attributes, x: Any, scale: Any, bias: Any = None) -> Any:
    shape = x.shape[told.get("axis", -1) :]
    return torch.nn.functional.layer_norm(x, shape, scale, bias, told.get("epsilon", 1e-5))


def _batch_norm(torch: Any, told: Attributes, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    return torch.nn.functional.batch_norm(x, mean, var, scale, bias, eps=told.get("epsilon", 1e-5))


def _instance_norm(torch: Any, told: Attributes, x: Any, scale: Any, bias: Any) -> Any:
    return torch.nn.functional.instance_norm(x, weight=scale, bias=bias, eps=told.get("epsilon", 1e-5))


def _axes(told: Attributes, given: Any) -> list[int] | None:
    found = told.get("axes") if given is None else given.tolist()
    return list(found) if found else None


def _reduced(name: str) -> Operator:
    def run(torch: Any, told: Attributes, x: Any, axes: Any = None) -> Any:
        dims = _axes(told, axes)
        if dims is None and told.get("noop_with_empty_axes"):
            return x
        return getattr(torch, name)(x, list(range(x.ndim)) if dims is None else dims, bool(told.get("keepdims", 1)))

    return run


def _reshape(torch: Any, told: Attributes, x: Any, shape: Any) -> Any:
    sizes = shape.tolist()
    if not told.get("allowzero"):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(torch: Any, told: Attributes, x: Any) -> Any:
    return x.reshape(math.prod(x.shape[: told.get("axis", 1)]), -1)


def _squeeze(torch: Any, told: Attributes, x: Any, axes: Any = None) -> Any:
    dims = _axes(told, axes)
    return x.squeeze() if dims is None else x.squeeze(dims)


def _unsqueeze(torch: Any, told: Attributes, x: Any, axes: Any = None) -> Any:
    dims = _axes(told, axes) or []
    for axis in sorted(axis % (x.ndim + len(dims)) for axis in dims):
        x = x.unsqueeze(axis)
    return x


def _split(torch: Any, told: Attributes, x: Any, sizes: Any = None) -> Any:
    axis, given = told.get("axis", 0), told.get("split") if sizes is None else sizes.tolist()
    return torch.split(x, given or -(-x.shape[axis] // told["num_outputs"]), axis)


def _slice(torch: Any, told: Attributes, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    where = range(len(starts)) if axes is None else axes.tolist()
    by = [1] * len(starts) if steps is None else steps.tolist()
    for axis, start, end, step in zip(where, starts.tolist(), ends.tolist(), by, strict=True):
        places = range(*slice(start, end if step > 0 or end >= -x.shape[axis] else None, step).indices(x.shape[axis]))
        x = x.index_select(axis, torch.tensor(places, dtype=torch.int64)) if step != 1 else _narrow(x, axis, places)
    return x


def _narrow(x: Any, axis: int, places: range) -> Any:
    return x.narrow(axis, places.start, len(places))


def _gather(torch: Any, told: Attributes, x: Any, places: Any) -> Any:
    axis = told.get("axis", 0) % x.ndim
    found = x.index_select(axis, (places % x.shape[axis]).reshape(-1).long())
    return found.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


def _gather_elements(torch: Any, told: Attributes, x: Any, places: Any) -> Any:
    axis = told.get("axis", 0)
    return torch.gather(x, axis, (places % x.shape[axis]).long())


def _gather_nd(torch: Any, told: Attributes, x: Any, places: Any) -> Any:
    shared = told.get("batch_dims", 0)
    if shared:
        pairs = zip(x.flatten(0, shared - 1), places.flatten(0, shared - 1), strict=True)
        found = torch.stack([_gather_nd(torch, {}, one, where) for one, where in pairs])
        return found.reshape(*x.shape[:shared], *found.shape[1:])
    return x[tuple(places.long().unbind(-1))]


def _pad(torch: Any, told: Attributes, x: Any, pads: Any, value: Any = None, axes: Any = None) -> Any:
    sizes, where = pads.tolist(), range(x.ndim) if axes is None else [axis % x.ndim for axis in axes.tolist()]
    of = {axis: (sizes[place], sizes[place + len(where)]) for place, axis in enumerate(where)}
    flat = [side for axis in reversed(range(x.ndim)) for side in of.get(axis, (0, 0))]
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[told.get("mode", "constant")]
    if mode == "constant":
        return torch.nn.functional.pad(x, flat, value=0.0 if value is None else value.item())
    while flat[-2:] == [0, 0]:
        flat = flat[:-2]
    return torch.nn.functional.pad(x, flat, mode=mode)


def _div(torch: Any, told: Attributes, a: Any, b: Any) -> Any:
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def _clip(torch: Any, told: Attributes, x: Any, low: Any = None, high: Any = None) -> Any:
    return x if low is None and high is None else torch.clamp(x, low, high)


def _cast(torch: Any, told: Attributes, x: Any, like: Any = None) -> Any:
    from onnx import helper

    if like is not None:
        return x.to(like.dtype)
    return x.to(getattr(torch, str(helper.tensor_dtype_to_np_dtype(told["to"]))))


def _constant(torch: Any, told: Attributes) -> Any:
    if "value" in told:
        return tensor_of(told["value"])
    kinds = {"value_int": torch.int64, "value_ints": torch.int64}
    name, value = next((name, value) for name, value in told.items() if name.startswith("value"))
    return torch.tensor(value, dtype=kinds.get(name, torch.float32))


def _filled(torch: Any, told: Attributes, shape: Any) -> Any:
    value = tensor_of(told["value"]) if "value" in told else torch.zeros(1)
    return torch.full(shape.tolist(), value.item(), dtype=value.dtype)


def _shape(torch: Any, told: Attributes, x: Any) -> Any:
    return torch.tensor(x.shape[slice(told.get("start", 0), told.get("end"))], dtype=torch.int64)


def _expand(torch: Any, told: Attributes, x: Any, shape: Any) -> Any:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape.tolist())))


def _prelu(torch: Any, told: Attributes, x: Any, slope: Any) -> Any:
    return torch.where(x < 0, x * slope, x)


def _most(name: str) -> Operator:
    def run(torch: Any, told: Attributes, first: Any, *more: Any) -> Any:
        for each in more:
            first = getattr(torch, name)(first, each)
        return first

    return run


def _plain(name: str) -> Operator:
    """Return an operator that PyTorch has under that name, without attributes."""
    return lambda torch, told, *given: getattr(torch, name)(*given)


_NAMES = {
    "Abs": "abs", "Add": "add", "And": "logical_and", "Ceil": "ceil", "Cos": "cos", "Equal": "eq", "Erf": "erf",
    "Exp": "exp", "Floor": "floor", "Greater": "gt", "GreaterOrEqual": "ge", "IsNaN": "isnan", "Less": "lt",
    "LessOrEqual": "le", "Log": "log", "MatMul": "matmul", "Mul": "mul", "Neg": "neg", "Not": "logical_not",
    "Or": "logical_or", "Reciprocal": "reciprocal", "Relu": "relu", "Round": "round",
    "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin", "Sqrt": "sqrt", "Sub": "sub", "Tanh": "tanh", "Where": "where",
}  # fmt: skip

OPERATORS: dict[str, Operator] = {
    **{name: _plain(own) for name, own in _NAMES.items()},
    **{f"Reduce{name}": _reduced(own) for name, own in (("Mean", "mean"), ("Sum", "sum"), ("Max", "amax"))},
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "Concat": lambda torch, told, *given: torch.cat(given, told["axis"]),
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _div,
    "Dropout": lambda torch, told, x, *rest: x,
    "Elu": lambda torch, told, x: torch.nn.functional.elu(x, told.get("alpha", 1.0)),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gelu": lambda torch, told, x: torch.nn.functional.gelu(x, approximate=told.get("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda torch, told, x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda torch, told, x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
    "HardSigmoid": lambda torch, told, x: (told.get("alpha", 0.2) * x + told.get("beta", 0.5)).clamp(0.0, 1.0),
    "HardSwish": lambda torch, told, x: torch.nn.functional.hardswish(x),
    "Identity": lambda torch, told, x: x,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda torch, told, x: torch.nn.functional.leaky_relu(x, told.get("alpha", 0.01)),
    "LogSoftmax": lambda torch, told, x: torch.log_softmax(x, told.get("axis", -1)),
    "Max": _most("maximum"),
    "MaxPool": _max_pool,
    "Min": _most("minimum"),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": lambda torch, told, x, by: torch.pow(x, by).to(x.dtype),
    "Range": lambda torch, told, *given: torch.arange(*(each.item() for each in given), dtype=given[0].dtype),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": lambda torch, told, x: torch.softmax(x, told.get("axis", -1)),
    "Softplus": lambda torch, told, x: torch.nn.functional.softplus(x),
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda torch, told, x, times: x.repeat(times.tolist()),
    "Transpose": lambda torch, told, x: x.permute(told.get("perm", list(range(x.ndim))[::-1])),
    "Unsqueeze": _unsqueeze,
}
"""What PyTorch runs of ONNX's own operators, as they are since opset 13: enough for what classifiers are made of."""
