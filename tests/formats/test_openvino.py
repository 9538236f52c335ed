"""OpenVINO files are read as XML from a stranger; what they say agrees with OpenVINO itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.errors import BadInput, Refused, Unsafe
from trimtab.core.protocols import Opening
from trimtab.core.values import Signature, TensorSpec, Workload
from trimtab.formats.openvino import OpenVinoFormat, converted, import_openvino, number_names, save

openvino: Any = pytest.importorskip("openvino")


def network(names: tuple[str, ...] = ("y", "raw")) -> Any:
    """Two inputs, two outputs; the second is the first before its activation."""
    import numpy as np
    from openvino import opset13 as ops

    image = ops.parameter([-1, 3, -1, 8], np.float32, name="image")
    ids = ops.parameter([-1, 4], np.int64, name="ids")
    image.output(0).get_tensor().set_names({"image"})
    ids.output(0).get_tensor().set_names({"ids"})
    weight = ops.constant(np.arange(15, dtype=np.float32).reshape(3, 5))
    raw = ops.matmul(ops.reduce_mean(image, ops.constant([2, 3]), keep_dims=False), weight, False, False)
    shifted = ops.add(raw, ops.reduce_sum(ops.convert(ids, "f32"), ops.constant([1]), keep_dims=True))
    active = ops.relu(shifted)
    active.output(0).get_tensor().set_names({names[0]})
    shifted.output(0).get_tensor().set_names({names[1]})
    return openvino.Model([active, shifted], [image, ids], "net")


@pytest.fixture
def ir(tmp_path: Path) -> Path:
    import_openvino("testing")
    return save(network(), tmp_path / "ir").path


def opened(path: Path) -> Any:
    return OpenVinoFormat().open(str(path), Opening(folder=path.parent))


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_signature_is_read_from_the_xml_and_agrees_with_openvino(ir: Path) -> None:
    model = opened(ir)
    assert model.signature.inputs == (
        TensorSpec(name="image", dtype="float32", shape=("batch", 3, "?", 8)),
        TensorSpec(name="ids", dtype="int64", shape=("batch", 4)),
    )
    assert [spec.shape for spec in model.signature.outputs] == [("batch", 5), ("batch", 5)]
    live = OpenVinoFormat().load(model)
    assert [spec.name for spec in model.signature.inputs] == [port.any_name for port in live.inputs]
    assert [spec.name for spec in model.signature.outputs] == [port.any_name for port in live.outputs]


def test_equal_models_have_equal_digests_and_others_do_not(tmp_path: Path) -> None:
    first, again = save(network(), tmp_path / "a"), save(network(), tmp_path / "b")
    other = save(network(names=("z", "raw")), tmp_path / "c")
    half = save(network(), tmp_path / "d", compress_to_fp16=True)
    assert first.digest == again.digest
    assert len({first.digest, other.digest, half.digest}) == 3


def test_reading_needs_no_openvino(ir: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys; from pathlib import Path; from trimtab.core.protocols import Opening\n"
        "from trimtab.formats.openvino import OpenVinoFormat\n"
        f"model = OpenVinoFormat().open({str(ir)!r}, Opening(folder=Path('.')))\n"
        "print(len(model.signature.inputs), 'openvino' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]


def test_a_document_type_is_refused_before_anything_is_expanded(ir: Path) -> None:
    entity = '<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    rewrite(ir, '<?xml version="1.0"?>', f'<?xml version="1.0"?>{entity}')
    with pytest.raises(Unsafe, match="document type"):
        opened(ir)


def test_missing_or_truncated_weights_are_named(ir: Path) -> None:
    weights = ir.with_suffix(".bin")
    content = weights.read_bytes()
    weights.write_bytes(content[:-4])
    with pytest.raises(BadInput, match=f"has {len(content) - 4} bytes, the graph needs {len(content)}"):
        opened(ir)
    weights.unlink()
    with pytest.raises(BadInput, match="are missing; put them beside"):
        opened(ir)


def test_weights_that_are_a_link_out_of_the_folder_are_refused(ir: Path, tmp_path: Path) -> None:
    weights = ir.with_suffix(".bin")
    weights.rename(tmp_path / "outside.bin")
    weights.symlink_to(tmp_path / "outside.bin")
    with pytest.raises(Unsafe, match="leaves its folder"):
        opened(ir)


@pytest.mark.parametrize("damage", ["cut", "other xml", "edge", "shape"])
def test_a_damaged_graph_is_one_clear_line(damage: str, ir: Path) -> None:
    if damage == "cut":
        ir.write_text(ir.read_text()[:-40])
    elif damage == "other xml":
        ir.write_text("<html></html>")
    elif damage == "edge":
        rewrite(ir, "from-layer", "no-layer")
    else:
        rewrite(ir, 'size="', 'size="x')
    with pytest.raises(BadInput, match=r"damaged|not an OpenVINO model|not a whole OpenVINO model") as caught:
        opened(ir)
    assert "\n" not in str(caught.value)


def test_state_kept_inside_is_refused(ir: Path) -> None:
    rewrite(ir, 'type="Convert"', 'type="ReadValue"')
    with pytest.raises(BadInput, match="keeps its state inside"):
        opened(ir)


def test_claims_xml_that_begins_with_a_net(ir: Path, tmp_path: Path) -> None:
    (tmp_path / "other.xml").write_text("<html/>")
    assert OpenVinoFormat().claims(str(ir))
    assert not OpenVinoFormat().claims(str(tmp_path / "other.xml"))
    assert not OpenVinoFormat().claims(str(tmp_path / "absent.xml"))


def test_a_signature_that_is_known_keeps_its_names_of_sizes_and_states(tmp_path: Path) -> None:
    known = Signature(
        inputs=(
            TensorSpec(name="image", dtype="float32", shape=("n", 3, "side", 8)),
            TensorSpec(name="ids", dtype="int64", shape=("n", 4), role="state", fed_by="raw"),
        ),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 5)),),
    )
    assert save(network(), tmp_path, known).signature == known


def test_files_are_named_by_their_content_and_nothing_else_is_left(tmp_path: Path) -> None:
    model = save(network(), tmp_path)
    assert model.path == tmp_path / f"{model.digest[:12]}.xml"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{model.digest[:12]}.{end}" for end in ("bin", "xml")]
    assert save(network(), tmp_path) == model


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('type="Parameter"', 'type="Gone"', "has no inputs or no outputs|nothing feeds"),
        ('type="Result"', 'type="Gone"', "no inputs or no outputs|.*"),
        ('<data shape="', '<nothing shape="', "has an input without a type"),
        ('to-layer="', 'nobody="', "not a whole OpenVINO model"),
    ],
)
def test_a_graph_that_lacks_a_part_is_one_clear_line(old: str, new: str, says: str, ir: Path) -> None:
    ir.write_text(ir.read_text().replace(old, new))
    with pytest.raises(BadInput, match=says) as caught:
        opened(ir)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("old", "new"), [('shape="3, 5"', 'shape="3, five"'), ('from-layer="', 'from="')])
def test_what_is_only_read_to_tell_about_the_model_is_checked_too(old: str, new: str, ir: Path) -> None:
    model = opened(ir)
    rewrite(ir, old, new)
    with pytest.raises(BadInput, match="is not a whole OpenVINO model") as caught:
        OpenVinoFormat().contents(model)
    assert "\n" not in str(caught.value)


def test_layers_that_feed_each_other_in_a_circle_are_counted_all_the_same(ir: Path) -> None:
    model = opened(ir)
    text = ir.read_text()
    first = next(line for line in text.splitlines() if 'type="Convert"' in line)
    number = first.partition('id="')[2].partition('"')[0]
    edges = [line for line in text.splitlines() if f'to-layer="{number}"' in line]
    assert len(edges) == 1
    source = edges[0].partition('from-layer="')[2].partition('"')[0]
    ir.write_text(text.replace(edges[0], edges[0].replace(f'from-layer="{source}"', f'from-layer="{number}"')))
    assert OpenVinoFormat().contents(model).parameters == (("float32", 15),)


@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (5, 3, 1, 8)])
def test_the_work_is_that_of_the_sizes_that_are_asked_for(shape: tuple[int, ...], ir: Path) -> None:
    workload = Workload(batch=shape[0], lengths=(("image:2", shape[2]),))
    found = OpenVinoFormat().work(opened(ir), workload)
    assert (found.macs, found.coverage) == (shape[0] * 3 * 5, 1.0)


def test_sizes_that_the_model_does_not_take_are_refused(tmp_path: Path) -> None:
    import numpy as np
    from openvino import opset13 as ops

    one, other = (ops.parameter([-1, -1], np.float32, name=name) for name in "ab")
    for given, name in ((one, "a"), (other, "b")):
        given.output(0).get_tensor().set_names({name})
    added = ops.add(one, other)
    added.output(0).get_tensor().set_names({"y"})
    model = save(openvino.Model([added], [one, other], "net"), tmp_path)
    assert OpenVinoFormat().work(model, Workload(batch=2, lengths=(("a:1", 3), ("b:1", 3)))).macs == 0
    with pytest.raises(BadInput, match="can't give the model inputs of shapes") as caught:
        OpenVinoFormat().work(model, Workload(batch=2, lengths=(("a:1", 3), ("b:1", 5))))
    assert "\n" not in str(caught.value)


def test_a_model_is_converted_with_its_own_names_and_sizes(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    from trimtab.formats.onnx import save as save_onnx

    graph = helper.make_graph(
        [helper.make_node("Relu", ["вход"], ["выход"]), helper.make_node("Neg", ["b"], ["c"])],
        "g",
        [helper.make_tensor_value_info("вход", TensorProto.FLOAT, ["n", 3, "t"]),
         helper.make_tensor_value_info("b", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("выход", TensorProto.FLOAT, ["n", 3, "t"]),
         helper.make_tensor_value_info("c", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = save_onnx(proto, tmp_path / "m.onnx")
    live = converted(model.path, model.signature)
    assert [port.any_name for port in (*live.inputs, *live.outputs)] == ["вход", "b", "выход", "c"]
    assert [str(port.partial_shape) for port in live.inputs] == ["[?,3,?]", "[2]"]
    lacking = replace(model.signature, outputs=model.signature.outputs[:1])
    with pytest.raises(Refused, match="openvino made 2 outputs of 1"):
        converted(model.path, lacking)
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(Refused, match="openvino can't convert this model: ") as caught:
        converted(model.path, model.signature)
    assert "\n" not in str(caught.value)


def test_names_that_openvino_counts_up_are_those_of_the_order() -> None:
    names = []
    for _ in range(2):
        made = network()
        number_names(made)
        names.append([node.get_friendly_name() for node in made.get_ordered_ops()])
    assert names[0] == names[1]
    assert len(set(names[0])) == len(names[0])
    assert {"image", "ids"} <= set(names[0])
