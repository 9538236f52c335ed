"""What people give by mistake: one clear line, exit code 2, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from trimtab.core import plugins
from trimtab.core.files import owned
from trimtab.testing.networks import PERCEPTRON

INPUTS = PERCEPTRON.inputs(60, 0)["x"]
LABELS = PERCEPTRON.answer({"x": INPUTS})["scores"].argmax(axis=1)


def clear_line(done: Any, *words: str) -> None:
    """Check that a command ended with one line on stderr that says what is wrong."""
    assert done.code == 2, (done.code, done.err)
    assert "Traceback" not in done.err + done.out
    lines = [line for line in done.err.splitlines() if line.startswith("trimtab: ")]
    assert len(lines) == 1, done.err
    assert done.err.strip().splitlines()[-1] == lines[0], "nothing follows it"
    assert all(word in lines[0] for word in words), lines[0]


def truncated(model: Path, folder: Path) -> Path:
    content = model.read_bytes()
    return written(folder / "cut.onnx", content[: len(content) // 2])


def corrupt(model: Path, folder: Path) -> Path:
    proto = onnx.load(model)
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-8]
    return written(folder / "corrupt.onnx", proto.SerializeToString())


def external(location: str, keep: bool) -> Callable[[Path, Path], Path]:
    def make(model: Path, folder: Path) -> Path:
        proto = onnx.load(model)
        tensor = proto.graph.initializer[0]
        data, tensor.data_location = tensor.raw_data, tensor.EXTERNAL
        tensor.ClearField("raw_data")
        tensor.external_data.add(key="location", value=location)
        inner = folder / "inner"
        inner.mkdir()
        if keep:
            (inner / location).write_bytes(data)
        return written(inner / "net.onnx", proto.SerializeToString())

    return make


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


MODELS: dict[str, tuple[Callable[[Path, Path], Path], tuple[str, ...]]] = {
    "missing": (lambda m, f: f / "nowhere.onnx", ("nowhere.onnx", "there is no file", "check the path")),
    "missing without a suffix": (lambda m, f: f / "nowhere", ("there is no model file",)),
    "an image": (lambda m, f: written(f / "a.onnx", b"\x89PNG\r\n"), ("a PNG image",)),
    "text": (lambda m, f: written(f / "a.txt", b"hello"), ("is no model that trimtab reads",)),
    "a folder": (lambda m, f: f, ("is no model that trimtab reads",)),
    "empty": (lambda m, f: written(f / "a.onnx", b""), ("is empty",)),
    "truncated": (truncated, ("cut.onnx", "truncated or not an ONNX file")),
    "corrupt": (corrupt, ("is corrupt", "lacks part of its data")),
    "a pickle": (lambda m, f: written(f / "a.onnx", b"\x80\x04\x95abc"), ("is a pickle, which runs code",)),
    "pickled weights": (lambda m, f: written(f / "a.pt", b"\x80\x04\x95abc"), ("give its factory",)),
    "external data missing": (external("weights.bin", keep=False), ("weights.bin",)),
    "external data outside": (external("../weights.bin", keep=True), ("../weights.bin", "outside")),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("command", ["inspect", "optimize"])
def test_a_model_that_can_not_be_read(trimtab, files, tmp_path, command, kind):
    make, words = MODELS[kind]
    more = ["--output", tmp_path / "out", "--data", files[1]] if command == "optimize" else []
    clear_line(trimtab(command, make(files[0], tmp_path), *more), *words)


def items(**changes: Any) -> dict[str, Any]:
    return {name: array for name, array in {"x": INPUTS, "labels": LABELS, **changes}.items() if array is not None}


DATA: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "labels of another length": (items(labels=LABELS[:-1]), ("labels", "59", "60")),
    "a class that the model does not know": (items(labels=np.r_[LABELS[:-1], 12]), ("12",)),
    "a negative class": (items(labels=np.r_[LABELS[:-1], -1]), ("--kind",)),
    "one-hot labels": (items(labels=np.eye(4, dtype=np.int64)[LABELS]), ("one-hot",)),
    "labels that are NaN": (items(labels=np.full(60, np.nan)), ("label of item 0",)),
    "inputs that are NaN": (items(x=np.where(np.arange(60)[:, None] == 7, np.nan, INPUTS)), ("item 7", "NaN")),
    "another shape": (items(x=INPUTS[:, :15]), ("'x'", "float32 [batch, 16]", "float32 [N, 15]")),
    "another dtype": (items(x=(INPUTS * 9).astype(np.uint8)), ("'x'", "takes float32", "uint8 [N, 16]")),
    "no such input": ({"first": INPUTS, "second": INPUTS, "labels": LABELS}, ("'first', 'second'", "'inputs'")),
    "objects": (items(labels=np.array([{}] * 60)), ("objects",)),
    "too few items": (items(x=INPUTS[:4], labels=LABELS[:4]), ("4",)),
}


@pytest.mark.parametrize("kind", DATA)
def test_data_that_does_not_fit(trimtab, files, tmp_path, kind):
    arrays, words = DATA[kind]
    np.savez(tmp_path / "bad.npz", **arrays)
    done = trimtab("optimize", files[0], "--data", tmp_path / "bad.npz", "--output", tmp_path / "out")
    clear_line(done, *words)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.npz", ("nowhere.npz",)),
        ("text.npz", ("text.npz",)),
        ("empty", ("empty",)),
        ("no.such.module:items", ("no.such.module",)),
        ("os:no_such_function", ("no_such_function",)),
    ],
)
def test_data_that_can_not_be_read(trimtab, files, tmp_path, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty").mkdir()
    clear_line(trimtab("measure", files[0], "--data", source), *words)


def test_class_names_that_do_not_fit_the_model(trimtab, files, tmp_path):
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    done = trimtab("measure", files[0], "--data", files[1], "--labels", tmp_path / "classes.txt")
    clear_line(done, "lists 2 classes", "answers 4")


def test_labels_that_are_permuted_are_asked_about(trimtab, files, tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.tile(INPUTS, (10, 1)), labels=np.tile((LABELS + 1) % 4, 10))
    done = trimtab("optimize", files[0], "--data", tmp_path / "bad.npz", "--output", tmp_path / "out")
    clear_line(done, "label order", "--poor-model")


def test_measuring_on_labels_that_do_not_fit_warns_and_goes_on(trimtab, files, tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.tile(INPUTS, (10, 1)), labels=np.tile((LABELS + 1) % 4, 10))
    words = ["measure", files[0], "--data", tmp_path / "bad.npz", "--meter", "quality"]
    done = trimtab(*words)
    assert done.code == 0, done.err
    assert "WARNING: the model is right on 0.0% of the items" in " ".join(done.out.split())
    question, *notes = json.loads(trimtab(*words, "--json").out)["warnings"]
    assert "the label order looks permuted" in question
    assert any("certify items also occur in" in note for note in notes)


def operator(path: Path, name: str, *shape: int) -> Path:
    """Write a model of a single operator of four outputs or of a number."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *shape] if name != "Det" else ["n"])
    graph = helper.make_graph([helper.make_node(name, ["x"], ["y"])], "g", [given], [made])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_outputs_that_are_nan(trimtab, tmp_path):
    model = operator(tmp_path / "log.onnx", "Log", 4)
    np.savez(tmp_path / "items.npz", x=-np.ones((60, 4), np.float32), labels=LABELS)
    for command in (["measure", model], ["optimize", model, "--output", tmp_path / "out"]):
        clear_line(trimtab(*command, "--data", tmp_path / "items.npz"), "'y'", "NaN or infinity")


