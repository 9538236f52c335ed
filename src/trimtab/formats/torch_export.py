"""PyTorch programs exported by torch.export (`.pt2`), read without running anything that is in the file.

`torch.export.load` of torch 2.13 is not safe on a foreign file. It unpickles without restriction weights and
constants that are marked `use_pickle`, custom and opaque objects, and, silently after `weights_only=True` has failed,
legacy weights and the sample inputs; it evaluates shape expressions (`sympy.sympify`) and input guards (`exec`) as
Python; names become Python source when the graph is compiled; operators are looked up as attributes of the module
`torch` (so `torch.os.system` is one); tree specifications can import any module; compiled packages hold native code.
So a file is first read here as what it is, a zip file of JSON and raw tensors, and refused when it needs any of these;
every text in it must be a plain name. What was checked is written to a new archive in the run's folder, without guards,
sample inputs and source positions, and only such a copy is ever given to PyTorch. `trust_pickle` skips the check once,
at opening; the copy is written anew from the loaded program and has to pass it.
"""

from __future__ import annotations

import ast
import json
import math
import re
import tempfile
import zipfile
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.core.codec import dumps, loads
from trimtab.core.errors import BadInput, Unsafe
from trimtab.core.files import digest_files, disk_errors, make_folder
from trimtab.core.protocols import Opening
from trimtab.core.values import Contents, Model, Signature, Work, Workload, options
from trimtab.formats import torch_macs
from trimtab.formats.states import with_states
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, export, first_line, import_torch, program_signature, quiet

_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)|models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|extra/trimtab\.json"
)
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|quantized|quantized_decomposed|torchvision|onnx|onnx_symbolic)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|map_impl|associative_scan|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\.sym_\w+|math\.\w+"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|index|eq|ne|lt|le|gt|ge|and_|or_|not_|lshift|rshift|getitem)"
)
_FORBIDDEN_OPERATORS = re.compile(r"torch\.ops\.aten\.(from_file|save|load)\b")
_PLAIN = re.compile(r"[\w.:+\-]*")
_FREE_TEXT = ("as_string", "torch_version")
_TREE_KEYS = re.compile(r'null|\[\]|\[("\w+"(, )?)+\]')
_TREE_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
_EXPRESSIONS = {
    "Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Eq", "Ne", "Le", "Lt", "Ge", "Gt", "And", "Or",
    "Not", "Equality", "Unequality", "LessThan", "StrictLessThan", "GreaterThan", "StrictGreaterThan",
    "Max", "Min", "Abs", "floor", "ceiling", "oo", "int_oo", "true", "false", "FloorDiv", "ModularIndexing", "Where",
    "PythonMod", "Mod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural",
    "FloatPow", "FloatTrueDiv", "IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "TruncToFloat", "TruncToInt",
    "RoundToInt", "RoundDecimal", "ToFloat", "Identity",
}  # fmt: skip
_SYMBOL = re.compile(r"[su]\d+|zuf\d+")
_SCALAR_TYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16",
}  # fmt: skip
_SAMPLES = "data/sample_inputs/model.pt"
_MAX_JSON = 1 << 28


class TorchExportFormat:
    """Programs saved by `torch.export.save`."""

    name = "torch-export"
    reads = ("states",)

    def claims(self, source: str) -> bool:
        """Claim zip files that end in `.pt2`."""
        path = Path(source)
        return path.suffix == ".pt2" and path.is_file()

    def open(self, source: str, opening: Opening) -> Model:
        """Check the file, write what was checked to the run's folder and return that copy as a model.

        Raises:
            Unsafe: It needs unpickling, native code or anything else that could run code.
            BadInput: It is no such file, or damaged.
        """
        path = Path(source)
        make_folder(opening.folder)
        if opening.trust_pickle:
            program = _load(path)
            model = save_program(program, opening.folder, program_signature(program))
        else:
            with tempfile.TemporaryDirectory(dir=opening.folder) as scratch:
                copy = Path(scratch) / "checked.pt2"
                check(path, copy)
                program = _load(copy)
                model = _placed(copy, opening.folder, _kept_signature(copy) or program_signature(program))
        return replace(model, signature=with_states(model.signature, opening.states))

    def load(self, model: Model) -> Any:
        """Return the `torch.export.ExportedProgram`; the file is checked again, for it may have travelled."""
        check(model.path)
        return _load(model.path)

    def contents(self, model: Model) -> Contents:
        """Return the operators and parameters of the program, from its tables alone."""
        with zipfile.ZipFile(model.path) as archive:
            members = _members(archive, model.path)
            weights = json.loads(archive.read(members[_CONFIGS[0]]))["config"].values()
            document = json.loads(archive.read(members["models/model.json"]))
        targets = [node["target"] for node in document["graph_module"]["graph"]["nodes"]]
        names = [target.removeprefix("torch.ops.").removeprefix("aten.").partition(".")[0] for target in targets]
        low = sorted({target.split(".")[3] for target in targets if target.startswith("torch.ops.quantized")})
        # Tied weights are entries of their own that name the same bytes.
        tensors = {
            (entry["path_name"], str(entry["tensor_meta"])): entry["tensor_meta"]
            for entry in weights
            if entry["is_param"]
        }
        parameters: Counter[str] = Counter()
        for tensor in tensors.values():
            kind = _SCALAR_TYPES.get(tensor["dtype"], f"type {tensor['dtype']}")
            parameters[kind] += math.prod(size["as_int"] for size in tensor["sizes"])
        return Contents(
            files=(model.path,),
            operators=tuple(Counter(names).most_common()),
            parameters=tuple(parameters.most_common()),
            control_flow=tuple(sorted({target.split(".")[3] for target in targets if ".higher_order." in target})),
            quantization=f"operators of PyTorch's quantized kind ({', '.join(low)})" if low else None,
            facts=options(pytorch=document["torch_version"]),
        )

    def work(self, model: Model, workload: Workload) -> Work:
        """Return the multiply-accumulates of one call, counted on the program's graph."""
        return torch_macs.work(model, workload)


