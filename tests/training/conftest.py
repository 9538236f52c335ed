"""Images to learn, networks that learn them in a second, and a fit on both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from trimtab.core.values import Model, Signature, Task, TensorSpec
from trimtab.data.batches import labels as labels_of
from trimtab.data.task import open_task
from trimtab.training.fit import Course, Fitted, fit
from trimtab.training.recipe import Recipe

IMAGE = Signature(
    inputs=(TensorSpec(name="input", dtype="float32", shape=("batch", 1, 8, 8)),),
    outputs=(TensorSpec(name="output", dtype="float32", shape=("batch", 10)),),
)


def task_of(folder: Path, train: int, judged: int) -> Task:
    """Return a task of scikit-learn's digits; of the items to train on an eighth calibrates instead."""
    inputs, labels = load_digits(return_X_y=True)
    images = (inputs.reshape(-1, 1, 8, 8) / 16 - 0.3).astype(np.float32)[: train + judged]
    splits = np.repeat(["train", "test"], [train, judged])
    model = Model(format="fake", path=Path("net.py"), digest="fake", signature=IMAGE)
    return open_task({"input": images, "labels": labels[: train + judged], "split": splits}, model, folder)


@pytest.fixture(scope="session")
def image() -> Signature:
    """Takes images of 8 × 8 pixels and answers ten numbers."""
    return IMAGE


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """1,050 digits to train on, 149 to select by."""
    return task_of(tmp_path_factory.mktemp("digits"), train=1200, judged=597)


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """105 digits to train on (four batches of 32), 25 to select by."""
    return task_of(tmp_path_factory.mktemp("few"), train=120, judged=100)


@pytest.fixture
def mlp() -> Callable[..., Any]:
    """Make a perceptron with one hidden layer; the same seed gives the same weights."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)

    def make(seed: int = 0) -> Any:
        torch.manual_seed(seed)
        layers = torch.nn
        return layers.Sequential(layers.Flatten(), layers.Linear(64, 32), layers.ReLU(), layers.Linear(32, 10))

    return make


@pytest.fixture
def conv() -> Callable[..., Any]:
    """Make a convolutional network of two blocks with batch normalization and dropout."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)

    def block(channels: int) -> list[Any]:
        layers = torch.nn
        return [
            layers.Conv2d(channels, 8, 3, padding=1),
            layers.BatchNorm2d(8),
            layers.ReLU(),
            layers.Dropout(0.1),
            layers.MaxPool2d(2),
        ]

    def make(seed: int = 0) -> Any:
        torch.manual_seed(seed)
        layers = torch.nn
        blocks = (layers.Sequential(*block(channels)) for channels in (1, 8))
        return layers.Sequential(*blocks, layers.Flatten(), layers.Linear(32, 10))

    return make


@pytest.fixture
def learn(tmp_path: Path) -> Callable[..., Fitted]:
    """Fit a module by its share of right answers on the select split; keywords replace parts of the course."""
    pytest.importorskip("torch")
    folders = iter(range(1000))

    def run(module: Any, task: Task, recipe: Recipe, score: Any = None, **course: Any) -> Fitted:
        def right(outputs: Any) -> float:
            return float(np.mean(outputs.argmax(axis=1) == labels_of(task.split("select"))))

        given = {"folder": tmp_path / f"fit-{next(folders)}", "start": "here", **course}
        return fit(module, IMAGE, task, recipe, score or right, Course(**given))

    return run
