"""Exports keep the answers, the names and the free dimensions, or refuse."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.core import plugins
from trimtab.core.errors import Refused
from trimtab.core.protocols import Context
from trimtab.core.values import Model, Settings, Signature, Task, TensorSpec, Variant, options

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from trimtab.formats.torch import save_module  # noqa: E402 (after the skip)
from trimtab.techniques.agreement import check_agreement  # noqa: E402
from trimtab.techniques.export_onnx import ExportOnnx, _cause, _drop_metadata, fixed  # noqa: E402
from trimtab.techniques.export_openvino import ExportOpenVino  # noqa: E402

nn = torch.nn


class Attention(nn.Module):
    """A small transformer over tokens with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, tokens, mask):  # type: ignore[no-untyped-def]
        x = self.embed(tokens)
        x = x + self.attend(x, x, x, key_padding_mask=mask == 0, need_weights=False)[0]
        return {"logits": self.head(x.mean(1)), "hidden": x}


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x, h):  # type: ignore[no-untyped-def]
        after = self.cell(x, h)
        return self.head(after), after


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def cnn(folder: Path) -> Model:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )
    return save_module(network, {"input": torch.zeros(1, 1, 8, 8)}, folder)


def transformer(folder: Path) -> Model:
    given = {"tokens": torch.ones(1, 6, dtype=torch.int64), "mask": torch.ones(1, 6, dtype=torch.int64)}
    axes = {name: {0: "batch", 1: "sequence"} for name in given}
    return save_module(Attention(), given, folder, dynamic_axes=axes)


def cell(folder: Path) -> Model:
    given = {"x": torch.zeros(1, 3), "h": torch.zeros(1, 5)}
    return save_module(Cell(), given, folder, output_names=["y", "h_next"], states=[("h", "h_next")])


NETWORKS = [cnn, transformer, cell]


def context(variant: Variant, folder: Path) -> Context:
    return Context(
        task=Task(), original=variant, folder=folder, seed=0, deadline=math.inf,
        evaluate=lambda made, most=None: 0.0, time=lambda _: 0.0,
    )  # fmt: skip


def as_given(model: Model) -> Variant:
    return Variant(model=model, settings=Settings(runtime="torch"))


