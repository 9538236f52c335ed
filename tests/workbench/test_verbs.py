"""Python's own verbs: trimtab.optimize, measure, compare, load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import trimtab
from trimtab.core.errors import BadInput
from trimtab.testing.networks import PERCEPTRON
from trimtab.testing.samples import source
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