def test_a_batch_that_no_memory_holds(trimtab, files):
    clear_line(trimtab("measure", files[0], "--meter", "latency", "--batch", 10**13), "memory ran out", "--batch")


def test_a_model_that_no_engine_of_its_format_can_run(trimtab, tmp_path):
    model = operator(tmp_path / "mystery.onnx", "Mystery", 4)
    for command in (["measure", model, "--meter", "latency"], ["optimize", model, "--output", tmp_path / "out"]):
        clear_line(trimtab(*command), "Mystery")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-drop", "2"], ("--max-drop '2'", "1pt")),
        (["--max-drop", "a lot"], ("'a lot'",)),
        (["--budget", "soon"], ("'soon'", "90s")),
        (["--limit", "size is small"], ("--limit", "size <= 5MB")),
        (["--limit", "size <= 5ms"], ("'5ms'", "bytes")),
        (["--minimize", "regret"], ("regret",)),
        (["--maximize", "latency"], ("throughput",)),
        (["--minimize", "latency", "--maximize", "throughput"], ("not both",)),
        (["--metric", "taste"], ("taste",)),
        (["--kind", "poem"], ("poem", "classification")),
        (["--cost", "miss"], ("miss=10, false-alarm=1",)),
        (["--cost", "miss=1,false-alarm=1", "--max-drop", "0.1"], ("two classes",)),
        (["--cost", "miss=1,false-alarm=1"], ("'1pt' is not a drop of cost", "--max-drop 0.02")),
        (["--preprocess", "nothing"], ("--preprocess nothing",)),
        (["--output-name", "z"], ("'z'", "scores")),
        (["--length", "x"], ("sequence=128",)),
        (["--state", "h"], ("h_in=h_out",)),
        (["--state", "h=g"], ("'h'",)),
        (["--weights", "w.pt"], ("--weights gives the weights of a PyTorch factory", "leave it out")),
        (["--input", "x:float32[1,3]"], ("--input says what a PyTorch factory takes", "leave it out")),
        (["--groups", "nobody"], ("nobody",)),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_options_that_make_no_sense(trimtab, files, tmp_path, options, words):
    done = trimtab("optimize", files[0], "--data", files[1], "--output", tmp_path / "out", "--budget", "5s", *options)
    clear_line(done, *words)


