"""Says what a PyTorch model holds, and counts the multiply-accumulates (MACs) of its exported ATen graph.

`formats/macs.py` says what counts. Counted before decomposition, so that CPU attention is one operator and not zero, as
in PyTorch's own counter.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trimtab.core.errors import BadInput
from trimtab.core.values import Contents, Layer, Model, Signature, TensorSpec, Work, Workload, options
from trimtab.formats.macs import Part, Share, UnknownError, counted, einsum_macs, uncounted
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, examples, export, first_line, import_torch, load_live, quiet

_MOVES = ("t", "transpose", "permute", "numpy_T", "view", "reshape", "detach", "contiguous", "to", "alias", "unsqueeze",
          "squeeze")  # fmt: skip
_UNCOUNTED = re.compile(
    r"bilinear|trilinear|cdist|_?fft_|linalg_|_native_multi_head_attention|_weight_int\d|_int_mm|_scaled_mm"
)
_SPACES = ("aten", "prims", "python", "quantized_decomposed")
"""Whose operators do no multiply-accumulates unless there is a rule for them, or they are among the uncounted."""


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
        """Propagates sizes through the graph and remembers every operator with what it makes."""

        def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
            """Pass over the guards on input sizes: they say what was traced, not what is computed."""
            return None

        def run_node(self, node: Any) -> Any:
            """Run a node and remember its result."""
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
    layers: list[Layer] = []
    excluded: Counter[str] = Counter()
    for node, result in seen:
        operator, space = _operator(node), str(getattr(node.target, "namespace", "python"))
        if space == "aten" and operator in _RULES:
            rule = partial(_RULES[operator], node, result)
            layers.append(counted(node.name, operator, rule, lambda _, weight: _share(weight, module)))
        elif space not in _SPACES or _UNCOUNTED.match(operator):
            layers.append(uncounted(node.name, operator, f"there is no rule for {space}.{operator}"))
        else:
            excluded[operator] += 1
    return Work(layers=tuple(layers), excluded=tuple(excluded.most_common()))


def _operator(node: Any) -> str:
    name = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(name, "__name__", name))


def _share(node: Any, module: Any) -> Share:
    """Follow an argument back to a weight, through what only moves its elements."""
    while node.op == "call_function" and _operator(node) in _MOVES:
        node = node.args[0]
    if node.op != "get_attr":
        return (1, 1)
    value = module
    for part in node.target.split("."):
        value = getattr(value, part)
    return (int(value.count_nonzero()), value.numel()) if value.numel() else (1, 1)


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in node.meta["now"].shape)


def _argument(node: Any, position: int, name: str) -> Any:
    return node.args[position] if position < len(node.args) else node.kwargs[name]


def _size(result: Any) -> int:
    return math.prod(int(size) for size in result.shape)


def _convolution(node: Any, result: Any) -> list[Part]:
    weight = _argument(node, 1, "weight")
    shape = _shape(weight)
    transposed = "transpose" in _operator(node) or (_operator(node) == "convolution" and node.args[6])
    swept = math.prod(_shape(_argument(node, 0, "input"))) if transposed else _size(result)
    return [Part(swept * math.prod(shape) // shape[0], (weight,))]


def _product(node: Any, result: Any, left: int = 0, right: int = 1) -> list[Part]:
    """A matrix product whose factors are the arguments at these positions."""
    one, other = node.args[left], node.args[right]
    return [Part(_size(result) * _shape(one)[-1], (one, other))]


def _summed_product(node: Any, result: Any) -> list[Part]:
    """`addbmm(input, batch1, batch2)`, which adds up the products of all items."""
    one, other = node.args[1:3]
    return [Part(math.prod(_shape(one)) * _shape(other)[-1], (one, other))]


def _einsum(node: Any, result: Any) -> list[Part]:
    equation, factors = node.args[:2]
    return [Part(einsum_macs(equation, [_shape(factor) for factor in factors]), tuple(factors))]


def _attention(node: Any, result: Any) -> list[Part]:
    query, key, value = (_shape(_argument(node, at, name)) for at, name in enumerate(("query", "key", "value")))
    return [Part(math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))]


def _recurrent(node: Any, result: Any) -> list[Part]:
    """Every weight matrix is used once per item and step; `gru.input(input, hx, params, …)`, `lstm` likewise."""
    steps = math.prod(_shape(node.args[0])[:-1])
    weights = [weight for weight in node.args[2] if len(_shape(weight)) == 2]
    if not weights:
        raise UnknownError("its weights are not where they should be: the sequences are packed")
    return [Part(steps * math.prod(_shape(weight)), (weight,)) for weight in weights]


def _cell(node: Any, result: Any) -> list[Part]:
    items = math.prod(_shape(node.args[0])[:-1])
    return [Part(items * math.prod(_shape(weight)), (weight,)) for weight in node.args[2:4]]


def _encoder_layer(node: Any, result: Any) -> list[Part]:
    """`_transformer_encoder_layer_fwd(src, width, heads, qkv_w, qkv_b, proj_w, proj_b, …, ffn_w1, b, ffn_w2, b)`."""
    batch, length, width = _shape(node.args[0])
    weights = [node.args[at] for at in (3, 5, 14, 16)]
    dense = [Part(batch * length * math.prod(_shape(weight)), (weight,)) for weight in weights]
    return [*dense, Part(2 * batch * length * length * width)]


_RULES: dict[str, Callable[[Any, Any], list[Part]]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _convolution),
    **dict.fromkeys(("linear", "matmul", "mm", "bmm", "mv", "dot", "inner"), _product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), partial(_product, left=1, right=2)),
    "addbmm": _summed_product,
    **dict.fromkeys(("gru", "lstm", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("gru_cell", "lstm_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "_transformer_encoder_layer_fwd": _encoder_layer,
}
