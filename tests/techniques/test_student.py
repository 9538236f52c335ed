"""Students in the place of an image classifier: what they keep of it, how they are kept, and that they learn."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

torch = pytest.importorskip("torch")

from trimtab.core import plugins  # noqa: E402 (after the skip)
from trimtab.core.errors import BadInput, NothingToGain, Unsafe  # noqa: E402
from trimtab.core.protocols import Opening  # noqa: E402
from trimtab.core.values import Settings, Task, Variant, Workload  # noqa: E402
from trimtab.data.batches import labels as labels_of  # noqa: E402
from trimtab.data.task import open_task  # noqa: E402
from trimtab.formats.torch import TorchFormat, save_built  # noqa: E402
from trimtab.formats.torch_tracing import load_live  # noqa: E402
from trimtab.students.networks import FACTORY, KINDS  # noqa: E402
from trimtab.techniques.fine_tune import FineTune  # noqa: E402
from trimtab.techniques.student import Student  # noqa: E402
from trimtab.testing.laws import contents  # noqa: E402
from trimtab.training.network import answers_of  # noqa: E402
from trimtab.workbench.opening import open_model  # noqa: E402

NETS = """
import torch
from torch import nn

def net(width):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, width, 3, padding=1), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Flatten(),
                         nn.Linear(width * 16, 10))

def broad(): return net(384)

def middle(): return net(128)

def slight():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

