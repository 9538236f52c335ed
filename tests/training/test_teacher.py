"""Teachers answer what their networks answer, and students come to answer like them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Model, Signature, Task
from trimtab.data.batches import feeds
from trimtab.formats.torch_tracing import load_live
from trimtab.training.network import answers_of, tensors_of
from trimtab.training.recipe import Recipe
from trimtab.training.teacher import KeptTeacher, LiveTeacher, teacher_of
from trimtab.workbench.opening import open_model

torch = pytest.importorskip("torch")

NETS = """
import torch
from torch import nn

def _net(seed, outputs):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))

def one(): return _net(1, 10)
def two(): return _net(2, 10)
def narrow(): return _net(3, 4)

example_inputs = {"input": torch.zeros(1, 1, 8, 8)}
"""
ROWS = np.array([3, 7, 20])


@pytest.fixture
def teacher(tmp_path: Path) -> Callable[[str], Model]:
    """Return a function from the name of a factory to its model."""
    code = tmp_path / "teachers.py"
    code.write_text(NETS)
    return lambda name: open_model(f"{code}:{name}", tmp_path / "opened").model


def shown(task: Task, rows: Any) -> dict[str, Any]:
    split = task.split("train")
    assert split is not None
    return tensors_of(feeds(task, split, rows))


def test_both_kinds_give_the_mean_of_what_the_networks_answer(
    few: Task, teacher: Callable[[str], Model], tmp_path: Path
) -> None:
    models = [teacher("one"), teacher("two")]
    split = few.split("train")
    assert split is not None
    expected = np.mean([answers_of(load_live(m), m.signature, few, split)[ROWS] for m in models], axis=0)
    live = LiveTeacher(models, few)(ROWS, shown(few, ROWS))
    kept = KeptTeacher(models, few, split, tmp_path / "kept")(ROWS, {})
    assert np.allclose(live.numpy(), expected, atol=1e-6)
    assert np.allclose(kept.numpy(), expected, atol=1e-6)
    assert not live.requires_grad


def test_answers_are_computed_once_and_found_again(few: Task, teacher: Callable[[str], Model], tmp_path: Path) -> None:
    split = few.split("train")
    assert split is not None
    KeptTeacher([teacher("one")], few, split, tmp_path / "kept")
    (file,) = (tmp_path / "kept").glob("*.npy")
    np.save(file, np.zeros((len(split), 10), np.float32))
    again = KeptTeacher([teacher("one")], few, split, tmp_path / "kept")
    assert again(ROWS, {}).abs().sum() == 0
    KeptTeacher([teacher("two")], few, split, tmp_path / "kept")
    assert len(list((tmp_path / "kept").glob("*.npy"))) == 2, "another teacher never meets these answers"


def test_augmented_items_are_answered_as_they_are_seen(
    few: Task, teacher: Callable[[str], Model], image: Signature, tmp_path: Path
) -> None:
    for live, kind in ((True, LiveTeacher), (False, KeptTeacher)):
        assert isinstance(teacher_of([teacher("one")], image, few, tmp_path, live=live), kind)


def test_teachers_of_different_tasks_are_refused(few: Task, teacher: Callable[[str], Model], tmp_path: Path) -> None:
    split = few.split("train")
    assert split is not None
    with pytest.raises(BadInput, match=r"different shapes \(\[10\], \[4\] an item\)"):
        KeptTeacher([teacher("one"), teacher("narrow")], few, split, tmp_path)
    live = LiveTeacher([teacher("one"), teacher("narrow")], few)
    with pytest.raises(BadInput, match=r"different shapes \(\[10\], \[4\] an item\)"):
        live(np.arange(2), {"input": torch.zeros(2, 1, 8, 8)})


def test_a_teacher_of_other_inputs_classes_or_format_is_refused(
    few: Task, teacher: Callable[[str], Model], image: Signature, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="answers 4 numbers an item and the network 10"):
        teacher_of([teacher("one"), teacher("narrow")], image, few, tmp_path, live=False)
    renamed = replace(image, inputs=(replace(image.inputs[0], name="picture"),))
    with pytest.raises(BadInput, match="takes input:float32 and the network picture:float32"):
        teacher_of([teacher("one")], renamed, few, tmp_path, live=True)
    with pytest.raises(BadInput, match="is onnx; give one in PyTorch"):
        teacher_of([replace(teacher("one"), format="onnx")], image, few, tmp_path, live=True)


def test_without_items_to_train_on_there_is_nothing_to_teach(
    teacher: Callable[[str], Model], image: Signature, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="needs items to train on"):
        teacher_of([teacher("one")], image, Task(), tmp_path, live=False)


@pytest.mark.parametrize("augment", ["none", "mixup"])
def test_a_student_without_labels_comes_to_answer_like_its_teacher(
    digits: Task, teacher: Callable[[str], Model], image: Signature, mlp: Any, learn: Any, tmp_path: Path, augment: str
) -> None:
    model, select = teacher("one"), digits.split("select")
    assert select is not None
    told = answers_of(load_live(model), model.signature, digits, select).argmax(axis=1)
    guide = teacher_of([model], image, digits, tmp_path, live=augment != "none")
    recipe = Recipe(epochs=8, batch=32, lr=0.01, distill=1.0, temperature=1.0, augment=augment, weight_decay=0)
    student = mlp()

    def alike(outputs: Any) -> float:
        return float(np.mean(outputs.argmax(axis=1) == told))

    fitted = learn(student, digits, recipe, alike, teacher=guide)
    assert fitted.history[-1].score > max(0.85, fitted.history[0].score)


def test_a_recipe_that_distils_needs_a_teacher(few: Task, mlp: Any, learn: Any) -> None:
    with pytest.raises(BadInput, match="distill and hints need a teacher"):
        learn(mlp(), few, Recipe(distill=0.5))
