"""OpenVINO files are read as XML from a stranger; what they say agrees with OpenVINO itself."""

from pathlib import Path
from typing import Any

import pytest

from trimtab.core.errors import BadInput, Unsafe
from trimtab.core.protocols import Opening
from trimtab.core.values import TensorSpec
from trimtab.formats.openvino import OpenVinoFormat, import_openvino, save

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
    assert first.path.with_suffix(".bin").read_bytes() == again.path.with_suffix(".bin").read_bytes()
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
