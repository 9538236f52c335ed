from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from trimtab.core.errors import BadInput, TrimtabError, Unsafe
from trimtab.core.machine import machine
from trimtab.core.protocols import Opening
from trimtab.core.values import Settings, Step, Task, options
from trimtab.data.text import tokenize_step
from trimtab.formats.onnx import OnnxFormat
from trimtab.serving import bundle as subject
from trimtab.serving.bundle import bundled_variant, load, read_manifest, runs_code, write_bundle
from trimtab.testing.networks import PERCEPTRON, TOKENS
from trimtab.testing.samples import source

OPENVINO = Settings(runtime="openvino", precision="fp32", threads=1)


def edited(folder: Path, **changes: object) -> None:
    """Change the manifest as somebody might who means harm."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("settings", [None, OPENVINO], ids=["onnxruntime", "openvino"])
def test_a_loaded_bundle_answers_like_the_network(bundle, settings):
    loaded = load(bundle(settings))
    inputs = PERCEPTRON.inputs(5, 1)
    wanted = PERCEPTRON.answer(inputs)["scores"]
    assert np.allclose(loaded(inputs)["scores"], wanted, atol=1e-5)
    assert np.allclose(loaded(inputs["x"])["scores"], wanted, atol=1e-5), "a single array feeds the first input"


@pytest.mark.parametrize("settings", [None, OPENVINO], ids=["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: {"y": x}, "the model also needs the inputs x; given were: y"),
        (lambda x: {"x": x, "y": x}, "the model has no input y; its inputs are: x"),
        (lambda x: x[:, :-1], r"the input x is float32 \(5, \d+\), the model takes float32 \(\w+, \d+\)"),
        (lambda x: x[0], r"the input x is float32 \(\d+\), the model takes float32"),
    ],
)
def test_a_wrong_call_says_what_the_model_takes(bundle, settings, change, said):
    loaded, inputs = load(bundle(settings)), PERCEPTRON.inputs(5, 1)
    with pytest.raises(BadInput, match=said):
        loaded(change(inputs["x"]))
    assert loaded(inputs)["scores"].shape == (5, 4), "and the next call is answered"


def test_a_bundle_can_be_moved_and_needs_nothing_that_it_was_made_of(bundle, tmp_path):
    folder = bundle()
    (tmp_path / "given" / "perceptron.onnx").unlink()
    moved = folder.rename(tmp_path / "elsewhere")
    assert load(str(moved))(PERCEPTRON.inputs(1, 0))["scores"].shape == (1, 4)
    assert str(tmp_path) not in (moved / "run.py").read_text()
    manifest = json.loads((moved / "manifest.json").read_text())
    assert manifest["variant"]["model"]["path"] == "model/perceptron.onnx"


def test_the_manifest_says_how_it_is_run_what_was_done_and_what_the_answers_mean(bundle):
    manifest = read_manifest(bundle(None, threshold=0.3, positive=0))
    assert manifest.variant.settings == Settings(runtime="onnxruntime", threads=1)
    assert manifest.variant.steps == (Step(technique="simplify"),)
    assert (manifest.task.threshold, manifest.task.positive, manifest.task.splits) == (0.3, 0, ())
    assert manifest.trimtab == "1.2.3"
    assert manifest.machine.digest == machine().digest


def test_external_data_comes_along(bundle, given, tmp_path):
    variant = given(Settings(runtime="onnxruntime"))
    path = tmp_path / "given" / "net.onnx"
    proto = OnnxFormat().load(variant.model)
    onnx.save(proto, path, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    model = OnnxFormat().open(str(path), Opening(folder=tmp_path))
    folder = tmp_path / "bundle"
    manifest = write_bundle(
        folder, replace(variant, model=model), Task(), measurement=None, certificate=None, machine=machine(), version=""
    )
    assert [name for name, _ in manifest.checksums] == ["model/net.onnx", "model/net.onnx.data"]
    inputs = PERCEPTRON.inputs(2, 0)
    assert np.allclose(load(folder)(inputs)["scores"], PERCEPTRON.answer(inputs)["scores"], atol=1e-5)


def test_an_earlier_bundle_is_replaced_as_a_whole(bundle, given, tmp_path):
    folder = bundle()
    other = given(OPENVINO, PERCEPTRON, "openvino")
    write_bundle(folder, other, Task(), measurement=None, certificate=None, machine=machine(), version="")
    assert sorted(path.suffix for path in (folder / "model").iterdir()) == [".bin", ".xml"]
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model", "run.py"]
    assert load(folder)(PERCEPTRON.inputs(1, 0))["scores"].shape == (1, 4)


def test_a_bundle_may_be_written_over_the_one_that_it_came_from(bundle):
    folder = bundle()
    variant = bundled_variant(folder, read_manifest(folder))
    write_bundle(folder, variant, Task(), measurement=None, certificate=None, machine=machine(), version="")
    assert load(folder)(PERCEPTRON.inputs(1, 0))["scores"].shape == (1, 4)


def test_a_full_disk_leaves_the_old_model(bundle, given, monkeypatch):
    folder = bundle()

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(subject.shutil, "copy2", full)
    with pytest.raises(TrimtabError, match="the disk is full"):
        write_bundle(folder, given(OPENVINO), Task(), measurement=None, certificate=None, machine=machine(), version="")
    assert load(folder)(PERCEPTRON.inputs(1, 0))["scores"].shape == (1, 4)


class TestDamage:
    """What was changed on its way is not loaded."""

    def test_a_folder_that_is_no_bundle_is_told_so(self, tmp_path):
        with pytest.raises(BadInput, match=r"is no bundle: it has no manifest\.json"):
            load(tmp_path)

    def test_a_changed_file_is_refused(self, bundle):
        folder = bundle()
        path = folder / "model" / "perceptron.onnx"
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(BadInput, match="was changed; copy the whole folder again"):
            load(folder)

    def test_a_missing_file_is_named(self, bundle):
        folder = bundle()
        (folder / "model" / "perceptron.onnx").unlink()
        with pytest.raises(BadInput, match=r"lacks its file model/perceptron\.onnx"):
            load(folder)

    @pytest.mark.parametrize("text", ["", "{", "{}", "[1, 2]", "\xff\xfe"])
    def test_a_damaged_manifest_is_one_clear_line(self, bundle, text):
        folder = bundle()
        (folder / "manifest.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(BadInput, match=r"manifest\.json is damaged or of another version"):
            load(folder)


class TestHarm:
    """A bundle from a stranger runs no code and reads nothing outside its folder."""

    @pytest.mark.parametrize("name", ["../given/perceptron.onnx", "/etc/hostname"])
    def test_a_path_outside_the_folder_is_refused(self, bundle, name):
        folder = bundle()
        variant = json.loads((folder / "manifest.json").read_text())["variant"]
        variant["model"]["path"] = name
        edited(folder, variant=variant)
        with pytest.raises(BadInput, match="points outside the folder"):
            load(folder)
        edited(folder, checksums=[[name, "0"]])
        with pytest.raises(BadInput, match="points outside the folder"):
            read_manifest(folder)

    def test_external_data_outside_the_folder_is_refused_though_the_checksums_fit(self, bundle, tmp_path):
        folder = bundle()
        path = folder / "model" / "perceptron.onnx"
        proto = onnx.load(path)
        (tmp_path / "secret").write_bytes(bytes(16 * 32 * 4))
        tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "w1")
        tensor.ClearField("raw_data")
        tensor.data_location = tensor.EXTERNAL
        tensor.external_data.add(key="location", value="../../secret")
        path.write_bytes(proto.SerializeToString())
        edited(folder, checksums=[])
        with pytest.raises(BadInput, match="outside"):
            load(folder)

    @pytest.fixture
    def factory_bundle(self, tmp_path: Path) -> Path:
        pytest.importorskip("torch")
        from trimtab.core.values import Variant
        from trimtab.formats.torch import TorchFormat

        text = source("torch", tmp_path / "code")
        model = TorchFormat().open(text, Opening(folder=tmp_path / "opened"))
        code = Path(text.rpartition(":")[0])
        code.write_text(f"open({str(tmp_path / 'it ran')!r}, 'w').close()\n" + code.read_text())
        variant = Variant(model=model, settings=Settings(runtime="torch"))
        folder = tmp_path / "bundle"
        write_bundle(folder, variant, Task(), measurement=None, certificate=None, machine=machine(), version="")
        return folder

    def test_a_model_that_runs_code_when_it_is_loaded_needs_trust(self, factory_bundle, tmp_path):
        (tmp_path / "it ran").unlink(missing_ok=True)
        with pytest.raises(Unsafe, match=r"runs code when it is loaded .*--trust-pickle.*trust_pickle=True") as raised:
            load(factory_bundle)
        assert "\n" not in str(raised.value)
        assert not (tmp_path / "it ran").exists()
        assert bundled_variant(factory_bundle, read_manifest(factory_bundle), trust_pickle=True).model.format == "torch"

    def test_what_runs_code_is_known_before_it_is_written(self, factory_bundle, given):
        plain = given(Settings(runtime="onnxruntime")).model
        called = Step(technique="call", options=options(function="own.code:prepare"))
        assert runs_code(read_manifest(factory_bundle).variant.model, Task())
        assert not runs_code(plain, Task())
        assert runs_code(plain, Task(metric="own.code:metric"))
        assert runs_code(plain, Task(preprocessing=(called,)))

    def test_functions_that_the_manifest_names_are_not_called_unless_it_is_trusted(self, bundle, tmp_path, monkeypatch):
        (tmp_path / "harm.py").write_text("raise SystemExit('it ran')")
        monkeypatch.chdir(tmp_path)
        folder = bundle(None, preprocessing=(Step(technique="call", options=options(function="harm:run")),))
        with pytest.raises(Unsafe, match=r"names code to run \(harm:run\)"):
            load(folder).prepare(PERCEPTRON.inputs(1, 0))
        with pytest.raises(SystemExit, match="it ran"):
            load(folder, trust_pickle=True).prepare(PERCEPTRON.inputs(1, 0))


def test_raw_items_are_prepared_as_they_were_for_every_number(bundle):
    loaded = load(bundle(None, preprocessing=(Step(technique="scale", options=options(divisor=4.0)),)))
    raw = np.full((2, 16), 8, dtype=np.float32)
    assert np.array_equal(loaded.prepare(raw)["x"], raw / 4)
    assert np.array_equal(loaded.prepare({"x": raw})["x"], raw / 4)


class TestTexts:
    """The tokenizer goes where the bundle goes."""

    TEXTS = np.array(["good film", "bad", "good good bad film"])

    @pytest.fixture
    def tokenizer(self, tmp_path: Path) -> Path:
        tokenizers = pytest.importorskip("tokenizers")
        words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "good", "bad", "film"])}
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
        made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        (tmp_path / "texts").mkdir()
        made.save(str(tmp_path / "texts" / "tokenizer.json"))
        return tmp_path / "texts" / "tokenizer.json"

    @pytest.fixture
    def of_texts(self, bundle, tokenizer: Path) -> Path:
        return bundle(None, TOKENS, preprocessing=(tokenize_step(tokenizer, 8),))

    def test_a_moved_bundle_prepares_texts_without_the_file_that_it_was_made_with(self, of_texts, tokenizer, tmp_path):
        before = load(of_texts).prepare(self.TEXTS)
        tokenizer.unlink()
        loaded = load(of_texts.rename(tmp_path / "elsewhere"))
        after = loaded.prepare(self.TEXTS)
        assert before.keys() == after.keys() == {"ids", "mask"}
        assert all(np.array_equal(before[name], after[name]) for name in before)
        assert after["ids"].tolist() == [[2, 4, 0, 0], [3, 0, 0, 0], [2, 2, 3, 4]]
        assert loaded(after)["scores"].shape == (3, 4)

    def test_it_is_written_down_relative_to_the_bundle_with_its_checksum(self, of_texts, tmp_path):
        held = json.loads((of_texts / "manifest.json").read_text())
        assert dict(held["task"]["preprocessing"][0]["options"]) == {"tokenizer": "tokenizer.json", "length": 8}
        assert "tokenizer.json" in dict(held["checksums"])
        assert str(tmp_path) not in json.dumps(held["task"]["preprocessing"])
        (of_texts / "tokenizer.json").write_text("{}")
        with pytest.raises(BadInput, match=r"the file tokenizer\.json of the bundle .* was changed"):
            load(of_texts)

    def test_one_outside_the_folder_is_refused(self, of_texts, tokenizer):
        held = json.loads((of_texts / "manifest.json").read_text())
        held["task"]["preprocessing"][0]["options"] = [["tokenizer", str(tokenizer)]]
        edited(of_texts, task=held["task"])
        with pytest.raises(BadInput, match="points outside the folder"):
            load(of_texts)

    def test_a_bundle_written_over_itself_keeps_it_and_one_without_texts_does_not(self, of_texts):
        manifest = read_manifest(of_texts)
        variant = bundled_variant(of_texts, manifest)
        told = {"measurement": None, "certificate": None, "machine": machine(), "version": ""}
        write_bundle(of_texts, variant, manifest.task, **told)
        assert load(of_texts).prepare(self.TEXTS)["ids"].shape == (3, 4)
        write_bundle(of_texts, variant, Task(), **told)
        assert not (of_texts / "tokenizer.json").exists()

    def test_without_the_file_no_bundle_is_written_and_the_error_says_where_it_was(self, bundle, tokenizer):
        tokenizer.unlink()
        with pytest.raises(BadInput, match=r"there is no tokenizer\.json at .*texts.*, which the bundle needs"):
            bundle(None, TOKENS, preprocessing=(tokenize_step(tokenizer, 8),))


def test_several_inputs_are_given_by_name(bundle):
    loaded = load(bundle(None, TOKENS))
    inputs = TOKENS.inputs(3, 0)
    assert np.allclose(loaded(inputs)["scores"], TOKENS.answer(inputs)["scores"], atol=1e-5)


def run_alone(folder: Path, engine: str, inputs: Path) -> subprocess.CompletedProcess[str]:
    """Run the snippet where only one engine can be imported; print its answer to the inputs."""
    code = f"""
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"trimtab", "onnx", "onnxruntime", "openvino", "torch", "nncf"}} - {{{engine!r}}}:
            raise ImportError(f"{{name}} is not installed here")
sys.meta_path.insert(0, Blocker())
import numpy as np
made = runpy.run_path({str(folder / "run.py")!r}, run_name="__main__")
with np.load({str(inputs)!r}) as given:
    print(made["run"](dict(given))["scores"].tolist())
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder.parent, env=environment, check=False
    )


@pytest.mark.parametrize(
    "settings",
    [
        Settings(runtime="onnxruntime", threads=1, spinning=False, fusion=False),
        Settings(runtime="openvino", precision="fp32", threads=1, streams=1),
        Settings(runtime="openvino", precision="fp32", threads=1, static_shapes=True),
    ],
    ids=lambda settings: settings.label(),
)
def test_the_snippet_runs_with_only_its_engine_installed(bundle, tmp_path, settings):
    folder, inputs = bundle(settings), PERCEPTRON.inputs(3, 2)
    np.savez(tmp_path / "inputs.npz", **inputs)
    done = run_alone(folder, settings.runtime, tmp_path / "inputs.npz")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().splitlines()
    assert first == "{'scores': (1, 4)}"
    assert np.allclose(json.loads(second), PERCEPTRON.answer(inputs)["scores"], atol=1e-5)
    assert f"pip install {settings.runtime} numpy" in (folder / "run.py").read_text()
