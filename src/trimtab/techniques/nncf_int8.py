"""Static int8 quantization by NNCF; the result is an OpenVINO model."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from trimtab.core.errors import MissingExtra, Refused
from trimtab.core.process import silence_telemetry
from trimtab.core.protocols import Array, Arrays, Choices, Context
from trimtab.core.values import Model, Settings, Step, Task, Variant
from trimtab.techniques.int8 import Calibrated, feeds, kept, options_of, quantized, refusal

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

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what isn't a float ONNX or OpenVINO model, missing calibration data, and an unknown preset."""
        if self.preset not in ("performance", "mixed"):
            return f"there is no preset {self.preset!r}: choose performance or mixed"
        return refusal(variant, task, self.name, ("onnx", "openvino"), calibrates=True)

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the variant with its layers in int8, as an OpenVINO model that runs on OpenVINO."""
        calibrated = self.prepare(variant, context)
        step = Step(technique=self.name, options=options_of(self), seed=context.seed)
        return quantized(variant, calibrated, step, kept(self.keep), context.folder)

    def prepare(self, variant: Variant, context: Context) -> Calibrated:
        """Return the model quantized as a whole, ready to have any of its layers restored."""
        from trimtab.formats.openvino import save

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
        with _quiet():
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's log and progress bars off the terminal."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _load(model: Model) -> Any:
    from trimtab.formats.openvino import OpenVinoFormat, import_openvino, with_names

    if model.format == "openvino":
        return OpenVinoFormat().load(model)
    openvino = import_openvino("int8 quantization with NNCF")
    try:
        graph = openvino.convert_model(model.path)  # unlike read_model it folds biases, which NNCF can then correct
    except RuntimeError as error:
        raise Refused(f"openvino can't convert this model: {str(error).strip().splitlines()[-1][:200]}") from error
    return with_names(graph, model.signature)


def _run(model: Any, given: Sequence[Arrays], threads: int | None, inputs: dict[str, int]) -> list[list[Array]]:
    import openvino

    hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        hints["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(model, "CPU", hints)
    return [
        [value.copy() for value in compiled({inputs[name]: value for name, value in feed.items()}).values()]
        for feed in given
    ]


def _attends(model: Any) -> bool:
    """Say whether an OpenVINO model holds attention: a softmax, and a product of two computed matrices."""
    kinds = {node.get_type_name() for node in model.get_ops()}
    return "ScaledDotProductAttention" in kinds or (
        "Softmax" in kinds
        and any(
            not _is_constant(node.input_value(0)) and not _is_constant(node.input_value(1))
            for node in model.get_ops()
            if node.get_type_name() == "MatMul"
        )
    )


def _layers(model: Any, whole: Any) -> tuple[str, ...]:
    """Return the names of the layers that were quantized, in the order of the model."""
    after = _by_name(whole)
    return tuple(
        name
        for name, node in _by_name(model).items()
        if node.get_type_name() in _LAYERS and name in after and _is_rewired(node, after[name])
    )


def _by_name(model: Any) -> dict[str, Any]:
    return {node.get_friendly_name(): node for node in model.get_ordered_ops()}


def _is_rewired(node: Any, other: Any) -> bool:
    return any(
        mine.get_node().get_friendly_name() != its.get_node().get_friendly_name()
        or _is_constant(mine) != _is_constant(its)
        for mine, its in zip(node.input_values(), other.input_values(), strict=True)
    )


def _is_constant(source: Any) -> bool:
    """Say whether a value is computed from constants only."""
    node = source.get_node()
    if node.get_type_name() == "Constant":
        return True
    return node.get_input_size() > 0 and all(_is_constant(value) for value in node.input_values())


def _restored(model: Any, whole: Any, keep: Collection[str]) -> Any:
    """Return a copy of the quantized model in which the layers `keep` are wired as in the float model."""
    copy = whole.clone()
    before, after = _by_name(model), _by_name(copy)
    for name in keep:
        _rewire(before[name], after)
        for target in before[name].output(0).get_target_inputs():  # a corrected bias suits the quantized layer only
            if target.get_node().get_type_name() == "Add":
                _rewire_constants(target.get_node(), after)
    copy.validate_nodes_and_infer_types()
    return copy


def _rewire(node: Any, after: dict[str, Any]) -> None:
    """Give a node of the quantized model the inputs of its float twin, past quantizers and smoothing factors."""
    twin = after[node.get_friendly_name()]
    _rewire_constants(node, after)
    for index, source in enumerate(node.input_values()):
        producer = source.get_node()
        same = after.get(producer.get_friendly_name())
        if _is_constant(source) or same is None:
            continue
        twin.input(index).replace_source_output(same.output(source.get_index()))
        if producer.get_type_name() in _PASSIVE:
            _rewire(producer, after)


def _rewire_constants(node: Any, after: dict[str, Any]) -> None:
    twin = after.get(node.get_friendly_name())
    if twin is None:
        return
    for index, source in enumerate(node.input_values()):
        if _is_constant(source):
            twin.input(index).replace_source_output(source)
