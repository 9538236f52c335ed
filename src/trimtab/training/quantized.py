"""A network as it computes once it is quantized, and trained through that: fake quantization of an ONNX graph.

Rounding passes gradients on as if it were not there (the straight-through estimator, Bengio et al. 2013); where a value
is clipped it gets none. Scales are learnt as well (Esser et al. 2020, "Learned step size quantization"), by their
logarithms (Jain et al. 2020): steps of an optimizer are then shares of a range, whatever its size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.formats.onnx_torch import Attributes, Graph, attributes, tensor_of
from trimtab.formats.torch_tracing import import_torch

if TYPE_CHECKING:
    import onnx

_QUANTIZED = "_quantized"  # what ONNX Runtime adds to the name of a weight
_MOMENTUM = 0.01  # of observed ranges, per batch (Krishnamoorthi 2018)
_TINY = 1e-12
_CUTS = ("Relu", "Clip")  # what ONNX Runtime leaves to the range of the next rounding
_LEARNT = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1), "Add": (0, 1), "PRelu": (1,),
    "LayerNormalization": (1, 2), "InstanceNormalization": (1, 2),
}  # fmt: skip
"""Which inputs of which operators are weights; of an addition only vectors are: others may be masks or positions."""


def fake_quantized(x: Any, scale: Any, low: Any, high: Any) -> Any:
    """Return x rounded to whole steps of `scale`, at least `low` and at most `high` of them, as floats.

    Gradients go to x where it isn't clipped, and to the scale as LSQ says: by what rounding changed, or by the bound.
    """
    return _rounding().apply(x, scale, low, high)


@functools.cache
def _rounding() -> Any:
    """Return the rounding with its gradients: written out, they take a third of the passes that autograd's would."""
    torch = import_torch("quantization-aware training")

    class Rounding(torch.autograd.Function):  # type: ignore[misc, name-defined] # PyTorch is not known to mypy
        @staticmethod
        def forward(context: Any, x: Any, scale: Any, low: Any, high: Any) -> Any:
            found = (x / scale).round_().clamp_(low, high).mul_(scale)
            context.save_for_backward(x, scale, found, low * scale, high * scale)
            return found

        @staticmethod
        def backward(context: Any, gradient: Any) -> tuple[Any, ...]:
            x, scale, found, low, high = context.saved_tensors
            passed = gradient * ((x >= low) & (x <= high))
            if not context.needs_input_grad[1]:
                return passed, None, None, None
            change = (gradient * found).sub_(passed * x).div_(scale)
            return passed, change.sum_to_size(scale.shape), None, None

    return Rounding


def evened(scale: Any, count: int, levels: int) -> Any:
    """Return a scale whose gradient is divided by √(values × levels), so that it learns about as fast as weights do."""
    part = scale / math.sqrt(max(count, 1) * levels)
    return part - part.detach() + scale.detach()