def save_program(program: Any, folder: Path, signature: Signature) -> Model:
    """Write an exported program to the folder under the name of its content and return it as a model."""
    torch = import_torch("saving a PyTorch program")
    make_folder(folder)
    program._example_inputs = None  # they would be pickled, and nobody needs them
    with tempfile.TemporaryDirectory(dir=folder) as scratch, disk_errors(folder):
        raw, copy = Path(scratch) / "raw.pt2", Path(scratch) / "checked.pt2"
        try:
            with quiet():
                torch.export.save(program, str(raw), extra_files={"trimtab.json": dumps(signature)})
        except FOREIGN_ERRORS as error:
            raise BadInput(f"PyTorch can't save this program ({first_line(error)}); give its factory") from error
        check(raw, copy)
        return _placed(copy, folder, signature)


def module_to_model(module: Any, signature: Signature, folder: Path) -> Model:
    """Export a live module and return the program as a model; a batch that can't stay free is fixed at 1."""
    try:
        program = export(module, signature)
    except BadInput as free:
        try:
            program = export(module, signature, batch=1)
        except BadInput:
            raise free from None
    names = [spec.name for spec in signature.outputs]
    return save_program(program, folder, program_signature(program, signature.inputs, names))


def check(path: Path, copy: Path | None = None) -> None:
    """Refuse a file whose loading could run code.

    With `copy`, what was checked is written there. Without it the file itself must be such a copy already.

    Raises:
        Unsafe: It could run code; the message says what was found.
        BadInput: It is not a readable `.pt2` file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            _check_tables(archive, members, path)
            graph = json.dumps(_graph(archive, members, path)).encode()
            if copy is not None:
                _write_copy(archive, members, graph, copy)
            elif archive.read(members["models/model.json"]) != graph or archive.read(members[_SAMPLES]):
                raise Unsafe(_refusal(path, "it is not the copy that was made when the model was opened"))
    except FileNotFoundError as error:
        raise BadInput(f"there is no file {path}; check the path") from error
    except (*FOREIGN_ERRORS, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(
            f"{path} is not a program saved by torch.export.save, or it is damaged ({first_line(error)})"
        ) from error


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, str]:
    """Return the members by their name below the archive's only top folder; refuse unknown ones."""
    members: dict[str, str] = {}
    if min((info.header_offset for info in archive.infolist()), default=1):
        # The end is cut off and what was found is an archive inside the archive.
        raise zipfile.BadZipFile("its table of contents is missing")
    for full in archive.namelist():
        top, _, name = full.partition("/")
        if not _MEMBERS.fullmatch(name) or name in members or top != archive.namelist()[0].partition("/")[0]:
            raise Unsafe(_refusal(path, f"it holds {full!r}, which is not a plain tensor or table"))
        members[name] = full
    if "models/model.json" not in members:
        raise BadInput(f"{path} holds no exported program; save one with torch.export.save(program, path)")
    return members


def _refusal(path: Path, why: str) -> str:
    return f"{path} could run code when it is loaded: {why}; if you trust who made it, add --trust-pickle"


def _check_tables(archive: zipfile.ZipFile, members: dict[str, str], path: Path) -> None:
    for name in _CONFIGS:
        if name not in members:
            raise BadInput(f"{path} holds no {name}; export it again with PyTorch 2.8 or later")
        for tensor, entry in json.loads(archive.read(members[name]))["config"].items():
            if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                raise Unsafe(_refusal(path, f"{tensor!r} is a pickled object"))


