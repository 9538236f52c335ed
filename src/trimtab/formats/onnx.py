"""ONNX models: opened with every check a file from a stranger needs, loaded, and saved so that equal is equal."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.core.errors import BadInput, Unsafe
from trimtab.core.files import disk_errors, make_folder, write_bytes
from trimtab.core.protocols import Opening
from trimtab.core.values import Contents, Model, Work, Workload
from trimtab.formats import graph as graphs
from trimtab.formats.onnx_signature import signature
from trimtab.formats.states import States

if TYPE_CHECKING:
    import onnx

_CHUNK = 1 << 22
_INLINE_LIMIT = 1_500_000_000  # bytes; protobuf itself ends at 2 GiB
_ALIGNMENT = 4096  # bytes; so that weights can be memory-mapped

_FOREIGN = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "a git-lfs pointer, not the model: run `git lfs pull` where it came from"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras?): export the model to ONNX"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x7fELF", "a program"),
)


class OnnxFormat:
    """Reads ONNX files, their external data included, and refuses what is broken or leaves its folder."""

    name = "onnx"
    reads = ("states",)

    def claims(self, source: str) -> bool:
        """Say whether the source is a path that ends in .onnx."""
        return source.lower().endswith(".onnx")

    def open(self, source: str, opening: Opening) -> Model:
        """Check the file and return the model; its digest covers the graph and the external data, not their names.

        Raises:
            BadInput: The file is missing, of another format, truncated or corrupt, or lacks its external data.
            Unsafe: It is a pickle, or external data lie outside its folder.
        """
        path = Path(source).absolute()
        proto = _checked(path)
        found = signature(proto, opening.states or None)
        return Model(format=self.name, path=path, digest=_digest(path, proto), signature=found)

    def load(self, model: Model) -> onnx.ModelProto:
        """Return the model with all of its weights."""
        proto = _checked(model.path)
        for tensor in graphs.tensors(proto):
            if graphs.is_external(tensor):
                path, offset, length = graphs.external_range(tensor, model.path.parent)
                with path.open("rb") as file:
                    file.seek(offset)
                    tensor.raw_data = file.read(length)
                del tensor.external_data[:]
                tensor.data_location = tensor.DEFAULT
        return proto

    def contents(self, model: Model) -> Contents:
        """Return the files, operators and parameters of the model."""
        from trimtab.formats.onnx_contents import contents

        proto = _parsed(model.path)
        return contents(proto, (model.path, *_external_files(proto, model.path.parent)))

    def work(self, model: Model, workload: Workload) -> Work:
        """Return the multiply-accumulates of one call, layer by layer."""
        from trimtab.formats.onnx_macs import count_macs

        return count_macs(_parsed(model.path), workload, model.path.parent)


def save(proto: onnx.ModelProto, path: Path, states: States = (), inline: int = _INLINE_LIMIT) -> Model:
    """Write a model and return it opened; the same model always gives the same bytes. `proto` is not changed.

    Args:
        proto: The model, with all of its weights.
        path: Where to; external data become `path` + ".data" in the same folder.
        states: Pairs of input and output that carry state; without any, looks for names that mean that.
        inline: Models of more weight than this, in bytes, get external data.
    """
    path = Path(path).absolute()
    make_folder(path.parent)
    if sum(graphs.byte_size(tensor) for tensor in proto.graph.initializer) > inline:
        proto = _externalized(proto, path.with_name(path.name + ".data"))
    write_bytes(path, proto.SerializeToString(deterministic=True))
    return OnnxFormat().open(str(path), Opening(folder=path.parent, states=tuple(states)))


def external_files(path: Path) -> tuple[Path, ...]:
    """Return the external data files of an ONNX file, each once, in the order of their names."""
    return _external_files(_parsed(path), path.parent)


def _external_files(proto: onnx.ModelProto, folder: Path) -> tuple[Path, ...]:
    tensors = (tensor for tensor in graphs.tensors(proto) if graphs.is_external(tensor))
    return tuple(sorted({graphs.external_range(tensor, folder)[0] for tensor in tensors}))


def _checked(path: Path) -> onnx.ModelProto:
    proto = _parsed(path)
    broken = next((field for field, text in graphs.texts(proto) if isinstance(text, bytes)), None)
    if broken is not None:
        raise BadInput(f"{path} is corrupt: a {broken} in it is no text; get the file again")
    _check_graph(proto.graph, set(), path)
    for tensor in graphs.tensors(proto):
        if graphs.is_external(tensor):
            graphs.external_range(tensor, path.parent)
        elif tensor.HasField("raw_data") and len(tensor.raw_data) != graphs.byte_size(tensor):
            raise BadInput(f"{path} is corrupt: tensor {tensor.name!r} lacks part of its data; get the file again")
    return proto


def _parsed(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(f"there is no file {path}; check the path") from error
    except IsADirectoryError as error:
        raise BadInput(f"{path} is a folder, not an ONNX file; give the .onnx file in it") from error
    except OSError as error:
        raise BadInput(f"can't read {path}: {error.strerror}; change its permissions or copy it") from error
    _check_kind(path, content)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise BadInput(f"{path} is truncated or not an ONNX file; download or export it again") from error
    if not proto.opset_import or not (proto.graph.node or proto.graph.output):
        raise BadInput(f"{path} is not an ONNX file, or one without a graph; export the model again")
    return proto


def _check_kind(path: Path, content: bytes) -> None:
    if not content:
        raise BadInput(f"{path} is empty; download or export it again")
    head = content[:512]
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise Unsafe(f"{path} is a pickle, which runs code when it is read; export the model to ONNX where it was made")
    if head[:4] == b"PK\x03\x04":
        raise BadInput(f"{path} is a zip archive (PyTorch weights, a Keras model, an .npz?); export the model to ONNX")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise BadInput(f"{path} is a web page or XML, not an ONNX file; was the download link a page?")
    if head[4:8] == b"TFL3":
        raise BadInput(f"{path} is a TensorFlow Lite model, not an ONNX file; convert it first")
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise BadInput(f"{path} is not an ONNX file but {what}")


def _check_graph(graph: onnx.GraphProto, outer: set[str], path: Path) -> None:
    """Raise `BadInput` unless every value is made before it is used."""
    known = outer | {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {sparse.values.name for sparse in graph.sparse_initializer}
    for node in graph.node:
        missing = next((name for name in node.input if name and name not in known), None)
        if missing is not None:
            where = node.name or node.op_type
            raise BadInput(f"{path} is corrupt: {where} takes {missing!r}, which nothing makes; export the model again")
        for body in graphs.bodies(node):
            _check_graph(body, known, path)
        known |= set(node.output)
    lost = next((info.name for info in graph.output if info.name and info.name not in known), None)
    if lost is not None:
        raise BadInput(f"{path} is corrupt: nothing makes its output {lost!r}; export the model again")


def _digest(path: Path, proto: onnx.ModelProto) -> str:
    """Return the SHA-256 (first 16 bytes, hex) of the graph and of the external data in the order of the tensors."""
    total = hashlib.sha256()
    external = [tensor for tensor in graphs.tensors(proto) if graphs.is_external(tensor)]
    ranges = [graphs.external_range(tensor, path.parent) for tensor in external]
    for tensor in external:
        del tensor.external_data[:]
    total.update(proto.SerializeToString(deterministic=True))
    for file_path, offset, length in ranges:
        with file_path.open("rb") as file:
            file.seek(offset)
            while length and (chunk := file.read(min(length, _CHUNK))):
                total.update(chunk)
                length -= len(chunk)
    return total.hexdigest()[:32]


def _externalized(proto: onnx.ModelProto, data: Path) -> onnx.ModelProto:
    """Write the large initializers to one file and return the model that refers to them."""
    import onnx

    light = graphs.outline(proto)
    with disk_errors(data), tempfile.TemporaryDirectory(dir=data.parent) as scratch:
        temporary = Path(scratch) / data.name
        with temporary.open("wb") as file:
            for tensor, original in zip(light.graph.initializer, proto.graph.initializer, strict=True):
                if graphs.is_external(original):
                    raise ValueError(f"tensor {original.name!r} is not loaded")
                if graphs.byte_size(tensor) > graphs.SMALL:
                    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                    offset = file.tell()
                    file.write(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(original)).raw_data)
                    entries = {"location": data.name, "offset": str(offset), "length": str(file.tell() - offset)}
                    tensor.data_location = onnx.TensorProto.EXTERNAL
                    for key, value in entries.items():
                        tensor.external_data.add(key=key, value=value)
        temporary.replace(data)
    return light
