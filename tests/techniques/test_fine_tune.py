"""Fine-tuning brings back what a changed network lost, by labels or by what the original answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from trimtab.core.errors import Refused
from trimtab.core.protocols import Context
from trimtab.core.values import Task, Variant
from trimtab.data.batches import labels as labels_of
from trimtab.data.task import open_task
from trimtab.formats.torch import save_changed
from trimtab.formats.torch_tracing import load_live
from trimtab.techniques import fine_tune
from trimtab.techniques.fine_tune import FineTune, fitting_batch
from trimtab.techniques.learning import score_of
from trimtab.training.network import answers_of
from trimtab.workbench.opening import open_model

torch = pytest.importorskip("torch")

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

example_inputs = {"input": torch.zeros(1, 1, 8, 8)}
"""
IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = (IMAGES.reshape(-1, 1, 8, 8) / 16).astype(np.float32)


@pytest.fixture
def case(tmp_path: Path) -> Callable[[bool], tuple[Variant, Task]]:
    """Return a function that makes a network with random weights and the digits as its task, with labels or without."""
    torch.set_num_threads(1)
    code = tmp_path / "net.py"
    code.write_text(NET)
    variant = open_model(f"{code}:make", tmp_path / "opened")

    def make(labelled: bool = True) -> tuple[Variant, Task]:
        data: dict[str, Any] = {"inputs": IMAGES[:1000], "split": np.repeat(["train", "test"], [600, 400])}
        return variant, open_task(
            data | ({"labels": LABELS[:1000]} if labelled else {}), variant.model, tmp_path / "data"
        )

    return make


@pytest.fixture
def at(tmp_path: Path) -> Callable[..., Context]:
    """Return a function that makes a context."""

    def make(original: Variant, task: Task, seconds: float = 60.0, folder: str = "made") -> Context:
        return Context(
            task=task, original=original, folder=tmp_path / folder, seed=1, deadline=time.monotonic() + seconds,
            evaluate=lambda variant, most=None: 0.0, time=lambda variant: 0.0,
        )  # fmt: skip

    return make


def right(variant: Variant, task: Task) -> float:
    split = task.split("select")
    assert split is not None
    outputs = answers_of(load_live(variant.model), variant.model.signature, task, split)
    return float(np.mean(outputs.argmax(axis=1) == labels_of(split)))


def damaged(variant: Variant, folder: Path) -> Variant:
    """Return the variant with half of its hidden neurons gone."""
    module = load_live(variant.model)
    first, last = module[1], module[3]
    module[1], module[3] = torch.nn.Linear(64, 16), torch.nn.Linear(16, 10)
    with torch.no_grad():
        module[1].weight.copy_(first.weight[:16])
        module[1].bias.copy_(first.bias[:16])
        module[3].weight.copy_(last.weight[:, :16])
        module[3].bias.copy_(last.bias)
    return replace(variant, model=save_changed(variant.model, module, folder))


def test_a_network_learns_by_labels_and_the_given_one_stays_as_it_was(case: Any, at: Any) -> None:
    variant, task = case()
    before = right(variant, task)
    made = FineTune(epochs=4, lr=0.01, batch=32, distill=0.0).apply(variant, at(variant, task))
    assert right(variant, task) == before < 0.3
    assert right(made, task) > 0.75
    assert [step.technique for step in made.steps] == ["fine-tune"]
    assert dict(made.steps[0].options)["epochs"] == 4


@pytest.mark.parametrize("labelled", [True, False])
def test_half_a_network_learns_from_the_whole_one(case: Any, at: Any, tmp_path: Path, labelled: bool) -> None:
    variant, task = case()
    whole = FineTune(epochs=6, lr=0.01, batch=32, distill=0.0).apply(variant, at(variant, task))
    half = damaged(whole, tmp_path / "half")
    _, own = case(labelled)
    made = FineTune(epochs=4, lr=0.01, batch=32, distill=0.9).apply(half, at(whole, own, folder="learnt"))
    assert right(made, task) > right(half, task)
    assert right(made, task) > right(whole, task) - 0.06
    assert dict(made.steps[-1].options)["distill"] == (0.9 if labelled else 1.0)
    assert load_live(made.model)[1].out_features == 16