example_inputs = {"input": torch.zeros(1, 1, 8, 8)}
output_names = ("logits",)
"""
IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = (IMAGES.reshape(-1, 1, 8, 8) / 16 - 0.3).astype(np.float32)


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., Variant]:
    """Return a function that opens a factory."""
    torch.set_num_threads(1)
    (tmp_path / "nets.py").write_text(NETS)
    return lambda name="broad": open_model(f"{tmp_path / 'nets.py'}:{name}", tmp_path / "opened")


def right(variant: Variant, task: Task) -> float:
    split = task.split("select")
    assert split is not None
    outputs = answers_of(load_live(variant.model), variant.model.signature, task, split)
    return float(np.mean(outputs.argmax(axis=1) == labels_of(split)))


@pytest.mark.parametrize("kind", KINDS)
def test_it_takes_and_answers_what_the_original_does_with_fewer_products(kind: str, given: Any, context: Any) -> None:
    pytest.importorskip("onnxscript")
    variant = given()
    before = contents(variant.model.path)
    made = Student(kind=kind, width=0.25, depth=0.1).apply(variant, context(variant, Task()))
    assert made.model.signature == variant.model.signature
    found = plugins.make("runtimes", "torch").load(made)({"input": IMAGES[:3]})
    assert {name: value.shape for name, value in found.items()} == {"logits": (3, 10)}
    assert contents(variant.model.path) == before
    exported = plugins.make("techniques", "export-onnx").apply(made, context(made, Task(), "exported"))
    assert exported.model.signature == made.model.signature


def test_the_step_is_enough_to_do_it_again_and_its_products_are_fewer(given: Any, context: Any) -> None:
    variant = given("middle")
    made = Student(kind="resnet", depth=0.1).apply(variant, context(variant, Task()))
    (step,) = made.steps
    again = plugins.make("techniques", "student", step.options).apply(variant, context(variant, Task(), "again"))
    assert (again.model.digest, again.steps) == (made.model.digest, made.steps)
    count = TorchFormat().work
    assert count(made.model, Workload()).macs < count(variant.model, Workload()).macs


def test_the_folder_holds_words_and_tensors_and_opens_without_trust_in_any_code(given: Any, context: Any) -> None:
    variant = given()
    made = Student(kind="resnet").apply(variant, context(variant, Task()))
    assert sorted(file.name for file in made.model.path.iterdir()) == ["module.json", "weights.safetensors"]
    kept = json.loads((made.model.path / "module.json").read_text())
    assert (kept["factory"], dict(kept["arguments"])) == (
        FACTORY, {"kind": "resnet", "width": 0.5, "depth": 1.0, "image": [1, 8, 8], "classes": 10,
                 "called": "input"},
    )  # fmt: skip
    assert TorchFormat().open(str(made.model.path), Opening(folder=made.model.path.parent)) == made.model
    with pytest.raises(Unsafe, match="runs code when it is loaded"):
        TorchFormat().open(str(variant.model.path), Opening(folder=made.model.path.parent))
    images = torch.from_numpy(IMAGES[:2])
    script = (
        "from pathlib import Path; import torch; from trimtab.core.values import *\n"
        "from trimtab.formats.torch import *; torch.set_num_threads(1)\n"
        f"m = Model(format='torch', path=Path({str(made.model.path)!r}), digest='', signature=None)\n"
        f"print(TorchFormat().load(m)(input=torch.tensor({images.tolist()})).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.allclose(json.loads(done.stdout), load_live(made.model)(input=images).detach().numpy(), atol=1e-5)


def test_other_arguments_are_another_model_and_wrong_ones_are_told(given: Any, context: Any, tmp_path: Path) -> None:
    variant = given()
    made = Student(kind="resnet").apply(variant, context(variant, Task()))
    path = made.model.path / "module.json"
    text = path.read_text()
    path.write_text(text.replace('"resnet"', '"vgg"'))
    with pytest.raises(BadInput, match=r"there is no student 'vgg'.*it was built with \{"):
        load_live(made.model)
    path.write_text(text.replace("0.5", "0.25"))
    with pytest.raises(BadInput, match=r"weights in .* don't fit the module"):
        load_live(made.model)
    path.write_text(text)
    module, signature = load_live(made.model), made.model.signature
    others = (("classes", 10), ("image", (1, 8, 8)), ("kind", "resnet"), ("width", 0.5))
    other = save_built(FACTORY, others, module, signature, tmp_path / "other")
    assert other.digest != made.model.digest


def test_what_became_of_it_is_told(given: Any, context: Any) -> None:
    variant = given()
    made = Student().apply(variant, context(variant, Task()))
    assert dict(made.steps[0].options) == {"kind": "resnet"}
    sizes, products, *layers = Student().changes(variant, made)
    whole, light = (sum(w.numel() for w in load_live(each.model).parameters()) for each in (variant, made))
    assert sizes == f"resnet × 0.5: {whole:,} → {light:,} parameters"
    assert products.endswith("million multiply-accumulates")
    assert layers[0] == "features.0.0: starts with weights of 0"


@pytest.mark.parametrize("labelled", [True, False])
def test_a_student_learns_from_the_original(labelled: bool, given: Any, context: Any, tmp_path: Path) -> None:
    variant = given("middle")
    split = np.repeat(["train", "test"], [700, 500])
    data = {"inputs": IMAGES[:1200], "split": split}
    task = open_task(data | {"labels": LABELS[:1200]}, variant.model, tmp_path / "data")
    own = task if labelled else open_task(data, variant.model, tmp_path / "bare")
    taught = FineTune(epochs=3, batch=32, distill=0.0).apply(variant, context(variant, task, "teacher"))
    made = Student(kind="resnet", depth=0.3).apply(taught, context(taught, own, "student"))
    at = replace(context(taught, own, "learnt"), deadline=time.monotonic() + 100)
    learnt = FineTune(epochs=8, batch=16, lr=0.01, distill=0.7).apply(made, at)
    assert [step.technique for step in learnt.steps] == ["fine-tune", "student", "fine-tune"]
    assert right(learnt, task) > right(taught, task) - 0.06
    assert right(learnt, task) > right(made, task) + 0.3
    assert json.loads((learnt.model.path / "module.json").read_text())["edits"] == []


def test_a_student_can_be_given_hints_and_the_original_gives_itself_none(
    given: Any, context: Any, tmp_path: Path
) -> None:
    variant = given("middle")
    data = {"inputs": IMAGES[:200], "labels": LABELS[:200], "split": np.repeat(["train", "test"], [100, 100])}
    task = open_task(data, variant.model, tmp_path / "data")
    made = Student(kind="resnet", depth=0.1).apply(variant, context(variant, task, "student"))
    tune = FineTune(epochs=1, batch=32, hints="attention")
    learnt = tune.apply(made, context(variant, task, "learnt"))
    assert dict(learnt.steps[-1].options)["hints"] == "attention"
    alone = tune.apply(variant, context(variant, task, "alone"))
    assert (dict(alone.steps[-1].options)["hints"], dict(alone.steps[-1].options)["distill"]) == ("none", 0.0)


def test_a_student_is_pruned_and_exported_like_any_other_network(given: Any, context: Any) -> None:
    pytest.importorskip("torch_pruning")
    pytest.importorskip("onnxscript")
    variant = given()
    made = Student(kind="mobilenetv2", width=0.25, depth=0.1).apply(variant, context(variant, Task(), "student"))
    prune = plugins.make("techniques", "prune", (("amount", 0.25), ("round_to", 1)))
    pruned = prune.apply(made, context(made, Task(), "pruned"))
    exported = plugins.make("techniques", "export-onnx").apply(pruned, context(pruned, Task(), "exported"))
    one, other = (
        plugins.make("runtimes", each.settings.runtime).load(each)({"input": IMAGES[:3]})["logits"].copy()
        for each in (pruned, exported)
    )
    np.testing.assert_allclose(one, other, atol=1e-4)


class TestRefusals:
    def test_a_student_that_would_not_be_lighter(self, given: Any, context: Any) -> None:
        variant = given("slight")
        with pytest.raises(NothingToGain, match=r"million multiply-accumulates and the model 0\.0: give a smaller"):
            Student(kind="mobilenetv2").apply(variant, context(variant, Task()))

    def test_an_unknown_kind_another_format_and_another_task(self, given: Any) -> None:
        variant = given()
        assert "choose auto, resnet" in str(Student(kind="vgg").refuses(variant, Task()))
        onnx = replace(variant, model=replace(variant.model, format="onnx"), settings=Settings(runtime="onnxruntime"))
        assert "this one is onnx" in str(Student().refuses(onnx, Task()))
        assert Student().refuses(variant, Task()) is None

    def test_what_is_no_image_classifier(self, factory: Any) -> None:
        for name in ("mlp", "transformer"):
            assert "students take one input of images" in str(Student().refuses(*factory(name)))

    @pytest.mark.parametrize("wrong", [{"width": 0.0}, {"depth": -1.0}, {"width": float("nan")}])
    def test_a_multiplier_that_makes_no_sense(self, wrong: dict[str, float]) -> None:
        with pytest.raises(BadInput, match="is no multiplier"):
            Student(**wrong)