def _graph(archive: zipfile.ZipFile, members: dict[str, str], path: Path) -> Any:
    """Return the program's graph as it may be loaded: checked, without guards and without source positions."""
    member = archive.getinfo(members["models/model.json"])
    if member.file_size > _MAX_JSON:
        raise BadInput(f"{path} has a graph of more than {_MAX_JSON >> 20} MiB; torch.export saves no such program")
    document = json.loads(archive.read(member))
    document["guards_code"] = []
    module = document["graph_module"]
    module["metadata"] = {}
    if module["graph"].get("custom_obj_values") or module.get("treespec_namedtuple_fields"):
        raise Unsafe(_refusal(path, "it holds objects other than tensors"))
    if not all("as_tensor" in given for given in module["graph"]["inputs"]):
        raise BadInput(f"{path} has inputs that are not tensors; export it with tensors only")
    _check_graph(document, path)
    return document


def _check_graph(document: Any, path: Path) -> None:
    """Refuse any text that is not a plain name, an operator, arithmetic on sizes or a tree of tensors."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, list):
            waiting.extend((key, inner) for inner in value)
        elif isinstance(value, dict):
            operator = "target" in value and "inputs" in value
            if operator:
                stack = value.get("metadata", {}).get("nn_module_stack")
                value["metadata"] = {"nn_module_stack": stack} if stack else {}
            waiting.extend(
                ("operator" if operator and k == "target" else k, v) for k, v in value.items() if k != "metadata"
            )
            waiting.extend(("key", name) for name in value)
        if isinstance(value, str) and not _text_ok(key, value):
            raise Unsafe(_refusal(path, f"{_WHAT.get(key, 'a name')} is {value[:80]!r}"))


_WHAT = {
    "operator": "an operator",
    "as_operator": "an operator",
    "expr_str": "a size",
    "in_spec": "the structure of its inputs",
    "out_spec": "the structure of its outputs",
}


def _text_ok(key: str, text: str) -> bool:
    if key in ("operator", "as_operator"):
        return bool(_TARGET.fullmatch(text)) and not _FORBIDDEN_OPERATORS.match(text)
    if key in ("in_spec", "out_spec"):
        return not text or _tree_ok(json.loads(text)[1])
    if key == "expr_str":
        return expression_ok(text)
    if key == "name":
        return bool(re.fullmatch(r"\w*", text))
    return key in _FREE_TEXT or bool(_PLAIN.fullmatch(text))


def _tree_ok(tree: Any) -> bool:
    plain = tree["context"] is None or bool(_TREE_KEYS.fullmatch(tree["context"]))
    return plain and tree["type"] in _TREE_TYPES and all(_tree_ok(child) for child in tree["children_spec"])


def expression_ok(text: str) -> bool:
    """Say whether a size expression is arithmetic on symbols, in the functions that torch.export writes."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_node_ok(node) for node in ast.walk(tree))


def _node_ok(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _EXPRESSIONS or bool(_SYMBOL.fullmatch(node.id))
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) or bool(_SYMBOL.fullmatch(str(node.value)))
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.keyword):
        return node.arg in ("positive", "integer", "nonnegative", "real", "evaluate")
    plain = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop, ast.Load)
    return isinstance(node, plain)


def _write_copy(archive: zipfile.ZipFile, members: dict[str, str], graph: bytes, copy: Path) -> None:
    """Write the checked members with fixed times, so that equal programs are equal files."""
    replaced = {"models/model.json": graph, _SAMPLES: b""}
    with disk_errors(copy), zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as target:
        for name in sorted({*members, _SAMPLES} - {".data/serialization_id"}):
            content = replaced[name] if name in replaced else archive.read(members[name])
            target.writestr(zipfile.ZipInfo(f"program/{name}"), content)


def _load(path: Path) -> Any:
    torch = import_torch("opening a PyTorch program")
    try:
        with quiet():
            return torch.export.load(str(path))
    except FOREIGN_ERRORS as error:
        raise BadInput(
            f"PyTorch {torch.__version__} can't load {path.name} ({first_line(error)}); export it again"
        ) from error


def _kept_signature(path: Path) -> Signature | None:
    """Return the signature that `save_program` put into the file, or None."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/extra/trimtab.json")]
        return loads(Signature, archive.read(names[0]).decode(errors="replace")) if names else None


def _placed(copy: Path, folder: Path, signature: Signature) -> Model:
    digest = digest_files([copy])
    final = folder.absolute() / f"{digest[:12]}.pt2"
    copy.chmod(0o644)
    copy.replace(final)
    return Model(format=TorchExportFormat.name, path=final, digest=digest, signature=signature)