def test_the_same_seed_makes_the_same_weights(case: Any, at: Any) -> None:
    variant, task = case()
    made = [FineTune(epochs=1).apply(variant, at(variant, task, folder=f"made{time}")) for time in range(2)]
    assert made[0].model.digest == made[1].model.digest != variant.model.digest


@pytest.mark.parametrize(("items", "expected"), [(60_000, 128), (6_400, 128), (6_399, 64), (800, 16), (10, 16)])
def test_few_items_are_learnt_in_small_batches(items: int, expected: int) -> None:
    assert fitting_batch(items) == expected


def test_what_is_left_open_is_decided_and_told(case: Any, at: Any) -> None:
    variant, task = case()
    step = FineTune(epochs=1).apply(variant, at(variant, task)).steps[-1]
    told, train = dict(step.options), task.split("train")
    assert train is not None
    assert (told["batch"], told["lr"]) == (fitting_batch(len(train)), 2e-3)
    assert step.label() == "fine-tune(distill=0.0, epochs=1)", (
        "in the file, not in a label, of which a chain has several"
    )


def test_a_deadline_before_the_first_epoch_is_told(case: Any, at: Any) -> None:
    variant, task = case()
    with pytest.raises(Refused, match="not one epoch"):
        FineTune().apply(variant, at(variant, task, seconds=-1.0))


def test_what_can_not_be_trained_is_refused_with_the_reason(case: Any) -> None:
    variant, task = case()
    onnx = replace(variant, model=replace(variant.model, format="onnx"))
    assert "it trains PyTorch models" in str(FineTune().refuses(onnx, task))
    none = replace(task, splits=tuple(split for split in task.splits if split.name != "train"))
    assert "--train" in str(FineTune().refuses(variant, none))
    assert FineTune().refuses(variant, task) is None


def test_a_network_is_never_its_own_teacher(case: Any, at: Any) -> None:
    variant, task = case()
    made = FineTune(epochs=1, distill=0.9).apply(variant, at(variant, task))
    assert dict(made.steps[-1].options)["distill"] == 0.0
    _, unlabelled = case(False)
    with pytest.raises(Refused, match="no other PyTorch model that could teach"):
        FineTune().apply(variant, at(variant, unlabelled, folder="alone"))


def test_numbers_are_scored_by_their_error_and_classes_by_their_share(case: Any) -> None:
    variant, task = case()
    split = task.split("select")
    assert split is not None
    labels = labels_of(split)
    assert labels is not None
    assert score_of(task, split, variant.model)(np.eye(10)[labels]) == 1.0
    numbers = replace(task, kind="regression")
    assert score_of(numbers, split, variant.model)(labels[:, None] + 2.0) == pytest.approx(-4.0)


def test_what_the_original_is_indifferent_to_is_asked_once_in_a_run(
    case: Callable[..., tuple[Variant, Task]],
    at: Callable[..., Context],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variant, task = case()
    asked: list[str] = []

    def counted(*given: Any) -> tuple[str, ...]:
        asked.append("once")
        return ("crop", "scale")

    monkeypatch.setattr(fine_tune, "indifferent", counted)
    for folder in ("first", "second"):
        context = replace(at(variant, task, folder=folder), shared=tmp_path)
        made = FineTune(epochs=10, share=0.2).apply(variant, context)
        assert dict(made.steps[-1].options)["augment"] == "crop+scale"
    assert asked == ["once"]


def test_short_trainings_see_the_items_as_they_are(
    case: Callable[..., tuple[Variant, Task]], at: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    variant, task = case()
    monkeypatch.setattr(fine_tune, "indifferent", lambda *given: ("crop",))
    made = FineTune(epochs=1, share=0.5).apply(variant, at(variant, task))
    assert dict(made.steps[-1].options)["augment"] == "none"
