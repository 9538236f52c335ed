"""Magnitude pruning: the smallest weights of every layer become zero."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from trimtab.core.protocols import Choices, Context
from trimtab.core.values import Step, Task, Variant, options


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroWeights:
    """Sets a share of the weights of every ONNX layer to zero, the smallest first (Han et al. 2015)."""

    share: Annotated[float, Choices(0.1, 0.3)] = 0.3
    name = "zero-weights"

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what isn't ONNX."""
        if variant.model.format == "onnx":
            return None
        return f"zero-weights prunes ONNX models, not {variant.model.format}"

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the variant with its smallest weights at zero."""
        from onnx import numpy_helper

        from trimtab.formats.onnx import OnnxFormat, save

        proto = OnnxFormat().load(variant.model)
        for tensor in proto.graph.initializer:
            weights = numpy_helper.to_array(tensor)
            if weights.ndim >= 2 and weights.dtype == np.float32:
                limit = np.quantile(abs(weights), self.share)
                tensor.CopyFrom(numpy_helper.from_array(np.where(abs(weights) < limit, 0, weights), tensor.name))
        model = save(proto, context.folder / "model.onnx")
        return variant.after(model, Step(technique=self.name, options=options(share=self.share), seed=context.seed))
