"""Python's own verbs: trimtab.optimize, measure, compare, load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import trimtab
from trimtab.core.errors import BadInput
from trimtab.core.values import Task
from trimtab.testing.networks import PERCEPTRON
from trimtab.testing.samples import source
from trimtab.workbench import measure as measuring
from trimtab.workbench.measure import with_options
from trimtab.workbench.optimize import Job
from trimtab.workbench.report import read_result

INPUTS = PERCEPTRON.inputs(800, 0)["x"]
LABELS = PERCEPTRON.answer({"x": INPUTS})["scores"].argmax(axis=1)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return source("onnx", tmp_path / "model")


@pytest.mark.slow
def test_optimizing_in_three_lines(model, tmp_path):
    effort = trimtab.Effort(seconds=10, trials=2, only=("onnxruntime",))
    result = trimtab.optimize(
        model, (INPUTS, LABELS), trimtab.Goal(max_drop=0.03), output=tmp_path / "fast", effort=effort
    )
    assert result.winner is not None
    assert (tmp_path / "fast" / "report.html").is_file()
    assert read_result(tmp_path / "fast") == result
    loaded = trimtab.load(tmp_path / "fast")
    assert np.mean(loaded(INPUTS)["scores"].argmax(axis=1) == LABELS) > 0.97


def test_measuring_arrays(model):
    found = trimtab.measure(model, {"x": INPUTS, "labels": LABELS}, meters=("quality", "size"))
    assert found.value("accuracy") == 1.0
    assert trimtab.measure(model, meters=("size",), runtime="openvino").variant.settings.runtime == "openvino"


def test_meters_take_options_by_their_names(model):
    found = trimtab.measure(model, meters=("latency", "size"), options={"latency": {"calls": 7}})
    latency = found.reading("latency_mean")
    assert latency is not None
    assert latency.samples == 7
    assert dict(found.options)["latency"] == "calls=7"
    with pytest.raises(BadInput, match="latency has options but isn't read"):
        trimtab.measure(model, meters=("size",), options={"latency": {"calls": 7}})
    with pytest.raises(BadInput, match="latency has no option 'colour'"):
        trimtab.measure(model, meters=("latency",), options={"latency": {"colour": 7}})
    with pytest.raises(BadInput, match="say it with --split"):
        trimtab.measure(model, (INPUTS, LABELS), meters=("quality",), options={"quality": {"split": "certify"}})


def test_options_of_one_meter_leave_the_others_in():
    found = with_options(None, {"latency": {"seconds": 1.0}}, Task())
    assert isinstance(found, dict)
    assert (found["latency"], found["size"]) == ((("seconds", 1.0),), ())
    assert "quality" not in found, "there is nothing to answer"
    assert with_options(None, {}, Task()) is None


def test_an_opened_model_and_task_are_taken_as_they_are(model, tmp_path):
    variant = trimtab.open_model(model, tmp_path / "work")
    task = trimtab.open_task((INPUTS, LABELS), variant.model, tmp_path / "data")
    found = trimtab.measure(variant, task, meters=("quality",), split="certify")
    assert (found.task, found.variant) == (task.digest, variant)
    assert found.value("accuracy") == 1.0


def test_comparing_with_itself_is_no_worse(model):
    care = trimtab.Care(seconds=1, processes=2)
    found = trimtab.compare([model, model], (INPUTS, LABELS), trimtab.Goal(max_drop=0.03, margin=0.5), care=care)
    assert [proof.proven for proof in found.quality] == [True]
    assert found.ratios[0].baseline == found.ratios[0].variant


@pytest.mark.slow
def test_a_live_module_is_traced_on_an_item_of_the_data():
    pytest.importorskip("torch")
    from trimtab.testing import perceptron

    module = perceptron.make(0)
    found = trimtab.measure(module, (INPUTS, LABELS), meters=("quality",))
    assert found.value("accuracy") == 1.0
    with pytest.raises(BadInput, match="a live module doesn't say what it takes"):
        trimtab.measure(module, meters=("size",))


def _items(kind: str, folder: Path) -> object:
    """The items in one of the forms in which Python people hold them."""
    from torch import from_numpy
    from torch.utils.data import DataLoader, TensorDataset

    held = TensorDataset(from_numpy(INPUTS), from_numpy(LABELS))
    if kind == "file":
        np.savez(folder / "items.npz", inputs=INPUTS, labels=LABELS)
        return folder / "items.npz"
    named = [{"x": item, "labels": label} for item, label in zip(INPUTS, LABELS, strict=True)]
    return {"data set": held, "named items": named, "loader": DataLoader(held, batch_size=64)}[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["data set", "named items", "loader", "file"])
def test_a_live_module_is_measured_on_data_sets_loaders_and_files(kind, tmp_path):
    pytest.importorskip("torch")
    from trimtab.testing import perceptron

    found = trimtab.measure(perceptron.make(0), _items(kind, tmp_path), meters=("quality",))
    assert found.value("accuracy") == 1.0


def test_what_no_model_of_a_comparison_reads_is_refused(model, tmp_path):
    requests = trimtab.Requests(model=trimtab.ModelRequest(weights=tmp_path / "w.safetensors"))
    with pytest.raises(BadInput, match="--weights gives the weights of a PyTorch factory"):
        trimtab.compare([model, model], (INPUTS, LABELS), requests=requests)


@pytest.mark.parametrize("data", [None, (["a text"] * 800, [0, 1] * 400), INPUTS], ids=["no data", "texts", "numbers"])
def test_a_model_that_takes_strings_is_refused_with_what_to_do(data, tmp_path):
    value, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    nodes = [onnx.helper.make_node("Shape", ["text"], ["size"]), onnx.helper.make_node("Cast", ["size"], ["y"], to=1)]
    graph = onnx.helper.make_graph(nodes, "net", [value("text", kinds.STRING, ["n"])], [value("y", kinds.FLOAT, [1])])
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "net.onnx")
    with pytest.raises(BadInput, match="input 'text' takes strings, which trimtab can't feed: export the part after"):
        trimtab.measure(tmp_path / "net.onnx", data, meters=("latency",))


def test_requests_say_how_data_is_read(model):
    requests = trimtab.Requests(data=trimtab.DataRequest(metric="f1_macro", seed=3))
    found = trimtab.measure(model, (INPUTS, LABELS), meters=("quality",), requests=requests)
    assert found.value("f1_macro") == 1.0
    with pytest.raises(BadInput, match="taste"):
        wrong = trimtab.Requests(data=trimtab.DataRequest(metric="taste"))
        trimtab.measure(model, (INPUTS, LABELS), meters=("quality",), requests=wrong)


def test_the_defaults_are_those_of_the_command_line():
    assert trimtab.Goal() == Job(model="m", output=Path("o")).goal
    assert (trimtab.Goal().objective, trimtab.Goal().max_drop, trimtab.Effort().seconds) == ("latency", 0.01, 600.0)


def test_every_public_name_is_there_and_nothing_else_is_promised():
    assert all(getattr(trimtab, name) is not None for name in trimtab.__all__)
    assert set(trimtab.__all__) <= set(dir(trimtab))
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        trimtab.magic  # noqa: B018 # it is the access that is tested


def test_importing_trimtab_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import trimtab; print(sorted(set(sys.modules) - before))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numpy" not in shown.stdout
    assert "trimtab.core" not in shown.stdout


def test_latency_that_is_asked_for_takes_the_calls_of_its_p99(model, monkeypatch):
    asked = []
    monkeypatch.setattr(measuring, "measure", lambda *_, meters, split: asked.append(dict(meters or {})))
    trimtab.measure(model, meters=("latency", "size"))
    trimtab.measure(model, meters=("latency",), options={"latency": {"seconds": 1.0}})
    trimtab.measure(model)
    assert dict(asked[0]["latency"]) == {"percentile": 0.99}
    assert dict(asked[1]["latency"]) == {"seconds": 1.0}
    assert dict(asked[2].get("latency", ())) == {}
