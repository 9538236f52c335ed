"""Reads the signature of an ONNX graph: inputs, outputs, and which of them carry state from call to call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.core.errors import BadInput
from trimtab.core.values import Signature, TensorSpec
from trimtab.formats.states import States, find_states, with_states

if TYPE_CHECKING:
    import onnx


def signature(proto: onnx.ModelProto, states: States | None = None) -> Signature:
    """Return the inputs and outputs of a model. Inputs that have an initializer are weights, not inputs.

    Args:
        proto: The model.
        states: Which input is fed by which output; None looks for names that by convention mean that.

    Raises:
        BadInput: An input is no tensor, or a pair names what is not there or does not fit.
    """
    weights = {weight.name for weight in proto.graph.initializer}
    weights |= {sparse.values.name for sparse in proto.graph.sparse_initializer}
    inputs = tuple(_spec(info, fed=True) for info in proto.graph.input if info.name not in weights)
    outputs = tuple(_spec(info, fed=False) for info in proto.graph.output)
    found = Signature(inputs=inputs, outputs=outputs)
    return with_states(found, find_states(found) if states is None else states)


def _spec(info: onnx.ValueInfoProto, *, fed: bool) -> TensorSpec:
    import onnx

    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        if fed:
            word = (kind or "value without a type").removesuffix("_type").replace("_", " ")
            raise BadInput(f"input {info.name!r} is a {word}; only models whose inputs are tensors can be used")
        return TensorSpec(name=info.name, dtype=(kind or "unknown").removesuffix("_type"), shape=("?",))
    tensor = info.type.tensor_type
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)
    except KeyError as error:
        raise BadInput(f"{info.name!r} has no known element type; export the model again") from error
    if not tensor.HasField("shape"):
        return TensorSpec(name=info.name, dtype=dtype, shape=("?",))
    return TensorSpec(name=info.name, dtype=dtype, shape=tuple(_size(dim) for dim in tensor.shape.dim))


def _size(dimension: Any) -> int | str:
    if dimension.HasField("dim_value") and dimension.dim_value >= 0:
        return int(dimension.dim_value)
    return str(dimension.dim_param) or "?"