@pytest.mark.parametrize(
    "words",
    [
        ["--no-such-option"],
        ["no-such-command"],
        ["optimize"],
        ["optimize", "net.onnx", "--batch", "0"],
        ["optimize", "net.onnx", "--batch", "many"],
        ["measure", "net.onnx", "--no-such-option"],
    ],
    ids=" ".join,
)
def test_a_command_that_is_typed_wrongly_is_exit_code_2_too(trimtab, words):
    done = trimtab(*words)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert "Error" in done.err


class TestDisk:
    """Folders that can't be written, and a disk that is full."""

    @pytest.mark.parametrize("command", ["optimize", "apply", "demo"])
    def test_an_output_that_can_not_be_made(self, trimtab, files, tmp_path, command):
        (tmp_path / "file").write_text("")
        given = {"optimize": [files[0], "--data", files[1]], "apply": ["dynamic-int8", files[0]], "demo": []}[command]
        done = trimtab(command, *given, "--output", tmp_path / "file" / "out")
        clear_line(done, "can't create the folder", "choose one you may write to")

    def test_a_folder_without_permission(self, trimtab, files, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
        done = trimtab("optimize", files[0], "--data", files[1], "--output", tmp_path / "out")
        clear_line(done, "no permission to write to the folder")

    @pytest.mark.parametrize("command", ["optimize", "hardware"])
    def test_a_home_that_can_not_be_written(self, trimtab, files, tmp_path, monkeypatch, command):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "file" / "home"))
        more = [files[0], "--data", files[1], "--output", tmp_path / "out", "--budget", "5s", "--trials", 1]
        clear_line(trimtab(command, *(more if command == "optimize" else [])), "can't create the folder", "home")

    def test_two_runs_in_one_folder_at_once(self, trimtab, files, tmp_path):
        with owned(tmp_path / "out" / "work"):
            done = trimtab("optimize", files[0], "--data", files[1], "--output", tmp_path / "out")
        clear_line(done, f"process {os.getpid()}", "another --output")

    @pytest.mark.parametrize("most", [500, 20_000])
    def test_a_full_disk_while_the_data_is_kept(self, files, tmp_path, most):
        words = ["optimize", files[0], "--data", files[1], "--output", tmp_path / "out", *QUICK]
        clear_line(with_disk(most, words, tmp_path / "home"), "the disk is full", "free some space")

    @pytest.mark.slow
    def test_a_full_disk_at_the_very_end_loses_nothing(self, trimtab, files, tmp_path):
        words = ["optimize", files[0], "--data", files[1], "--output", tmp_path / "out", *QUICK]
        clear_line(with_disk(60_000, words, tmp_path / "home"), "the disk is full", "/out/")
        done = trimtab(*words)
        assert done.code == 0, done.err
        assert "kept" not in done.out.partition("proving")[0], "what was tried is not tried again"
        assert (tmp_path / "out" / "report.html").is_file()


