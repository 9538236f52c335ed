"""Says what a PyTorch model holds, and counts the multiply-accumulates (MACs) of its exported ATen graph.

The conventions are those of the ONNX counter: convolution, matrix products, attention and recurrent cells count, with
padding and the full attention square; biases, elementwise operators, normalization, softmax, pooling and data movement
don't. Counted before decomposition, so that CPU attention is one operator and not zero, as in PyTorch's own counter.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.core.errors import BadInput
from trimtab.core.values import Contents, Layer, Model, Signature, TensorSpec, Work, Workload, options
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, examples, export, first_line, import_torch, load_live, quiet

Product = tuple[int, Any]
"""MACs, and the graph node of the weight that they multiply with (None between activations)."""

_MOVES = (
    "t",
    "transpose",
    "permute",
    "numpy_T",
    "view",
    "reshape",
    "detach",
    "contiguous",
    "to",
    "alias",
    "unsqueeze",
    "squeeze",
)
_UNCOUNTED = re.compile(
    r"bilinear|trilinear|cdist|_?fft_|linalg_|_native_multi_head_attention|_weight_int\d|_int_mm|_scaled_mm"
)
_NO_COMPUTE = ("quantized_decomposed",)


def contents(model: Model, files: tuple[Path, ...]) -> Contents:
    """Return what a PyTorch module holds: kinds of layers, parameters by dtype (tied ones once), its version."""
    torch = import_torch("inspecting a PyTorch model")
    module = load_live(model)
    layers = Counter(type(layer).__name__ for layer in module.modules() if not list(layer.children()))
    parameters: Counter[str] = Counter()
    for parameter in module.parameters():
        parameters[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    low = sorted({type(layer).__name__ for layer in module.modules() if ".quantized" in type(layer).__module__})
    return Contents(
        files=files,
        operators=tuple(layers.most_common()),
        parameters=tuple(parameters.most_common()),
        quantization=f"layers of PyTorch's quantized kind ({', '.join(low)})" if low else None,
        facts=options(pytorch=torch.__version__),
    )


def work(model: Model, workload: Workload) -> Work:
    """Return the MACs of one call under the workload; sizes are propagated through the graph, nothing is computed.

    Raises:
        BadInput: The model can't be traced, or a free size is in no workload.
    """
    torch = import_torch("counting the work of a PyTorch model")
    shapes = workload.shapes(model.signature)
    free = sorted({size for shape in shapes.values() for size in shape if isinstance(size, str)})
    if free:
        raise BadInput(f"the sizes of {', '.join(free)} are free; give them as lengths of the workload")
    fixed = tuple(TensorSpec(name=s.name, dtype=s.dtype, shape=shapes[s.name]) for s in model.signature.inputs)
    live = load_live(model)
    if isinstance(live, torch.nn.Module):
        live = export(live, Signature(inputs=fixed, outputs=model.signature.outputs))
    return count(live, fixed)


def count(program: Any, inputs: Sequence[TensorSpec]) -> Work:
    """Return the MACs of one call of an exported program with inputs of the given fixed sizes."""
    torch = import_torch("counting the work of a PyTorch model")
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = program.module()
    seen: list[tuple[Any, Any]] = []
    base: Any = torch.fx.Interpreter

    class Recorder(base):  # type: ignore[misc] # torch is imported here, not at the top
        def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
            return None  # the guards on input sizes: they say what was traced, not what is computed

        def run_node(self, node: Any) -> Any:
            result = super().run_node(node)
            node.meta["now"] = result
            if node.op == "call_function":
                seen.append((node, result))
            return result

    try:
        with quiet(), torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            given = list(examples(inputs, {}).values())
            Recorder(module).run(*given, enable_io_processing=False)
    except FOREIGN_ERRORS as error:
        raise BadInput(f"this program can't be given inputs of these sizes ({first_line(error)})") from error
    layers = [_layer(node, result, module) for node, result in seen]
    others = Counter(_operator(node) for (node, _), layer in zip(seen, layers, strict=True) if layer is None)
    return Work(layers=tuple(layer for layer in layers if layer), excluded=tuple(others.most_common()))


def _operator(node: Any) -> str:
    name = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(name, "__name__", name))


def _layer(node: Any, result: Any, module: Any) -> Layer | None:
    """Return the layer of a graph node, None where it does no multiply-accumulates by convention."""
    operator, space = _operator(node), str(getattr(node.target, "namespace", "python"))
    rule = _RULES.get(operator) if space == "aten" else None
    if rule is None:
        known = space in ("aten", "prims", "python", *_NO_COMPUTE) and not _UNCOUNTED.match(operator)
        reason = f"no rule for {space}.{operator}"
        return None if known else Layer(name=node.name, operator=operator, macs=None, reason=reason)
    try:
        products = rule(node, result)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        return Layer(name=node.name, operator=operator, macs=None, reason=first_line(error))
    total = sum(macs for macs, _ in products)
    nonzero = sum(round(macs * _share(weight, module)) for macs, weight in products)
    return Layer(name=node.name, operator=operator, macs=total, nonzero=nonzero)


def _share(node: Any, module: Any) -> float:
    """Return the share of a weight's elements that aren't zero; 1 for activations."""
    while node is not None and node.op == "call_function" and _operator(node) in _MOVES:
        node = node.args[0]
    if node is None or node.op != "get_attr":
        return 1.0
    value = module
    for part in node.target.split("."):
        value = getattr(value, part)
    return float(value.count_nonzero()) / value.numel() if value.numel() else 1.0


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in node.meta["now"].shape)


def _argument(node: Any, position: int, name: str) -> Any:
    return node.args[position] if position < len(node.args) else node.kwargs[name]


def _size(result: Any) -> int:
    return math.prod(int(size) for size in result.shape)


def _convolution(node: Any, result: Any) -> list[Product]:
    weight = _argument(node, 1, "weight")
    shape = _shape(weight)
    transposed = "transpose" in _operator(node) or (_operator(node) == "convolution" and node.args[6])
    swept = math.prod(_shape(_argument(node, 0, "input"))) if transposed else _size(result)
    return [(swept * math.prod(shape) // shape[0], weight)]


def _product(left: int, right: int) -> Callable[[Any, Any], list[Product]]:
    """Return the rule for a matrix product whose factors are the arguments at these positions."""

    def rule(node: Any, result: Any) -> list[Product]:
        one, other = node.args[left], node.args[right]
        macs = _size(result) * _shape(one)[-1]
        return [(macs, other if _is_weight(other) else one if _is_weight(one) else None)]

    return rule


def _is_weight(node: Any) -> bool:
    while node.op == "call_function" and _operator(node) in _MOVES:
        node = node.args[0]
    return bool(node.op == "get_attr")


def _einsum(node: Any, result: Any) -> list[Product]:
    equation, factors = node.args[0].replace(" ", ""), node.args[1]
    terms = equation.partition("->")[0].split(",")
    if len(factors) != 2 or "." in equation:
        raise ValueError("einsum of other than two factors, or with an ellipsis")
    sizes = {letter: size for term, factor in zip(terms, factors, strict=True)
             for letter, size in zip(term, _shape(factor), strict=True)}  # fmt: skip
    return [(math.prod(sizes.values()), next((factor for factor in factors if _is_weight(factor)), None))]


def _attention(node: Any, result: Any) -> list[Product]:
    query, key, value = (_shape(_argument(node, at, name)) for at, name in enumerate(("query", "key", "value")))
    return [(math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]), None)]


def _recurrent(node: Any, result: Any) -> list[Product]:
    """Every weight matrix is used once per item and step; `gru.input(input, hx, params, …)`, `lstm` likewise."""
    steps = math.prod(_shape(node.args[0])[:-1])
    return [(steps * math.prod(_shape(weight)), weight) for weight in node.args[2] if len(_shape(weight)) == 2]


def _cell(node: Any, result: Any) -> list[Product]:
    items = math.prod(_shape(node.args[0])[:-1])
    return [(items * math.prod(_shape(weight)), weight) for weight in node.args[2:4]]


def _encoder_layer(node: Any, result: Any) -> list[Product]:
    """`_transformer_encoder_layer_fwd(src, width, heads, qkv_w, qkv_b, proj_w, proj_b, …, ffn_w1, b, ffn_w2, b)`."""
    batch, length, width = _shape(node.args[0])
    weights = [node.args[at] for at in (3, 5, 14, 16)]
    dense = [(batch * length * math.prod(_shape(weight)), weight) for weight in weights]
    return [*dense, (2 * batch * length * length * width, None)]


_RULES: Mapping[str, Callable[[Any, Any], list[Product]]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _convolution),
    **dict.fromkeys(("linear", "matmul", "mm", "bmm", "mv", "dot", "inner"), _product(0, 1)),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv"), _product(1, 2)),
    **dict.fromkeys(("gru", "lstm", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("gru_cell", "lstm_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "_transformer_encoder_layer_fwd": _encoder_layer,
}
