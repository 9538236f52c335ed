from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput, Refused
from trimtab.core.values import Task, Variant, options
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.search.making import Made
from trimtab.serving.bundle import load, read_manifest
from trimtab.testing.networks import PERCEPTRON
from trimtab.testing.samples import source
from trimtab.testing.samples import task as sample_task
from trimtab.workbench import apply as subject
from trimtab.workbench.apply import apply
from trimtab.workbench.opening import open_model


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    return open_model(source("onnx", tmp_path / "model"), tmp_path / "opened")


def test_writes_a_bundle_without_a_certificate_and_leaves_nothing_else(variant, tmp_path):
    output = tmp_path / "out"
    made = apply(variant, "dynamic-int8", Task(), output)
    assert sorted(path.name for path in output.iterdir()) == ["manifest.json", "model", "run.py"]
    manifest = read_manifest(output)
    assert manifest.certificate is None
    assert [step.technique for step in manifest.variant.steps] == ["dynamic-int8"]
    assert made.model.path.is_relative_to(output)
    inputs = PERCEPTRON.inputs(50, 0)
    answers = load(output)(inputs)["scores"].argmax(axis=1)
    assert np.mean(answers == PERCEPTRON.answer(inputs)["scores"].argmax(axis=1)) > 0.9


def test_a_technique_that_needs_data_gets_it_with_its_options(variant, tmp_path):
    task = sample_task(PERCEPTRON, tmp_path / "data")
    made = apply(variant, "static-int8", task, tmp_path / "out", options=options(per_channel=False))
    assert dict(made.steps[0].options)["per_channel"] is False
    assert made.model.digest != variant.model.digest


def test_what_can_not_be_done_is_said_and_leaves_no_litter(variant, tmp_path):
    with pytest.raises(Refused, match="static-int8 needs calibration data"):
        apply(variant, "static-int8", Task(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(BadInput, match="there is no technique named 'magic'"):
        apply(variant, "magic", Task(), tmp_path / "out")


@pytest.mark.parametrize("mark", ["result.json", "work/run.txt"])
def test_the_folder_of_a_run_is_left_alone(variant, tmp_path, mark):
    (tmp_path / "run" / "work").mkdir(parents=True)
    (tmp_path / "run" / mark).write_text("")
    with pytest.raises(BadInput, match="holds a run of trimtab optimize; choose another --output"):
        apply(variant, "dynamic-int8", Task(), tmp_path / "run")


@pytest.mark.parametrize(("name", "holds"), [("run.py", "print()"), ("manifest.json", '{"name": "my web page"}')])
def test_files_of_others_are_never_overwritten(variant, tmp_path, name, holds):
    output = tmp_path / "out"
    output.mkdir()
    (output / name).write_text(holds)
    with pytest.raises(BadInput, match=f"holds {name} already, which would be overwritten; choose another --output"):
        apply(variant, "dynamic-int8", Task(), output)
    assert [(path.name, path.read_text()) for path in output.iterdir()] == [(name, holds)]


def test_a_bundle_may_be_applied_to_in_its_own_folder(variant, tmp_path):
    first = apply(variant, "dynamic-int8", Task(), tmp_path / "out")
    again = apply(open_model(tmp_path / "model" / "perceptron.onnx", tmp_path), "bf16", Task(), tmp_path / "out")
    assert [step.technique for step in read_manifest(tmp_path / "out").variant.steps] == ["bf16"]
    assert first.key != again.key


def test_a_threshold_is_tuned_for_what_is_protected_and_stands_in_the_manifest(probability, tmp_path, monkeypatch):
    labels = np.tile([0, 0, 0, 1], 100)
    x = np.tile([0.05, 0.1, 0.15, 0.3], 100).astype(np.float32)[:, None]
    model = probability(1.0)
    monkeypatch.setattr(subject, "make", lambda shop, original, *_: Made(variant=original, seconds=0.0))
    found = {}
    for metric in ("recall", "accuracy"):
        data = {"x": x, "labels": labels}
        task = open_task(data, model.model, tmp_path / f"data-{metric}", DataRequest(metric=metric))
        apply(model, "simplify", task, tmp_path / metric)
        found[metric] = read_manifest(tmp_path / metric).task.threshold
    assert found == {"recall": pytest.approx(0.225), "accuracy": None}
