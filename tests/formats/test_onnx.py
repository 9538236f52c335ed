from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core.errors import BadInput, Unsafe
from trimtab.core.protocols import Opening
from trimtab.core.values import Model, Workload
from trimtab.formats.onnx import OnnxFormat, external_files, save


def perceptron(seed: int = 0) -> onnx.ModelProto:
    weight = np.random.default_rng(seed).normal(size=(64, 32)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 32])]
    graph = helper.make_graph(nodes, "net", given, made, [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def opened(path: Path) -> Model:
    return OnnxFormat().open(str(path), Opening(folder=path.parent))


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model whose weight lies in weights.bin beside it."""
    path = tmp_path / "m" / "model.onnx"
    path.parent.mkdir()
    onnx.save(perceptron(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def point_to(path: Path, location: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    next(entry for entry in proto.graph.initializer[0].external_data if entry.key == "location").value = location
    path.write_bytes(proto.SerializeToString())


class TestOpening:
    def test_reads_signature_and_digest(self, tmp_path):
        onnx.save(perceptron(), tmp_path / "a.onnx")
        model = opened(tmp_path / "a.onnx")
        (spec,) = model.signature.inputs
        assert (model.format, spec.name, spec.dtype, spec.shape) == ("onnx", "x", "float32", ("batch", 64))

    def test_the_digest_is_of_the_content_not_of_the_name(self, tmp_path, external):
        onnx.save(perceptron(), tmp_path / "a.onnx")
        shutil.copy(tmp_path / "a.onnx", tmp_path / "b.onnx")
        assert opened(tmp_path / "a.onnx").digest == opened(tmp_path / "b.onnx").digest
        digest = opened(external).digest
        (external.parent / "weights.bin").rename(external.parent / "other.bin")
        point_to(external, "other.bin")
        assert opened(external).digest == digest

    def test_another_weight_is_another_digest_wherever_it_lies(self, tmp_path, external):
        onnx.save(perceptron(0), tmp_path / "a.onnx")
        onnx.save(perceptron(1), tmp_path / "b.onnx")
        assert opened(tmp_path / "a.onnx").digest != opened(tmp_path / "b.onnx").digest
        digest = opened(external).digest
        content = bytearray((external.parent / "weights.bin").read_bytes())
        content[7] ^= 1
        (external.parent / "weights.bin").write_bytes(content)
        assert opened(external).digest != digest

    def test_claims_by_the_ending(self):
        assert [OnnxFormat().claims(source) for source in ("a.onnx", "A.ONNX", "a.pt", "m:f")] == [
            True,
            True,
            False,
            False,
        ]


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty"),
            (b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG image"),
            (b"PK\x03\x04" + bytes(99), "a zip archive"),
            (b"<!DOCTYPE html><html>", "a web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "git lfs pull"),
            (b"\x1c\x00\x00\x00TFL3" + bytes(99), "TensorFlow Lite"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"just some words, no model at all", "not an ONNX file"),
            (bytes(range(256)) * 9, "not an ONNX file"),
        ],
    )
    def test_says_what_a_foreign_file_is(self, tmp_path, content, words):
        (tmp_path / "model.onnx").write_bytes(content)
        with pytest.raises(BadInput, match=words) as caught:
            opened(tmp_path / "model.onnx")
        assert "\n" not in str(caught.value)

    def test_a_missing_file_and_a_folder(self, tmp_path):
        with pytest.raises(BadInput, match="there is no file"):
            opened(tmp_path / "none.onnx")
        (tmp_path / "folder.onnx").mkdir()
        with pytest.raises(BadInput, match="is a folder"):
            opened(tmp_path / "folder.onnx")

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_a_pickle_is_never_read(self, tmp_path, protocol):
        marker = tmp_path / "ran"

        class Payload:
            def __reduce__(self):
                return (Path.touch, (marker,))

        (tmp_path / "model.onnx").write_bytes(pickle.dumps(Payload(), protocol))
        with pytest.raises(Unsafe, match="pickle"):
            opened(tmp_path / "model.onnx")
        assert not marker.exists()

    def test_truncated_at_any_point(self, tmp_path):
        content = perceptron().SerializeToString()
        for cut in range(1, len(content), len(content) // 40):
            (tmp_path / "model.onnx").write_bytes(content[:cut])
            with pytest.raises(BadInput):
                opened(tmp_path / "model.onnx")

    def test_any_damage_is_one_clear_line_or_harmless(self, tmp_path):
        rng = np.random.default_rng(0)
        content = np.frombuffer(perceptron().SerializeToString(), np.uint8)
        places = np.concatenate([np.arange(120), np.arange(len(content) - 120, len(content))])  # the rest is weights
        for _ in range(300):
            damaged = content.copy()
            damaged[rng.choice(places, 2)] = rng.integers(0, 256, 2)
            (tmp_path / "model.onnx").write_bytes(damaged.tobytes())
            try:
                model = opened(tmp_path / "model.onnx")
                OnnxFormat().contents(model)
                OnnxFormat().work(model, Workload())
            except BadInput as error:
                assert "\n" not in str(error)

    def test_a_value_that_nothing_makes(self, tmp_path):
        for change in ("input", "output"):
            proto = perceptron()
            if change == "input":
                proto.graph.node[1].input[0] = "nowhere"
            else:
                proto.graph.output[0].name = "nowhere"
            onnx.save(proto, tmp_path / "model.onnx")
            with pytest.raises(BadInput, match=r"corrupt.*'nowhere'"):
                opened(tmp_path / "model.onnx")

    def test_a_weight_that_lacks_data(self, tmp_path):
        proto = perceptron()
        proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
        onnx.save(proto, tmp_path / "model.onnx")
        with pytest.raises(BadInput, match="lacks part of its data"):
            opened(tmp_path / "model.onnx")


class TestExternalData:
    def test_missing(self, external):
        (external.parent / "weights.bin").unlink()
        with pytest.raises(BadInput, match=r"weights\.bin' is missing"):
            opened(external)

    def test_truncated(self, external):
        (external.parent / "weights.bin").write_bytes(b"short")
        with pytest.raises(BadInput, match="truncated"):
            opened(external)

    def test_outside_by_dots_or_absolute(self, tmp_path, external):
        secret = tmp_path / "secret.bin"
        secret.write_bytes(bytes(64 * 32 * 4))
        for location in ("../secret.bin", str(secret)):
            point_to(external, location)
            with pytest.raises(Unsafe, match="outside the model's folder"):
                opened(external)

    def test_outside_by_a_link(self, tmp_path, external):
        secret = tmp_path / "secret.bin"
        secret.write_bytes(bytes(64 * 32 * 4))
        (external.parent / "weights.bin").unlink()
        (external.parent / "weights.bin").symlink_to(secret)
        with pytest.raises(Unsafe, match="outside the model's folder"):
            opened(external)

    def test_outside_from_within_a_subgraph_or_a_constant(self, tmp_path, external):
        (tmp_path / "secret.bin").write_bytes(bytes(64 * 32 * 4))
        point_to(external, "../secret.bin")
        proto = onnx.load(external, load_external_data=False)
        weight = proto.graph.initializer.pop()
        proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"]))
        proto.graph.node[0].attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=weight)
        external.write_bytes(proto.SerializeToString())
        with pytest.raises(Unsafe):
            opened(external)

    def test_is_loaded_and_listed(self, external):
        loaded = OnnxFormat().load(opened(external))
        expected = numpy_helper.to_array(perceptron().graph.initializer[0])
        np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), expected)
        assert external_files(external) == (external.parent / "weights.bin",)
        assert OnnxFormat().contents(opened(external)).files == (external, external.parent / "weights.bin")

    def test_is_listed_under_the_folder_as_it_was_named(self, tmp_path, external):
        link = tmp_path / "link"
        link.symlink_to(external.parent)
        assert external_files(link / "model.onnx") == (link / "weights.bin",)


class TestSaving:
    def test_what_is_saved_is_loaded_and_equal_models_are_equal_files(self, tmp_path):
        proto = perceptron()
        model = save(proto, tmp_path / "new" / "a.onnx")
        assert OnnxFormat().load(model).SerializeToString() == proto.SerializeToString()
        again = save(perceptron(), tmp_path / "b.onnx")
        assert again.digest == model.digest
        assert again.path.read_bytes() == model.path.read_bytes()

    def test_large_models_keep_their_weights_in_a_file_beside_them(self, tmp_path):
        proto = perceptron()
        before = proto.SerializeToString()
        model = save(proto, tmp_path / "a.onnx", inline=1000)
        assert proto.SerializeToString() == before
        assert external_files(model.path) == (tmp_path / "a.onnx.data",)
        assert model.path.stat().st_size < 1000
        assert OnnxFormat().load(model).graph.initializer[0].raw_data == proto.graph.initializer[0].raw_data

    def test_the_engine_answers_the_same_from_both_forms(self, tmp_path):
        runtime = pytest.importorskip("onnxruntime")
        x = np.random.default_rng(3).normal(size=(2, 64)).astype(np.float32)
        paths = [
            save(perceptron(), tmp_path / "a.onnx").path,
            save(perceptron(), tmp_path / "b.onnx", inline=1000).path,
        ]
        answers = [
            runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0] for path in paths
        ]
        np.testing.assert_array_equal(*answers)

    def test_a_folder_without_permission_is_one_clear_line(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(BadInput, match="can't create the folder"):
            save(perceptron(), tmp_path / "file" / "a.onnx")

    def test_states_that_were_named_stay_named(self, tmp_path):
        proto = perceptron()
        proto.graph.input.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [4]))
        proto.graph.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [4]))
        proto.graph.node.append(helper.make_node("Neg", ["a"], ["b"]))
        model = save(proto, tmp_path / "a.onnx", states=(("a", "b"),))
        assert [(spec.name, spec.fed_by) for spec in model.signature.states] == [("a", "b")]


def branch(taken: str) -> onnx.GraphProto:
    ends = [helper.make_empty_tensor_value_info("o")]
    return helper.make_graph([helper.make_node("Neg", [taken], ["o"])], "b", [], ends)


class TestStructure:
    """A graph is checked before any engine sees it."""

    def test_names_that_only_a_branch_makes_are_not_there_outside(self, tmp_path):
        inner = helper.make_graph(
            [helper.make_node("Neg", ["x"], ["o"])], "b", [], [helper.make_empty_tensor_value_info("o")]
        )
        proto = perceptron()
        node = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
        proto.graph.node.insert(0, node)
        proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
        onnx.save(proto, tmp_path / "model.onnx")
        assert opened(tmp_path / "model.onnx").signature.outputs[0].name == "y"
        proto.graph.node[2].input[0] = "o"
        onnx.save(proto, tmp_path / "model.onnx")
        with pytest.raises(BadInput, match="takes 'o', which nothing makes"):
            opened(tmp_path / "model.onnx")

    def test_a_branch_that_takes_what_nothing_makes(self, tmp_path):
        inner = helper.make_graph(
            [helper.make_node("Neg", ["gone"], ["o"])], "b", [], [helper.make_empty_tensor_value_info("o")]
        )
        proto = perceptron()
        proto.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner))
        onnx.save(proto, tmp_path / "model.onnx")
        with pytest.raises(BadInput, match="takes 'gone', which nothing makes"):
            opened(tmp_path / "model.onnx")

    def test_a_node_is_named_by_its_name_or_its_operator(self, tmp_path):
        for name, said in (("слой 1", "слой 1 takes"), ("", "Relu takes")):
            proto = perceptron()
            proto.graph.node[1].name = name
            proto.graph.node[1].input[0] = "gone"
            onnx.save(proto, tmp_path / "model.onnx")
            with pytest.raises(BadInput, match=said):
                opened(tmp_path / "model.onnx")

    def test_a_model_without_an_operator_set_or_a_graph_is_no_model(self, tmp_path):
        for change in ("opset_import", "graph"):
            proto = perceptron()
            proto.ClearField(change)
            (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
            with pytest.raises(BadInput, match="is not an ONNX file, or one without a graph"):
                opened(tmp_path / "model.onnx")

    def test_a_path_through_a_file_is_no_path(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(BadInput, match="there is no file"):
            opened(tmp_path / "file" / "model.onnx")

    def test_paths_and_names_may_be_of_any_language(self, tmp_path):
        model = save(perceptron(), tmp_path / "модели и сети" / "сеть №1.onnx", inline=1000)
        assert OnnxFormat().load(model).graph.initializer[0].raw_data == perceptron().graph.initializer[0].raw_data
        assert opened(model.path) == model


class TestRoundTrip:
    def test_weights_of_every_type_survive_outside_of_the_file(self, tmp_path):
        rng = np.random.default_rng(0)
        kinds = [
            "FLOAT",
            "FLOAT16",
            "BFLOAT16",
            "DOUBLE",
            "INT8",
            "UINT8",
            "INT64",
            "BOOL",
            "INT4",
            "UINT4",
            "FLOAT8E4M3FN",
        ]
        proto = perceptron()
        for kind in kinds:
            dtype = helper.tensor_dtype_to_np_dtype(getattr(TensorProto, kind))
            content = rng.integers(0, 2, (100, 100)).astype(dtype)
            proto.graph.initializer.append(numpy_helper.from_array(content, kind))
        proto.graph.initializer.append(helper.make_tensor("typed", TensorProto.FLOAT, [64, 64], [0.5] * 4096))
        model = save(proto, tmp_path / "a.onnx", inline=0)
        loaded = {tensor.name: tensor for tensor in OnnxFormat().load(model).graph.initializer}
        for tensor in proto.graph.initializer:
            np.testing.assert_array_equal(
                numpy_helper.to_array(loaded[tensor.name]).astype(np.float32),
                numpy_helper.to_array(tensor).astype(np.float32),
            )
        assert save(proto, tmp_path / "b.onnx", inline=0).path.stat().st_size == model.path.stat().st_size

    def test_external_weights_begin_at_pages(self, tmp_path):
        proto = perceptron()
        proto.graph.initializer.append(numpy_helper.from_array(np.ones((65, 33), np.float32), "other"))
        light = onnx.load(save(proto, tmp_path / "a.onnx", inline=0).path, load_external_data=False)
        offsets = [int(e.value) for t in light.graph.initializer for e in t.external_data if e.key == "offset"]
        assert len(offsets) == 2
        assert all(offset % 4096 == 0 for offset in offsets)

    def test_a_model_whose_weights_are_not_loaded_is_not_saved_without_them(self, tmp_path, external):
        light = onnx.load(external, load_external_data=False)
        with pytest.raises(ValueError, match="tensor 'w' is not loaded"):
            save(light, tmp_path / "elsewhere" / "a.onnx", inline=0)
        assert not list((tmp_path / "elsewhere").glob("*.onnx"))