QUICK = ["--max-drop", "3pt", "--budget", "8s", "--trials", "1", "--only", "onnxruntime"]


def with_disk(most: int, words: list[object], home: Path) -> Any:
    """Run a command line where no file may have more bytes than that."""
    code = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, resource.RLIM_INFINITY))
from trimtab.cli import main
sys.argv[0] = "trimtab"
main()
"""
    environment = {**os.environ, "TRIMTAB_HOME": str(home)}
    given = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(given, capture_output=True, text=True, env=environment, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


FAKES = """
import ctypes, time
from trimtab.core.values import Settings

class Fake:
    native_formats = ()
    def refuses(self, variant):
        return None
    def settings(self, machine, workload):
        return [Settings(runtime=self.name)]
    def load(self, variant):
        return self.call

class Crashing(Fake):
    name = "crashing"
    def call(self, inputs):
        ctypes.string_at(0)

class Hanging(Fake):
    name = "hanging"
    def call(self, inputs):
        time.sleep(600)

class Hogging(Fake):
    name = "hogging"
    def load(self, variant):  # where even a slow machine has the time to fill its memory
        kept = b"x" * 2_000_000_000  # written to, or the system gives none of it
        time.sleep(600)
"""
NAMES = ("crashing", "hanging", "hogging")


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install runtimes that fail, as a distribution of its own."""
    site = tmp_path / "site"
    info = site / "fakes-1.dist-info"
    info.mkdir(parents=True)
    (site / "failing_runtimes.py").write_text(FAKES)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fakes\nVersion: 1\n")
    points = "".join(f"{name} = failing_runtimes:{name.capitalize()}\n" for name in NAMES)
    (info / "entry_points.txt").write_text(f"[trimtab.runtimes]\n{points}")
    monkeypatch.syspath_prepend(site)
    for cached in (plugins._found, plugins.plugin_class):
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in (plugins._found, plugins.plugin_class):
        cached.cache_clear()


@pytest.mark.slow
def test_a_candidate_that_crashes_hangs_or_runs_out_of_memory_costs_that_candidate_only(
    trimtab, files, tmp_path, fakes, monkeypatch
):
    share = 900_000_000 / psutil.virtual_memory().available
    monkeypatch.setattr("trimtab.workbench.optimize._MEMORY_SHARE", share)
    only = [word for name in ("onnxruntime", *NAMES) for word in ("--only", name)]
    words = ["--data", files[1], "--output", tmp_path / "out", "--max-drop", "3pt", "--budget", "20s", *only]
    done = trimtab("optimize", files[0], *words)
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    found = {trial["settings"]["runtime"]: (trial["state"], trial["reason"]) for trial in result["trials"]}
    assert found["onnxruntime"][0] == "proven"
    assert all(found[name][0] == "failed" for name in NAMES)
    assert "SIGSEGV" in found["crashing"][1]
    assert "longer than its limit" in found["hanging"][1]
    assert "more than its limit" in found["hogging"][1]
    assert result["winner"] is not None


@pytest.mark.slow
def test_an_operator_that_one_engine_does_not_know_drops_that_candidate_with_the_reason(trimtab, tmp_path):
    model = operator(tmp_path / "det.onnx", "Det", 3, 3)
    words = ["--output", tmp_path / "out", "--budget", "10s", "--only", "onnxruntime", "--only", "openvino"]
    done = trimtab("optimize", model, *words, "--trials", "5")
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    failed = [trial for trial in result["trials"] if trial["settings"]["runtime"] == "openvino"]
    assert failed
    assert all(trial["state"] == "failed" and "Det-17" in trial["reason"] for trial in failed)
