"""A meter: the share of weights that are zero."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trimtab.core.protocols import Session
from trimtab.core.values import Reading, Task, Variant, Workload


class SparsityMeter:
    """Counts the zeros in the weights of an ONNX model."""

    name = "sparsity"

    def read(self, session: Session, variant: Variant, task: Task, workload: Workload) -> Sequence[Reading]:
        """Return `sparsity`, between 0 and 1."""
        unavailable = Reading(name="sparsity", value=None, direction="higher", provenance="unavailable", samples=0)
        if variant.model.format != "onnx":
            return [replace(unavailable, scope=f"weights of {variant.model.format} models can't be read")]
        from onnx.numpy_helper import to_array

        from trimtab.formats.onnx import OnnxFormat

        weights = [to_array(tensor) for tensor in OnnxFormat().load(variant.model).graph.initializer]
        weights = [weight for weight in weights if weight.dtype.kind == "f"]
        if not weights:
            return [replace(unavailable, scope="the model has no weights in floating point")]
        zeros = sum(int(np.sum(weight == 0)) for weight in weights)
        share = zeros / sum(weight.size for weight in weights)
        return [replace(unavailable, value=share, provenance="counted", samples=1, source="weights of the model")]
