"""Quantization-aware training: a network learns to be right in 8 bits, and is exported as it has learnt to compute."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from trimtab.core.errors import BadInput, Refused
from trimtab.core.protocols import Choices, Context
from trimtab.core.values import Settings, Step, Task, Variant, content_digest
from trimtab.formats.onnx_torch import Graph, tensor_of
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, first_line, import_torch
from trimtab.techniques import learning
from trimtab.techniques.export_onnx import ExportOnnx
from trimtab.techniques.int8 import Calibrated, feeds, is_quantized, kept, options_of, reduces
from trimtab.techniques.static_int8 import METHODS, StaticInt8
from trimtab.training.quantized import QuantizedNetwork
from trimtab.training.recipe import Recipe

if TYPE_CHECKING:
    import onnx

RANGES = ("learned", "observed")
_CLOSE = 1e-3  # of the largest output: what float32 sums in another order may differ


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationAwareTraining:
    """Trains a PyTorch network with weights and activations rounded to 8 bits, and exports it to ONNX as it then is.

    What is quantized, and the ranges at the start, are those of `static-int8` with this `calibration`. `ranges` are
    learned along with the weights (LSQ) or observed, as a moving average. Batch normalization is folded into the
    convolutions first; products of attention stay in float, as do layers named in `keep` (separated by |). Pruned
    weights stay zero. The other options are those of `trimtab train`. In distillation the original float model teaches,
    alone where labels lack.
    """

    epochs: Annotated[int, Choices(3, 10)] = 3
    batch: int = 64
    optimizer: str = "adam"
    lr: float = 3e-4
    schedule: str = "cosine"
    augment: str = "none"
    distill: float = 0.5
    temperature: float = 4.0
    ranges: Annotated[str, Choices("learned", "observed")] = "learned"
    calibration: str = "minmax"
    reduce_range: bool | None = None
    keep: str = ""

    name = "qat"
    order = 8
    learns = True

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what isn't PyTorch, unknown ranges and calibrations, and missing data."""
        for option, known in (("ranges", RANGES), ("calibration", METHODS)):
            if getattr(self, option) not in known:
                return f"there is no {option}={getattr(self, option)!r}: choose one of {', '.join(known)}"
        if reason := learning.refusal(variant, task, self.name):
            return reason
        if task.split("calibrate") is None:
            return "qat needs calibration data for the ranges that it starts with: give --data"
        return None

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the trained variant in int8, as an ONNX model that onnxruntime and OpenVINO run.

        Raises:
            Refused: it is quantized already, or can't be exported, or trained as it was exported; not one epoch ended
                within the time.
        """
        exported = ExportOnnx().apply(variant, replace(context, folder=context.folder / "float"))
        if is_quantized(exported.model):
            raise Refused("the model is already quantized; give the one in float")
        batches = [spec.shape[0] for spec in exported.model.signature.data_inputs if spec.shape]
        if any(isinstance(size, int) for size in batches):
            raise Refused("qat trains in batches, and this model can be exported only with its batch fixed")
        ranges = StaticInt8(calibration=self.calibration, reduce_range=self.reduce_range)
        calibrated = ranges.prepare(exported, context)
        network = self.network(calibrated)
        check_runs(calibrated, exported, context.task)
        recipe, narrow = self._recipe(context), reduces(self.reduce_range)
        start = content_digest(variant.model.digest, self.ranges, self.calibration, self.keep, narrow)
        fitted = learning.learn(network.module, exported.model.signature, recipe, context, start, hold=network.hold)
        model = calibrated.save(network.trained(), context.folder)
        done = replace(self, epochs=len(fitted.history), distill=recipe.distill, reduce_range=narrow)
        step = Step(technique=self.name, options=options_of(done), seed=context.seed)
        return variant.after(model, step).on(Settings(runtime="onnxruntime"))

    def _recipe(self, context: Context) -> Recipe:
        return Recipe(
            epochs=self.epochs,
            batch=self.batch,
            optimizer=self.optimizer,
            lr=self.lr,
            schedule=self.schedule,
            augment=self.augment,
            distill=learning.share(self.distill, context),
            temperature=self.temperature,
            seed=context.seed,
        )

    def network(self, calibrated: Calibrated) -> QuantizedNetwork:
        """Return the network with fake quantization, all that can be quantized but the layers to be kept."""
        keep = {*kept(self.keep), *_products(calibrated.original)}
        if unknown := sorted(keep - set(calibrated.layers)):
            listed = ", ".join(calibrated.layers[:10]) + (", …" if len(calibrated.layers) > 10 else "")
            raise BadInput(f"the model has no layer named {unknown[0]!r} to keep; its layers are: {listed}")
        most = 64 if reduces(self.reduce_range) else 127
        made, learned = calibrated.build(frozenset(keep)), self.ranges == "learned"
        try:
            network = QuantizedNetwork(made, calibrated.original, learned=learned, most=most)
        except BadInput as error:
            raise Refused(str(error)) from error
        if not network.layers():
            raise Refused("the model has no convolution and no linear layer whose weights could be quantized")
        return network


def _products(proto: onnx.ModelProto) -> set[str]:
    """Return the names of the products of two computed matrices, those of attention.

    They have no weights that could learn, and in 8 bits ONNX Runtime would fuse the softmax between them: its
    QLinearSoftmax answers zeros where probabilities are even (1.31).
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    return {node.name for node in proto.graph.node if node.op_type == "MatMul" and not constants & set(node.input)}


def check_runs(calibrated: Calibrated, exported: Variant, task: Task) -> None:
    """Check that PyTorch computes of an ONNX graph what ONNX Runtime does, on one calibration item.

    Raises:
        Refused: it doesn't, or can't; training would make another network of it.
    """
    torch = import_torch("quantization-aware training")
    proto, feed = calibrated.original, next(feeds(exported, task, 1))
    names = [each.name for each in proto.graph.output]
    weights: dict[str, Any] = {tensor.name: tensor_of(tensor) for tensor in proto.graph.initializer}
    try:
        with torch.no_grad():
            found = Graph(proto.graph.node, names)(
                {**weights, **{name: torch.tensor(array) for name, array in feed.items()}}
            )
    except FOREIGN_ERRORS as error:
        raise Refused(f"PyTorch can't run the exported graph ({first_line(error)})") from error
    except BadInput as error:
        raise Refused(str(error)) from error
    for name, right in zip(names, calibrated.run(proto, [feed])[0], strict=True):
        got, most = found[name].numpy(), _CLOSE * max(1.0, float(np.abs(right).max()))
        if got.shape != right.shape or not np.allclose(got, right, rtol=0.0, atol=most):
            raise Refused(f"PyTorch and ONNX Runtime disagree on the output {name} of the exported graph")
