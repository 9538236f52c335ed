"""Exported programs: what could run code is refused before PyTorch sees the file."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.errors import BadInput, Unsafe
from trimtab.core.protocols import Opening

torch = pytest.importorskip("torch")

from trimtab.formats.torch_export import TorchExportFormat, check, expression_ok  # noqa: E402 (after the skip)
from trimtab.formats.torch_tracing import caller  # noqa: E402

GRAPH = "models/model.json"


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.torch_like = torch.nn.Linear(4, 3)

    def forward(self, x, y):  # type: ignore[no-untyped-def]
        return {"sum": self.torch_like(x[: x.shape[0] // 2 * 2]), "difference": x - y}


@pytest.fixture(scope="module")
def network() -> Any:
    torch.set_num_threads(1)
    return Net().eval()


@pytest.fixture(scope="module")
def exported(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as a user's own script writes it."""
    path: Path = tmp_path_factory.mktemp("user") / "program.pt2"
    auto = torch.export.Dim.AUTO
    program = torch.export.export(
        network, (torch.zeros(4, 4),), {"y": torch.zeros(4, 4)}, dynamic_shapes={"x": {0: auto}, "y": {0: auto}}
    )
    torch.export.save(program, path)
    return path


def changed(path: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Write the archive again after `change` has edited its members in place."""
    with zipfile.ZipFile(path) as archive:
        top = archive.namelist()[0].partition("/")[0]
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{top}/{name}", content)
    return target


def in_graph(edit: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        document = json.loads(members[GRAPH])
        edit(document)
        members[GRAPH] = json.dumps(document).encode()

    return change


def member(name: str, content: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({name: content})


def first_node(document: Any) -> Any:
    return document["graph_module"]["graph"]["nodes"][0]


def unpickled_weight(members: dict[str, bytes]) -> None:
    name = "data/weights/model_weights_config.json"
    table = json.loads(members[name])
    next(iter(table["config"].values()))["use_pickle"] = True
    members[name] = json.dumps(table).encode()


def opaque_constant(members: dict[str, bytes]) -> None:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
    members["data/constants/model_constants_config.json"] = json.dumps({"config": {"c": entry}}).encode()


def tree_of(kind: str, context: str) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        tree = [1, {"type": kind, "context": context, "children_spec": []}]
        document["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps(tree)

    return edit


def size_of(expression: str) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        sizes = document["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = expression

    return edit


def extra_operator_argument(document: Any) -> None:
    first_node(document)["inputs"].append({"name": "f", "arg": {"as_operator": "torch.os.system"}, "kind": 1})


def input_named(document: Any) -> None:
    document["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"] = "x=__import__('os')"


ATTACKS = {
    "an operator of the system": in_graph(lambda d: first_node(d).update(target="torch.os.system")),
    "an operator that calls anything": in_graph(lambda d: first_node(d).update(target="_operator.methodcaller")),
    "an operator that reads files": in_graph(lambda d: first_node(d).update(target="torch.ops.aten.from_file.default")),
    "an operator as an argument": in_graph(extra_operator_argument),
    "a size that imports": in_graph(size_of("__import__('os').system('true')")),
    "a size that reaches into an object": in_graph(size_of("Symbol('s0').func.mro()")),
    "a default factory": in_graph(tree_of("collections.defaultdict", '{"default_factory_module": "this"}')),
    "an enumeration": in_graph(tree_of("builtins.dict", '[{"__enum__": true, "fqn": "this:A", "name": "B"}]')),
    "a name that is code": in_graph(input_named),
    "a weight to unpickle": unpickled_weight,
    "a constant to unpickle": opaque_constant,
    "native code": member("data/aotinductor/model/model.so", b"\x7fELF"),
    "legacy weights": member("data/weights/model.pt", b""),
    "a custom object": member("data/constants/custom_obj_0", b""),
    "a second program": member("models/other.json", b"{}"),
}


def test_opens_a_users_program_and_answers_like_the_module(exported: Path, network: Any, tmp_path: Path) -> None:
    model = TorchExportFormat().open(str(exported), Opening(folder=tmp_path))
    assert [(spec.name, spec.dtype, spec.shape) for spec in model.signature.inputs] == [
        ("x", "float32", ("batch", 4)),
        ("y", "float32", ("batch", 4)),
    ]
    assert [spec.name for spec in model.signature.outputs] == ["sum", "difference"]
    x, y = torch.randn(5, 4), torch.randn(5, 4)
    found = caller(TorchExportFormat().load(model), model.signature)({"x": x, "y": y})
    expected = network(x, y)
    assert torch.equal(found["sum"], expected["sum"])
    assert torch.equal(found["difference"], expected["difference"])


def test_opening_twice_gives_the_same_digest_and_leaves_the_file_alone(exported: Path, tmp_path: Path) -> None:
    before = exported.read_bytes()
    models = [TorchExportFormat().open(str(exported), Opening(folder=tmp_path / name)) for name in "ab"]
    assert models[0].digest == models[1].digest
    assert models[0].path.parent == tmp_path / "a"
    assert exported.read_bytes() == before


def test_says_what_it_holds_without_pytorch(exported: Path, tmp_path: Path) -> None:
    found = TorchExportFormat().contents(TorchExportFormat().open(str(exported), Opening(folder=tmp_path)))
    assert found.parameters == (("float32", 4 * 3 + 3),)
    assert dict(found.operators)["linear"] == 1
    assert found.quantization is None


@pytest.mark.parametrize("attack", ATTACKS)
def test_refuses(attack: str, exported: Path, tmp_path: Path) -> None:
    path = changed(exported, tmp_path / "evil.pt2", ATTACKS[attack])
    with pytest.raises(Unsafe, match="could run code") as caught:
        TorchExportFormat().open(str(path), Opening(folder=tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "run").iterdir()) == []


def test_sample_inputs_and_guards_never_reach_pytorch(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (Path("touched"),))

    def change(members: dict[str, bytes]) -> None:
        buffer = io.BytesIO()
        torch.save((Evil(),), buffer)
        members["data/sample_inputs/model.pt"] = buffer.getvalue()
        in_graph(lambda d: d.update(guards_code=["__import__('pathlib').Path('touched').touch() or True"]))(members)

    monkeypatch.chdir(tmp_path)
    path = changed(exported, tmp_path / "evil.pt2", change)
    with pytest.raises(Unsafe, match="not the copy"):
        check(path)
    model = TorchExportFormat().open(str(path), Opening(folder=tmp_path / "run"))
    TorchExportFormat().load(model).module()
    assert not Path("touched").exists()


def test_a_copy_that_was_changed_afterwards_is_refused_when_loaded(exported: Path, tmp_path: Path) -> None:
    model = TorchExportFormat().open(str(exported), Opening(folder=tmp_path))
    changed(model.path, model.path, member("data/sample_inputs/model.pt", pickle.dumps(())))
    with pytest.raises(Unsafe, match="not the copy"):
        TorchExportFormat().load(model)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but no more", b"not a zip file"])
def test_a_damaged_file_is_one_clear_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"not a program saved by torch\.export\.save, or it is damaged"):
        TorchExportFormat().open(str(path), Opening(folder=tmp_path / "run"))


def test_a_truncated_file_is_one_clear_line(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    path.write_bytes(exported.read_bytes()[:-100])
    with pytest.raises(BadInput, match="damaged"):
        TorchExportFormat().open(str(path), Opening(folder=tmp_path / "run"))


def test_a_trusted_program_is_written_anew_and_checked(exported: Path, tmp_path: Path) -> None:
    model = TorchExportFormat().open(str(exported), Opening(folder=tmp_path, trust_pickle=True))
    check(model.path)
    assert model.signature.inputs[0].shape == ("batch", 4)


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("Symbol('s40', positive=True, integer=True)", True),
        ("FloorDiv(Add(Symbol('s27', positive=True, integer=True), Integer(1)), Integer(2))", True),
        ("2*s0 + 1", True),
        ("Symbol('x')", False),
        ("s0.__class__", False),
        ("(lambda: 1)()", False),
        ("[s0 for s0 in s1]", False),
        ("exec('1')", False),
        ("Symbol('s0', commutative=True)", False),
        ("s0[0]", False),
        ("1 +", False),
    ],
)
def test_sizes_are_arithmetic_on_symbols(text: str, ok: bool) -> None:
    assert expression_ok(text) == ok


@pytest.mark.parametrize("kind", ["no such program", "another kind of zip"])
def test_a_file_that_is_no_program_is_one_clear_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    if kind == "another kind of zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/version", "0")
    with pytest.raises(BadInput, match=r"there is no file|holds no exported program") as caught:
        TorchExportFormat().open(str(path), Opening(folder=tmp_path / "run"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("member_name", ["data/weights/model_weights_config.json", "models/model.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"config": 1}', b"\xff\xfe"])
def test_tables_that_are_not_as_they_should_be_are_one_clear_line(
    member_name: str, content: bytes, exported: Path, tmp_path: Path
) -> None:
    path = changed(exported, tmp_path / "p.pt2", member(member_name, content))
    with pytest.raises(BadInput) as caught:
        TorchExportFormat().open(str(path), Opening(folder=tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "run").iterdir()) == []


def test_an_archive_inside_the_archive_is_not_mistaken_for_it(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.pt2"
    path.write_bytes(b"\0" * 512 + exported.read_bytes())
    with pytest.raises(BadInput, match="damaged"):
        check(path)


def test_states_are_named_by_the_user(exported: Path, tmp_path: Path) -> None:
    model = TorchExportFormat().open(str(exported), Opening(folder=tmp_path, states=(("y", "difference"),)))
    assert [(spec.name, spec.role, spec.fed_by) for spec in model.signature.inputs] == [
        ("x", "data", None),
        ("y", "state", "difference"),
    ]
    assert [spec.role for spec in model.signature.outputs] == ["data", "state"]
    with pytest.raises(BadInput, match="is not in the model"):
        TorchExportFormat().open(str(exported), Opening(folder=tmp_path, states=(("y", "absent"),)))


def test_what_is_opened_keeps_the_names_it_was_saved_with(tmp_path: Path) -> None:
    from trimtab.formats.torch import save_module

    given = {"x": torch.zeros(1, 5, 4), "y": torch.zeros(1, 5, 4)}
    axes = {name: {0: "batch", 1: "время"} for name in given}
    saved = save_module(Net(), given, tmp_path, output_names=["сумма", "разность"], dynamic_axes=axes)
    again = TorchExportFormat().open(str(saved.path), Opening(folder=tmp_path / "again"))
    assert again.signature == saved.signature
    assert again.digest == saved.digest
    assert [spec.name for spec in again.signature.outputs] == ["сумма", "разность"]


def test_claims_files_that_end_in_pt2(exported: Path, tmp_path: Path) -> None:
    assert TorchExportFormat().claims(str(exported))
    assert not TorchExportFormat().claims(str(tmp_path / "absent.pt2"))
    assert not TorchExportFormat().claims(str(exported.parent))


@pytest.mark.parametrize("damage", ["content", "encryption"])
def test_an_archive_that_is_packed_and_damaged_is_one_clear_line(damage: str, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.pt2"
    with zipfile.ZipFile(exported) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
        place = next(info for info in packed.infolist() if info.filename.endswith(GRAPH))
    content = bytearray(path.read_bytes())
    start = place.header_offset + 30 + len(place.filename)
    if damage == "content":
        content[start : start + 200] = bytes(200)
    else:
        content[place.header_offset + 6] |= 1
        central = content.rindex(place.filename.encode()) - 46
        content[central + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match="or it is damaged") as caught:
        check(path)
    assert "\n" not in str(caught.value)