def outputs(variant: Variant, feeds: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = plugins.make("runtimes", variant.settings.runtime).load(variant)(feeds)
    return found


def feeds_for(model: Model, batch: int) -> dict[str, Any]:
    random = np.random.default_rng(1)
    made: dict[str, Any] = {}
    for spec in model.signature.inputs:
        shape = [{"batch": batch, "sequence": 7}.get(s, s) if isinstance(s, str) else s for s in spec.shape]
        whole = (
            random.integers(1, 20, shape) if spec.dtype == "int64" else random.standard_normal(shape, dtype=np.float32)
        )
        made[spec.name] = np.ones(shape, np.int64) if spec.name == "mask" else whole
    return made


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("technique", [ExportOnnx, ExportOpenVino])
def test_the_export_answers_like_pytorch_at_every_batch(
    network: Callable[[Path], Model], technique: type[Any], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    variant = as_given(network(tmp_path / "torch"))
    made = technique().apply(variant, context(variant, tmp_path / "made"))
    assert made.model.signature == variant.model.signature
    assert made.steps[-1].technique == technique.name
    assert made.settings.runtime in ("onnxruntime", "openvino")
    for batch in (1, 4):
        feeds = feeds_for(variant.model, batch)
        expected, found = outputs(variant, feeds), outputs(made, feeds)
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("technique", [ExportOnnx, ExportOpenVino])
def test_exporting_twice_gives_the_same_bytes_and_leaves_the_given_variant_alone(
    technique: type[Any], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    variant = as_given(cnn(tmp_path / "torch"))
    before = variant.model.path.read_bytes()
    made = [technique().apply(variant, context(variant, tmp_path / name)) for name in "ab"]
    assert made[0].model.digest == made[1].model.digest
    assert made[0].key == made[1].key
    assert variant.model.path.read_bytes() == before


def test_onnx_converts_to_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    variant = as_given(transformer(tmp_path / "torch"))
    onnx_variant = ExportOnnx().apply(variant, context(variant, tmp_path / "onnx"))
    made = ExportOpenVino().apply(onnx_variant, context(variant, tmp_path / "ir"))
    assert [step.technique for step in made.steps] == ["export-onnx", "export-openvino"]
    assert made.model.signature == variant.model.signature


def test_the_onnx_file_names_its_free_dimensions_and_holds_no_paths(tmp_path: Path) -> None:
    from trimtab.formats.onnx import OnnxFormat

    variant = as_given(transformer(tmp_path / "torch"))
    made = ExportOnnx().apply(variant, context(variant, tmp_path / "made"))
    proto = OnnxFormat().load(made.model)
    assert [d.dim_param for d in proto.graph.input[0].type.tensor_type.shape.dim] == ["batch", "sequence"]
    assert b"/site-packages/" not in made.model.path.read_bytes()


def test_an_opset_can_be_asked_for(tmp_path: Path) -> None:
    from trimtab.formats.onnx import OnnxFormat

    variant = as_given(cnn(tmp_path / "torch"))
    made = ExportOnnx(opset=18).apply(variant, context(variant, tmp_path / "made"))
    assert [o.version for o in OnnxFormat().load(made.model).opset_import if o.domain == ""] == [18]
    assert made.steps[-1].options == options(opset=18, batch=None)


def test_a_batch_that_tracing_fixes_is_said_in_the_step(tmp_path: Path) -> None:
    (tmp_path / "fixed.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
        "        return torch.cat([row * 2 for row in x.split(1)])\n\nexample_inputs = torch.zeros(2, 3)\n"
    )
    from trimtab.core.protocols import Opening
    from trimtab.formats.torch import TorchFormat

    model = TorchFormat().open(f"{tmp_path / 'fixed.py'}:Net", Opening(folder=tmp_path / "run"))
    assert model.signature.inputs == (TensorSpec(name="x", dtype="float32", shape=("batch", 3)),)
    variant = as_given(model)
    made = ExportOnnx().apply(variant, context(variant, tmp_path / "made"))
    assert dict(made.steps[-1].options)["batch"] == 1
    assert made.model.signature.inputs[0].shape == (1, 3)
    chosen = ExportOnnx(batch=4).apply(variant, context(variant, tmp_path / "four"))
    assert chosen.model.signature.outputs[0].shape == (4, 3)


def test_a_users_program_is_exported_at_the_batch_asked_for(tmp_path: Path) -> None:
    from trimtab.core.protocols import Opening
    from trimtab.formats.torch_export import TorchExportFormat

    free = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(nn.Linear(4, 3).eval(), (torch.zeros(2, 4),), dynamic_shapes=free)
    torch.export.save(program, tmp_path / "program.pt2")
    model = TorchExportFormat().open(str(tmp_path / "program.pt2"), Opening(folder=tmp_path))
    variant = as_given(model)
    made = ExportOnnx(batch=4).apply(variant, context(variant, tmp_path / "made"))
    assert [spec.shape for spec in (*made.model.signature.inputs, *made.model.signature.outputs)] == [(4, 4), (4, 3)]


def test_control_flow_on_values_is_refused_with_pytorchs_reason(tmp_path: Path) -> None:
    (tmp_path / "branch.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
        "        return x if x.sum() > 0 else -x\n\nexample_inputs = torch.zeros(2, 3)\n"
    )
    from trimtab.core.protocols import Opening
    from trimtab.formats.torch import TorchFormat

    model = TorchFormat().open(f"{tmp_path / 'branch.py'}:Net", Opening(folder=tmp_path / "run"))
    variant = as_given(model)
    with pytest.raises(Refused, match=r"torch\.export can't trace this module") as caught:
        ExportOnnx().apply(variant, context(variant, tmp_path / "made"))
    assert "\n" not in str(caught.value)


def test_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    model = cnn(tmp_path)
    other = as_given(Model(format="openvino", path=model.path, digest="", signature=model.signature))
    assert "this one is openvino" in (ExportOnnx().refuses(other, Task()) or "")
    assert "this one is openvino" in (ExportOpenVino().refuses(other, Task()) or "")
    assert ExportOnnx().refuses(as_given(model), Task()) is None


def test_a_conversion_that_changes_the_answers_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one, other = as_given(cnn(tmp_path / "one")), as_given(cnn(tmp_path / "other"))
    check_agreement(one, one, seed=0)
    with pytest.raises(Refused, match="differs by up to"):
        check_agreement(one, other, seed=0)


def test_a_batch_that_is_asked_for_is_fixed_in_openvino_too(tmp_path: Path, given: Any) -> None:
    pytest.importorskip("openvino")
    traced = as_given(save_module(nn.Linear(4, 3), torch.zeros(1, 4), tmp_path / "torch"))
    for number, variant in enumerate((traced, given("cnn")[0])):
        made = ExportOpenVino(batch=2).apply(variant, context(variant, tmp_path / f"{number}"))
        assert {spec.shape[0] for spec in (*made.model.signature.inputs, *made.model.signature.outputs)} == {2}
        assert made.steps[-1].options == options(batch=2)
    again = plugins.make("techniques", made.steps[-1].technique, made.steps[-1].options)
    assert again.apply(variant, context(variant, tmp_path / "again")).model.digest == made.model.digest


def test_exports_keep_the_weights_and_say_what_they_make() -> None:
    from trimtab.formats.openvino import OpenVinoFormat

    assert (ExportOnnx().lossless, ExportOpenVino().lossless) == (True, True)
    assert (ExportOnnx().produces, ExportOpenVino().produces) == ("onnx", OpenVinoFormat.name)


@pytest.mark.parametrize("kept", ["pkg.torch.onnx.name_scopes"])
def test_remarks_of_the_exporter_are_dropped_at_any_depth(kept: str) -> None:
    from onnx import helper

    inner = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["o"])], "b", [], [helper.make_empty_tensor_value_info("o")]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    function = helper.make_function("m", "F", [], ["k"], [helper.make_node("Abs", ["x"], ["k"])], [])
    proto = helper.make_model(helper.make_graph([node], "g", [], [helper.make_empty_tensor_value_info("y")]))
    proto.functions.append(function)
    branches = [attribute.g for attribute in proto.graph.node[0].attribute]
    holders = [
        proto, proto.graph, proto.graph.node[0], proto.graph.output[0], proto.functions[0], proto.functions[0].node[0],
        *branches, *(branch.node[0] for branch in branches), *(branch.output[0] for branch in branches),
    ]  # fmt: skip
    for holder in holders:
        holder.metadata_props.add(key="stack_trace", value="/home/someone/secret.py")
        holder.metadata_props.add(key=kept, value="layer")
    _drop_metadata(proto)
    assert b"secret" not in proto.SerializeToString()
    assert all([entry.key for entry in holder.metadata_props] == [kept] for holder in holders)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("No decompositions registered for the complex-valued input of aten.fft", "No decompositions registered"),
        ("conversion failed\nbecause of aten.cummax.default", r"conversion failed \(aten\.cummax\.default\)"),
        ("", "^ValueError$"),
    ],
)
def test_the_operator_that_is_missing_is_named(message: str, says: str) -> None:
    import re

    outer = RuntimeError("the export failed, see the report of 200 lines")
    outer.__cause__ = ValueError(message)
    assert re.search(says, _cause(outer))


def spec(*shape: int | str) -> TensorSpec:
    return TensorSpec(name="x", dtype="float32", shape=shape)


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ([spec("batch", 3)], [spec("batch", 5)], [(2, 3), (2, 5)]),
        ([spec("n", "t"), spec("n")], [spec("t", "n")], [(2, "t"), (2,), ("t", 2)]),
        ([spec("?", "?")], [spec("?", "?")], [(2, "?"), (2, "?")]),
        ([spec("batch", 3), spec(7)], [spec()], [(2, 3), (7,), ()]),
    ],
)
def test_the_batch_is_what_the_first_sizes_of_inputs_are_called(
    inputs: list[TensorSpec], outputs: list[TensorSpec], expected: list[tuple[int | str, ...]]
) -> None:
    signature = Signature(inputs=tuple(inputs), outputs=tuple(outputs))
    found = fixed(signature, 2)
    assert [spec.shape for spec in (*found.inputs, *found.outputs)] == expected
    assert fixed(signature, None) == signature


def test_a_batch_that_is_fixed_already_can_not_be_another() -> None:
    with pytest.raises(Refused, match="leave the option batch out"):
        fixed(Signature(inputs=(spec(1, 3),), outputs=(spec(1, 5),)), 4)
