"""Static int8 quantization by NNCF; the result is an OpenVINO model."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from trimtab.core.errors import MissingExtra
from trimtab.core.hints import openvino_hints
from trimtab.core.process import silence_telemetry
from trimtab.core.protocols import Array, Arrays, Choices, Context
from trimtab.core.values import Model, Settings, Task, Variant
from trimtab.formats.openvino import OpenVinoFormat, converted, save
from trimtab.formats.torch_tracing import quiet
from trimtab.techniques.int8 import Calibrated, applied, feeds, followers, refusal

_LAYERS = {
    "Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul",
    "LSTMSequence", "GRUSequence",
}  # fmt: skip
_PASSIVE = {"MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Pad", "Relu", "Clamp", "StridedSlice"}
"""Operators that quantizers are moved across: what is quantized before one of them is quantized for the layer after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NncfInt8:
    """Quantizes weights and activations to 8 bits with NNCF and corrects the biases.

    `preset` "performance" centres the ranges of activations at zero, "mixed" does not. `items` bounds the calibration
    items. Layers named in `keep` (separated by |, by the names of the OpenVINO model) stay in float.
    """

    preset: Annotated[str, Choices("performance", "mixed")] = "performance"
    fast_bias_correction: bool = True
    items: int = 300
    keep: str = ""

    name = "nncf-int8"
    order = 1

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what isn't a float ONNX or OpenVINO model, missing calibration data, and an unknown preset."""
        if self.preset not in ("performance", "mixed"):
            return f"there is no preset {self.preset!r}: choose performance or mixed"
        return refusal(variant, task, self.name, ("onnx", "openvino"), calibrates=True)

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the variant with its layers in int8, as an OpenVINO model that runs on OpenVINO."""
        return applied(self, variant, context)

    def prepare(self, variant: Variant, context: Context) -> Calibrated:
        """Return the model quantized as a whole, ready to have any of its layers restored."""
        model = _load(variant.model)
        whole = self._quantize(model, list(feeds(variant, context.task, self.items)))
        names = {spec.name: index for index, spec in enumerate(variant.model.signature.inputs)}
        settings = variant.settings
        if settings.runtime != "openvino":
            settings = Settings(runtime="openvino", precision="fp32", threads=settings.threads)
        return Calibrated(
            original=model,
            layers=_layers(model, whole),
            build=partial(_restored, model, whole),
            run=partial(_run, threads=settings.threads, inputs=names),
            save=lambda made, folder: save(made, folder, variant.model.signature),
            settings=settings,
        )

    def _quantize(self, model: Any, given: Sequence[Arrays]) -> Any:
        nncf = _import_nncf()
        presets = {"performance": nncf.QuantizationPreset.PERFORMANCE, "mixed": nncf.QuantizationPreset.MIXED}
        with quiet("nncf"), contextlib.redirect_stdout(io.StringIO()):
            return nncf.quantize(
                model,
                nncf.Dataset(given, dict),
                preset=presets[self.preset],
                model_type=nncf.ModelType.TRANSFORMER if _attends(model) else None,
                subset_size=len(given),
                fast_bias_correction=self.fast_bias_correction,
            )


def _import_nncf() -> Any:
    silence_telemetry()
    try:
        import nncf
    except ImportError as error:
        raise MissingExtra("nncf", "openvino", "int8 quantization with NNCF") from error
    return nncf


def _load(model: Model) -> Any:
    if model.format == "openvino":
        return OpenVinoFormat().load(model)
    return converted(model.path, model.signature)  # unlike read_model it folds biases, which NNCF can then correct


def _run(model: Any, given: Sequence[Arrays], threads: int | None, inputs: dict[str, int]) -> list[list[Array]]:
    import openvino

    hints = openvino_hints(Settings(runtime="openvino", precision="fp32", threads=threads))
    compiled = openvino.Core().compile_model(model, "CPU", hints)
    return [
        [value.copy() for value in compiled({inputs[name]: value for name, value in feed.items()}).values()]
        for feed in given
    ]


class _Graph:
    """An OpenVINO model by the names of its nodes, and which of them are computed from constants only."""

    def __init__(self, model: Any) -> None:
        self.nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
        self.kinds = {name: node.get_type_name() for name, node in self.nodes.items()}
        self.constants: set[str] = set()
        for name, node in self.nodes.items():  # producers come before consumers
            sources = self.sources(node)
            if self.kinds[name] == "Constant" or (sources and self.constants >= set(sources)):
                self.constants.add(name)

    def sources(self, node: Any) -> list[str]:
        """Return the names of the nodes that feed a node, input by input."""
        return [value.get_node().get_friendly_name() for value in node.input_values()]

    def computed(self, node: Any) -> int:
        """Return how many inputs of a node depend on the data."""
        return sum(name not in self.constants for name in self.sources(node))

    def consumers(self) -> dict[str, list[str]]:
        """Return the names of the nodes that each node feeds."""
        found: dict[str, list[str]] = {}
        for name, node in self.nodes.items():
            for source in self.sources(node):
                found.setdefault(source, []).append(name)
        return found

    def layers(self) -> list[str]:
        """Return the names of the nodes that do the work, in order."""
        return [name for name, kind in self.kinds.items() if kind in _LAYERS]


def _attends(model: Any) -> bool:
    """Say whether an OpenVINO model holds attention: a softmax, and a product of two computed matrices."""
    graph = _Graph(model)
    kinds = set(graph.kinds.values())
    products = (node for name, node in graph.nodes.items() if graph.kinds[name] == "MatMul")
    return "ScaledDotProductAttention" in kinds or (
        "Softmax" in kinds and any(graph.computed(node) == 2 for node in products)
    )


def _layers(model: Any, whole: Any) -> tuple[str, ...]:
    """Return the names of the layers that were quantized, in the order of the model."""
    before, after = _Graph(model), _Graph(whole)

    def is_rewired(name: str) -> bool:
        return before.sources(before.nodes[name]) != after.sources(after.nodes[name])

    return tuple(name for name in before.layers() if name in after.nodes and is_rewired(name))


def _restored(model: Any, whole: Any, keep: Collection[str]) -> Any:
    """Return a copy of the quantized model in which the layers `keep` are wired as in the float model."""
    copy = whole.clone()
    before, after = _Graph(model), _Graph(copy)
    consumers, layers = before.consumers(), set(before.layers())
    merges = {name for name, node in before.nodes.items() if before.computed(node) > 1}
    for name in keep:  # a bias is among the followers: corrected, it suits the quantized layer only
        for node in {name, *followers(name, consumers, layers, merges)}:
            _rewire(node, before, after)
    copy.validate_nodes_and_infer_types()
    return copy


def _rewire(name: str, before: _Graph, after: _Graph) -> None:
    """Give a node of the quantized model the inputs of its float twin, past quantizers and smoothing factors."""
    waiting = [name]
    while waiting:
        current = waiting.pop(0)
        twin = after.nodes.get(current)
        if twin is None:
            continue
        for index, source in enumerate(before.nodes[current].input_values()):
            producer = source.get_node().get_friendly_name()
            if producer in before.constants:
                twin.input(index).replace_source_output(source)
            elif producer in after.nodes:
                twin.input(index).replace_source_output(after.nodes[producer].output(source.get_index()))
                if before.kinds[producer] in _PASSIVE:
                    waiting.append(producer)
