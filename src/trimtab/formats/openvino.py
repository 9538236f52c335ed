"""OpenVINO models (IR): a graph in `.xml` and its weights in `.bin` beside it, checked without importing OpenVINO."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree
from xml.parsers import expat

from trimtab.core.errors import BadInput, MissingExtra, Refused, Unsafe
from trimtab.core.files import digest_files, disk_errors, make_folder
from trimtab.core.process import silence_telemetry
from trimtab.core.protocols import Opening
from trimtab.core.values import Contents, Model, Signature, TensorSpec, Work, Workload
from trimtab.formats.macs import MALFORMED
from trimtab.formats.torch_tracing import quiet

if TYPE_CHECKING:
    from trimtab.formats.openvino_macs import Sizes

_DTYPES = {
    "f32": "float32", "f16": "float16", "f64": "float64", "bf16": "bfloat16", "boolean": "bool",
    "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
    "fp32": "float32", "fp16": "float16", "fp64": "float64", "bool": "bool", "string": "str",
}  # fmt: skip
_BATCH = "batch"
_MAX_XML = 1 << 28


class OpenVinoFormat:
    """Models saved by `openvino.save_model`."""

    name = "openvino"

    def claims(self, source: str) -> bool:
        """Claim `.xml` files whose first element is a `net`."""
        path = Path(source)
        if path.suffix != ".xml" or not path.is_file():
            return False
        with path.open("rb") as file:
            return bool(re.search(rb"<net[\s>]", file.read(512)))

    def open(self, source: str, opening: Opening) -> Model:
        """Check the graph and that its weights are whole, and return it as a model.

        Raises:
            BadInput: The file is no IR, it is damaged, or its weights are missing or too short.
            Unsafe: The XML declares entities.
        """
        path = Path(source).absolute()
        with _whole(path):
            root = _parsed(path)
            _check_weights(root, path)
            signature = _signature(root, path)
        return Model(format=self.name, path=path, digest=digest_files([path, _bin(path)]), signature=signature)

    def load(self, model: Model) -> Any:
        """Return the `openvino.Model`."""
        openvino = import_openvino("opening an OpenVINO model")
        try:
            return openvino.Core().read_model(model.path)
        except RuntimeError as error:
            raise BadInput(f"openvino can't read {model.path}: {_last_line(error)}; convert it again") from error

    def contents(self, model: Model) -> Contents:
        """Return the files, operators and parameters of the model, from the XML alone."""
        from trimtab.formats.openvino_macs import contents

        with _whole(model.path):
            return contents(_parsed(model.path), (model.path, _bin(model.path)))

    def work(self, model: Model, workload: Workload) -> Work:
        """Return the multiply-accumulates of one call; OpenVINO is asked only for sizes that the files leave free."""
        from trimtab.formats.openvino_macs import count_macs

        shapes = workload.shapes(model.signature)
        free = any(isinstance(size, str) for spec in model.signature.inputs for size in spec.shape)
        sizes = _sizes(self.load(model), model.signature, shapes) if free else None
        with _whole(model.path):
            return count_macs(_parsed(model.path), _bin(model.path), sizes)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn whatever a graph lacks into one clear line."""
    try:
        yield
    except MALFORMED as error:
        raise BadInput(f"{path} is not a whole OpenVINO model ({error!r}); convert it again") from error


def _sizes(graph: Any, signature: Signature, shapes: Mapping[str, Sequence[int | str]]) -> Sizes:
    """Return the shapes of every operator's inputs and outputs when the model is given inputs of these shapes."""
    openvino = import_openvino("counting the work of a model with free dimensions")
    given = [[size if isinstance(size, int) else -1 for size in shapes[spec.name]] for spec in signature.inputs]
    ports = zip(graph.inputs, given, strict=True)
    try:
        graph.reshape({port: openvino.PartialShape(shape) for port, shape in ports})
    except RuntimeError as error:
        raise BadInput(f"openvino can't give the model inputs of shapes {given}: {_last_line(error)}") from error
    return {op.get_friendly_name(): (_of(op.inputs()), _of(op.outputs())) for op in graph.get_ordered_ops()}


def _of(ports: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    shapes = [port.get_partial_shape() for port in ports]
    return tuple(
        tuple(size.get_length() if size.is_static else -1 for size in shape) if shape.rank.is_static else (-1,)
        for shape in shapes
    )


def import_openvino(purpose: str) -> Any:
    """Return the module `openvino` with its telemetry off, or raise `MissingExtra`."""
    silence_telemetry()
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("openvino", "openvino", purpose) from error
    return openvino


def save(graph: Any, folder: Path, signature: Signature | None = None, compress_to_fp16: bool = False) -> Model:
    """Write an `openvino.Model` to the folder under the name of its content and return it as a model.

    Args:
        graph: The live model; names that OpenVINO counts up are numbered anew, so that equal models are equal files.
        folder: Where the two files go.
        signature: What it takes and gives, when known: the files don't keep names of dimensions or states.
        compress_to_fp16: Store the weights in half precision.
    """
    openvino = import_openvino("saving an OpenVINO model")
    make_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder) as scratch, disk_errors(folder):
        written = Path(scratch) / "model.xml"
        number_names(graph)
        openvino.save_model(graph, written, compress_to_fp16=compress_to_fp16)
        digest = digest_files([written, _bin(written)])
        final = folder.absolute() / f"{digest[:12]}.xml"
        _bin(written).replace(_bin(final))
        written.replace(final)
    found = signature or _signature(_parsed(final), final)
    return Model(format=OpenVinoFormat.name, path=final, digest=digest, signature=found)


def _bin(path: Path) -> Path:
    return path.with_suffix(".bin")


