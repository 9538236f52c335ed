"""An engine: the reference evaluator of the onnx package, slow and as the standard says."""

from collections.abc import Mapping, Sequence

from numpy.typing import NDArray

from trimtab.core.engine import unsupported
from trimtab.core.protocols import Engine
from trimtab.core.values import Machine, Settings, Variant, Workload


class OnnxReference:
    """Runs ONNX models in numpy, operator by operator."""

    name = "onnx-reference"

    def refuses(self, variant: Variant) -> str | None:
        """Refuse what is not ONNX, other devices, and settings: it has none."""
        if variant.model.format != "onnx":
            return f"onnx-reference runs onnx models, this one is {variant.model.format}"
        return unsupported(variant.settings)

    def settings(self, machine: Machine, workload: Workload) -> Sequence[Settings]:
        """Return the only way to run it."""
        return [Settings(runtime=self.name)]

    def load(self, variant: Variant) -> Engine:
        """Return the evaluator; each call maps input names to output names."""
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(str(variant.model.path))

        def call(inputs: Mapping[str, NDArray], /) -> dict[str, NDArray]:
            return dict(zip(evaluator.output_names, evaluator.run(None, dict(inputs)), strict=True))

        return call
