"""Reading an ONNX graph: every graph, node and tensor in it, an outline without its weights, a tensor's content."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.core.errors import BadInput, Unsafe
from trimtab.core.files import inside

if TYPE_CHECKING:
    import onnx

    from trimtab.core.protocols import Array

SMALL = 4096
"""Tensors of at most that many bytes stay in an outline: shapes, axes and scalars are among them."""


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute, text as `str`, or the default."""
    import onnx

    for found in node.attribute:
        if found.name == name:
            value = onnx.helper.get_attribute_value(found)
            return value.decode() if isinstance(value, bytes) else value
    return default


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the subgraphs of a node (branches, loop bodies)."""
    for found in node.attribute:
        if found.HasField("g"):
            yield found.g
        yield from found.graphs


def graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield every graph of a model, its own first: also those inside of nodes and of local functions."""
    waiting = [proto.graph, *(body for function in proto.functions for node in function.node for body in bodies(node))]
    while waiting:
        graph = waiting.pop(0)
        yield graph
        waiting += [body for node in graph.node for body in bodies(node)]


def nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield every node of a model: of its graph, of subgraphs and of its local functions."""
    for holder in (*graphs(proto), *proto.functions):
        yield from holder.node


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor that a model holds: initializers and constants, also those of subgraphs and functions."""
    for graph in graphs(proto):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield sparse.values
            yield sparse.indices
    for node in nodes(proto):
        for found in node.attribute:
            if found.HasField("t"):
                yield found.t
            yield from found.tensors
            if found.HasField("sparse_tensor"):
                yield found.sparse_tensor.values
                yield found.sparse_tensor.indices


def is_external(tensor: onnx.TensorProto) -> bool:
    """Say whether a tensor's content lies in another file."""
    return bool(tensor.data_location == tensor.EXTERNAL)


def byte_size(tensor: onnx.TensorProto) -> int:
    """Return how many bytes the elements of a tensor take in raw form; 0 for text."""
    import onnx

    if tensor.data_type == onnx.TensorProto.STRING:
        return 0
    try:
        bits = _bits(tensor) or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError) as error:
        raise BadInput(f"tensor {tensor.name!r} has no known element type; export the model again") from error
    return int(-(-math.prod(map(int, tensor.dims)) * bits // 8))


def _bits(tensor: onnx.TensorProto) -> int | None:
    """Return the bits of an element that is packed below a byte."""
    import onnx

    packed = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
    return packed.get(onnx.TensorProto.DataType.Name(tensor.data_type))


def texts(message: Any) -> Iterator[tuple[str, Any]]:
    """Yield every text of a message with the name of its field; what is not UTF-8 comes as bytes."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from ((field.name, text) for text in ([value] if isinstance(value, str | bytes) else value))
        elif field.type == field.TYPE_MESSAGE:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from texts(inner)


def outline(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model without the content of its large initializers; small and external ones stay."""
    import onnx

    copy = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _put(copy, field.name, value)
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _put(copy.graph, field.name, value)
    for tensor in proto.graph.initializer:
        if is_external(tensor) or byte_size(tensor) <= SMALL:
            copy.graph.initializer.append(tensor)
        else:
            copy.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return copy


def _put(message: Any, name: str, value: Any) -> None:
    if isinstance(value, str | bytes | int | float):
        setattr(message, name, value)
    else:
        getattr(message, name).MergeFrom(value)


def external_range(tensor: onnx.TensorProto, folder: Path) -> tuple[Path, int, int]:
    """Return the file, offset and length in bytes of external data; raise when they are missing or leave the folder."""
    given = {entry.key: entry.value for entry in tensor.external_data}
    location = given.get("location", "")
    if not location:
        raise BadInput(f"tensor {tensor.name!r} doesn't say in which file its data is; export the model again")
    try:
        path = folder / inside(folder, location).relative_to(folder.resolve())
    except (BadInput, ValueError) as error:  # a name that holds a zero byte is a ValueError
        raise Unsafe(
            f"tensor {tensor.name!r} wants its data from {location!r}, which is outside the model's folder; "
            "put the data file itself (no link) beside the model"
        ) from error
    if not path.is_file():
        raise BadInput(f"the external data file {location!r} is missing; put it beside the model in {folder}")
    needed = byte_size(tensor)
    try:
        offset = int(given.get("offset", 0))
        length = int(given.get("length", needed))
    except ValueError as error:
        raise BadInput(f"tensor {tensor.name!r} has a broken reference to {location!r}; export it again") from error
    if offset < 0 or length != needed or offset + length > path.stat().st_size:
        raise BadInput(
            f"the external data file {location!r} does not hold tensor {tensor.name!r} "
            f"({needed} bytes at {offset}); it is truncated or of another model: copy it again"
        )
    return path, offset, length


def array(tensor: onnx.TensorProto, folder: Path | None) -> Array | None:
    """Return the content of a tensor; None when it has none (an outline) or it is external and no folder is given."""
    import onnx

    if is_external(tensor):
        if folder is None:
            return None
        path, offset, length = external_range(tensor, folder)
        if _bits(tensor) is None and length:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            mapped: Array = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=tuple(tensor.dims))
            return mapped
        with path.open("rb") as file:
            file.seek(offset)
            tensor = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=file.read(length))
    elif math.prod(tensor.dims) > 0 and not any(field.name.endswith("_data") for field, _ in tensor.ListFields()):
        return None
    content: Array = onnx.numpy_helper.to_array(tensor)
    return content