def spread(values: Any, axis: int, axes: int) -> Any:
    """Return one value for each channel in a shape that goes with a tensor of that many axes; -1 is one for all."""
    return values if axis < 0 or not values.ndim else values.reshape([-1 if a == axis else 1 for a in range(axes)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A weight of `low` to `high` whole steps, zero at zero, and a scale for each channel along `axis` (-1: one)."""

    tensor: Any
    log_scale: Any
    axis: int
    low: int
    high: int
    name: str
    scale_name: str

    def scale(self) -> Any:
        """Return the scale, of the shape that the file keeps: the learnt one, or that of the largest magnitudes."""
        if self.log_scale is not None:
            return self.log_scale.exp()
        others = [axis for axis in range(self.tensor.ndim) if axis != self.axis]
        largest = self.tensor.detach().abs()
        return (largest.amax(others) if self.axis >= 0 else largest.amax()).clamp(min=_TINY) / self.high

    def __call__(self) -> Any:
        """Return the weight as it is after quantization, with its graph."""
        scale = self.scale()
        even = evened(scale, self.tensor.numel() // max(scale.numel(), 1), self.high)
        return fake_quantized(self.tensor, spread(even, self.axis, self.tensor.ndim), self.low, self.high)

    def whole(self) -> Any:
        """Return the weight as the whole numbers that the file keeps."""
        scale = spread(self.scale(), self.axis, self.tensor.ndim)
        return (self.tensor / scale).round().clamp(self.low, self.high)


class Activation:
    """The range of an activation: learnt with its zero point fixed, or followed as a moving average (Jacob 2018).

    `cut` names the operator that the range has taken the place of, None where there is none: what lies below zero for a
    Relu, or outside of the first range for a Clip, is not to be followed.
    """

    def __init__(self, module: Any, number: int, scale: Any, zero: Any, *, cut: str | None, learned: bool) -> None:
        limits = import_torch("quantization-aware training").iinfo(zero.dtype)
        self.least, self.most = limits.min, limits.max
        self._module, self._learned = module, learned
        if learned:
            module.register_parameter(f"range_{number}", import_torch("training").nn.Parameter(scale.log()))
        names = {"zero": zero.float()}
        if not learned:
            names |= {"low": (self.least - names["zero"]) * scale, "high": (self.most - names["zero"]) * scale}
        for name, value in names.items():
            module.register_buffer(f"{name}_{number}", value)
        self._number = number
        self._edges = -math.inf, math.inf
        if cut is not None:
            first = float((self.least - zero.float()) * scale), float((self.most - zero.float()) * scale)
            self._edges = first if cut == "Clip" else (0.0, math.inf)

    def scale(self) -> Any:
        """Return the scale."""
        if self._learned:
            return self._held("range").exp()
        return ((self._held("high") - self._held("low")) / (self.most - self.least)).clamp(min=_TINY)

    def zero(self) -> Any:
        """Return the zero point as a whole number in a float tensor."""
        if self._learned:
            return self._held("zero")
        return (self.least - self._held("low") / self.scale()).round().clamp(self.least, self.most)

    def __call__(self, x: Any) -> Any:
        """Return x as it is after quantization; in training an observed range follows it."""
        if not self._learned and self._module.training:
            seen = x.detach().clamp(*self._edges)
            for held, edge in (
                (self._held("low"), seen.amin().clamp(max=0.0)),
                (self._held("high"), seen.amax().clamp(min=0.0)),
            ):
                held += _MOMENTUM * (edge - held)
        zero, scale = self.zero(), evened(self.scale(), x[:1].numel(), self.most - self.least)
        return fake_quantized(x, scale, self.least - zero, self.most - zero)

    def _held(self, name: str) -> Any:
        return getattr(self._module, f"{name}_{self._number}")


class QuantizedNetwork:
    """A quantized ONNX graph as a PyTorch module (`module`) whose weights, biases and ranges can be trained.

    Args:
        quantized: with QuantizeLinear and DequantizeLinear nodes around what is quantized; its scales are the start.
        original: the same graph in float, where the weights are.
        learned: whether ranges are learnt; else they follow what is seen.
        most: the largest whole number that a weight may be, 127 or (where products would overflow) 64.

    Raises:
        BadInput: an operator of the graph can't be trained.
    """

    def __init__(self, quantized: onnx.ModelProto, original: onnx.ModelProto, *, learned: bool, most: int) -> None:
        self._torch = import_torch("quantization-aware training")
        self._proto, self._learned, self._most = quantized, learned, most
        left = {name for node in quantized.graph.node for name in node.output if node.op_type in _CUTS}
        self._cuts = {node.output[0]: node.op_type for node in original.graph.node if node.op_type in _CUTS}
        self._cuts = {name: kind for name, kind in self._cuts.items() if name not in left}
        self.module = self._torch.nn.Module()
        self._held = {tensor.name: tensor_of(tensor) for tensor in quantized.graph.initializer}
        self._floats = {tensor.name: tensor for tensor in original.graph.initializer}
        self._activations: dict[str, Activation] = {}
        self._zeros: dict[str, str] = {}  # names of zero points by that of the scale
        self._weights: dict[str, Weight] = {}  # by the name of what dequantizes it
        self._biases: dict[str, tuple[Any, Any, onnx.NodeProto]] = {}
        self._plain: dict[str, Any] = {}
        nodes = [node for node in quantized.graph.node if not self._is_weight(node)]
        self._read(nodes)
        masks = ((weight.tensor, weight.tensor.detach() != 0) for weight in self._weights.values())
        self._masks = [(weight, mask) for weight, mask in masks if mask.any() and not mask.all()]
        others = {"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize}
        self._graph = Graph(nodes, [each.name for each in quantized.graph.output], others)
        self.module.forward = self._forward

    def layers(self) -> int:
        """Return how many weights are quantized."""
        return len(self._weights)

    def hold(self, epochs: float) -> bool:
        """Keep at zero the weights that were pruned, those that were zero in layers which are not zero as a whole."""
        with self._torch.no_grad():
            for weight, mask in self._masks:
                weight.mul_(mask)
        return True

    def trained(self) -> onnx.ModelProto:
        """Return the quantized ONNX model with weights, biases, scales and zero points as they have been trained."""
        import onnx
        from onnx import numpy_helper

        found = onnx.ModelProto()
        found.CopyFrom(self._proto)
        with self._torch.no_grad():
            learnt = dict(self._arrays())
        for tensor in found.graph.initializer:
            if tensor.name in learnt:
                kind = numpy_helper.to_array(tensor)
                value = learnt[tensor.name].detach().double().numpy()
                if np.issubdtype(kind.dtype, np.integer):
                    value = np.clip(value, np.iinfo(kind.dtype).min, np.iinfo(kind.dtype).max)
                tensor.CopyFrom(numpy_helper.from_array(value.astype(kind.dtype).reshape(kind.shape), tensor.name))
        return found

    def _is_weight(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "DequantizeLinear" and node.input[0] in self._held

    def _read(self, nodes: Sequence[onnx.NodeProto]) -> None:
        """Find what is learnt: the ranges of activations, quantized weights and biases, and what stays in float."""
        makers = {node.output[0]: node for node in self._proto.graph.node if self._is_weight(node)}
        for node in nodes:
            if node.op_type == "QuantizeLinear" and node.input[1] not in self._activations:
                scale, zero = node.input[1], node.input[2]
                number = len(self._activations)
                self._zeros[scale] = zero
                self._activations[scale] = Activation(
                    self.module,
                    number,
                    self._held[scale],
                    self._held[zero],
                    cut=self._cuts.get(node.input[0]),
                    learned=self._learned,
                )
        for node in nodes:
            for place in _LEARNT.get(node.op_type, ()):
                name = node.input[place] if place < len(node.input) else ""
                if name in makers and name not in self._weights and name not in self._biases:
                    self._take(makers[name], node)
                elif name in self._held and name not in self._plain and self._is_learnt(node, self._held[name]):
                    self._plain[name] = self._parameter(self._held[name])
        taken = {*self._weights, *self._biases}
        for name, maker in makers.items():
            if name not in taken:
                self._held[name] = self._dequantized(maker)

    @staticmethod
    def _is_learnt(node: onnx.NodeProto, value: Any) -> bool:
        vector = value.ndim == 1 and value.numel() > 1
        return bool(value.is_floating_point() and (vector or (value.ndim > 1 and node.op_type != "Add")))

    def _take(self, maker: onnx.NodeProto, node: onnx.NodeProto) -> None:
        """Take a quantized weight or bias among what is learnt."""
        name, (held, scale_name, *rest) = maker.output[0], maker.input
        whole, scale = self._held[held], self._held[scale_name]
        before = self._floats.get(held.removesuffix(_QUANTIZED))
        if before is None or not held.endswith(_QUANTIZED) or (rest and bool(self._held[rest[0]].any())):
            return  # a constant that is no weight of a layer
        if whole.dtype == self._torch.int32:
            self._biases[name] = self._parameter(tensor_of(before)), maker, node
        elif whole.dtype == self._torch.int8:
            axis = attributes(maker).get("axis", 1) % whole.ndim if scale.ndim else -1
            self._weights[name] = Weight(
                tensor=self._parameter(tensor_of(before)),
                log_scale=self._parameter(scale.log()) if self._learned else None,
                axis=axis, low=-self._most, high=self._most, name=held, scale_name=scale_name,
            )  # fmt: skip

    def _parameter(self, value: Any) -> Any:
        made = self._torch.nn.Parameter(value)
        self.module.register_parameter(f"weight_{sum(1 for _ in self.module.parameters())}", made)
        return made

    def _dequantized(self, maker: onnx.NodeProto) -> Any:
        """Return what a quantized constant that isn't trained stands for."""
        whole, scale, *zero = (self._held[name] for name in maker.input)
        axis = attributes(maker).get("axis", 1) % whole.ndim if scale.ndim else -1
        low = zero[0].float() if zero else self._torch.zeros(())
        return (whole.float() - spread(low, axis, whole.ndim)) * spread(scale, axis, whole.ndim)

    def _bias_scale(self, node: onnx.NodeProto) -> Any:
        """Return the scale of a layer's bias: that of its input times that of its weight."""
        given = next(each for each in self._proto.graph.node if node.input[0] in each.output)
        beta = attributes(node).get("beta", 1.0)
        return self._activations[given.input[1]].scale() * self._weights[node.input[1]].scale() * beta

    def _forward(self, **inputs: Any) -> dict[str, Any]:
        values = {**self._held, **self._plain, **inputs, **self._activations}
        values |= {name: weight() for name, weight in self._weights.items()}
        for name, (bias, _, node) in self._biases.items():
            values[name] = fake_quantized(bias, self._bias_scale(node).detach(), -(2.0**31), 2.0**31)
        return self._graph(values)

    def _arrays(self) -> Any:
        """Yield the names of initializers with what they are now."""
        yield from self._plain.items()
        for name, activation in self._activations.items():
            yield name, activation.scale()
            yield self._zeros[name], activation.zero()
        for weight in self._weights.values():
            yield weight.scale_name, weight.scale()
            yield weight.name, weight.whole()
        for bias, maker, node in self._biases.values():
            scale = self._bias_scale(node)
            yield maker.input[1], scale
            yield maker.input[0], (bias / scale).round()


def _quantize(torch: Any, told: Attributes, x: Any, activation: Callable[[Any], Any], zero: Any) -> Any:
    return activation(x)  # what stands under the name of the scale


def _dequantize(torch: Any, told: Attributes, x: Any, scale: Any, zero: Any) -> Any:
    return x  # it has stayed a float