def _parsed(path: Path) -> ElementTree.Element:
    """Return the XML's root; refuse document types, the only way by which XML reads files or grows without end."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadInput(f"can't read {path}: {error.strerror}; check the path") from error
    if len(text) > _MAX_XML:
        raise BadInput(f"{path} is larger than {_MAX_XML >> 20} MiB; openvino.save_model writes no such graph")
    checker = expat.ParserCreate()
    checker.StartDoctypeDeclHandler = _refuse_doctype
    try:
        checker.Parse(text, True)
        root = ElementTree.fromstring(text)
    except (expat.ExpatError, ElementTree.ParseError) as error:
        raise BadInput(f"{path} is not an OpenVINO model, or it is damaged ({error}); convert it again") from error
    if root.tag != "net":
        raise BadInput(f"{path} is XML but not an OpenVINO model: it begins with <{root.tag}>, not <net>")
    return root


def _refuse_doctype(*_: object) -> None:
    raise Unsafe("this XML declares a document type, which an OpenVINO model never does; convert the model again")


def _check_weights(root: ElementTree.Element, path: Path) -> None:
    if not _bin(path).is_file():
        raise BadInput(f"the weights {_bin(path).name} are missing; put them beside {path}")
    if not _bin(path).resolve().is_relative_to(path.parent.resolve()):
        raise Unsafe(f"{_bin(path)} is a link that leaves its folder; put the file itself beside {path.name}")
    size = _bin(path).stat().st_size
    ends = [
        int(data.get("offset", 0)) + int(data.get("size", 0))
        for layer in root.iter("layer")
        if layer.get("type") == "Const" and (data := layer.find("data")) is not None
    ]
    if max(ends, default=0) > size:
        raise BadInput(f"{_bin(path)} has {size} bytes, the graph needs {max(ends)}: it is truncated; copy it again")
    if any(layer.get("type") == "ReadValue" for layer in root.iter("layer")):
        raise BadInput(f"{path} keeps its state inside (ReadValue); convert it with its states as inputs and outputs")


def _signature(root: ElementTree.Element, path: Path) -> Signature:
    layers = {layer.get("id", ""): layer for layer in root.findall("./layers/layer")}
    edges = [edge.attrib for edge in root.findall("./edges/edge")]
    sources = {(e["to-layer"], e["to-port"]): (e["from-layer"], e["from-port"]) for e in edges}
    inputs, outputs = [], []
    for number, layer in layers.items():
        if layer.get("type") == "Parameter":
            data, port = layer.find("data"), layer.find("./output/port")
            if data is None or port is None:
                raise BadInput(f"{path} has an input without a type; convert it again")
            sizes = data.get("shape", "").replace(" ", "").split(",")
            shape = [size if size.isdigit() else "-1" for size in sizes if size]
            inputs.append(_spec(_name(port, layer), data.get("element_type", ""), shape))
        elif layer.get("type") == "Result":
            port = layer.find("./input/port")
            source = sources.get((number, port.get("id", ""))) if port is not None else None
            if port is None or source is None or source[0] not in layers:
                raise BadInput(f"{path} has an output that nothing feeds; convert it again")
            giver = layers[source[0]]
            origin = next((p for p in giver.findall("./output/port") if p.get("id") == source[1]), port)
            named = layer.get("output_names", "").split(",")[0]
            dims = [dim.text or "-1" for dim in port.findall("dim")]
            outputs.append(_spec(named or _name(origin, giver), origin.get("precision", "").lower(), dims))
    if not inputs or not outputs:
        raise BadInput(f"{path} has no inputs or no outputs; convert it again")
    return Signature(inputs=tuple(inputs), outputs=tuple(outputs))


def _name(port: ElementTree.Element, layer: ElementTree.Element) -> str:
    return port.get("names", "").split(",")[0] or layer.get("name", "")


def _spec(name: str, kind: str, shape: list[str]) -> TensorSpec:
    sizes = tuple((_BATCH if axis == 0 else "?") if size == "-1" else int(size) for axis, size in enumerate(shape))
    return TensorSpec(name=name, dtype=_DTYPES.get(kind, kind), shape=sizes)


def converted(source: Any, signature: Signature) -> Any:
    """Return the `openvino.Model` of an ONNX file or a PyTorch program, with the names and sizes of its signature.

    Raises:
        Refused: OpenVINO can't convert it, or lost or added an input or output.
    """
    openvino = import_openvino("converting to OpenVINO")
    try:
        with quiet():
            graph = openvino.convert_model(source)
    except Exception as error:  # its front ends raise types of their own, which can't be imported here
        raise Refused(f"openvino can't convert this model: {_last_line(error)}") from error
    for kind, ports, specs in (
        ("inputs", graph.inputs, signature.inputs),
        ("outputs", graph.outputs, signature.outputs),
    ):
        if len(ports) != len(specs):
            raise Refused(f"openvino made {len(ports)} {kind} of {len(specs)}; one may be there that nothing uses")
        for port, spec in zip(ports, specs, strict=True):
            port.get_tensor().set_names({spec.name})
    shapes = {spec.name: [size if isinstance(size, int) else -1 for size in spec.shape] for spec in signature.inputs}
    graph.reshape({name: openvino.PartialShape(shape) for name, shape in shapes.items()})
    number_names(graph)
    return graph


def _last_line(error: Exception) -> str:
    """Return the line of an OpenVINO error that says something: the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


def number_names(graph: Any) -> None:
    """Replace names that OpenVINO numbers by a counter of the process, so that equal models are equal files."""
    graph.set_friendly_name("model")
    for number, operator in enumerate(graph.get_ordered_ops()):
        kind = operator.get_type_name()
        if re.fullmatch(r"[A-Za-z]+_\d+", operator.get_friendly_name()):
            operator.set_friendly_name(f"{kind}_{number}")
