from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.values import Model, Task
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.training.invariance import ASKED, indifferent
from trimtab.workbench.opening import ModelRequest, open_model

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")

NETS = """
import torch
from torch import nn

class Brightness(nn.Module):
    def forward(self, image):
        mean = image.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)

class Side(nn.Module):
    def forward(self, image):
        half = image.shape[3] // 2
        return torch.stack([image[..., :half].mean((1, 2, 3)), image[..., half:].mean((1, 2, 3))], 1)

def brightness():
    return Brightness()

def side():
    return Side()

example_inputs = {"image": torch.zeros(1, 1, 16, 16)}
"""


@pytest.fixture
def opened(tmp_path: Path) -> tuple[dict[str, Model], Task]:
    """Networks that see brightness, and which side is brighter; images of two levels, one side brighter."""
    (tmp_path / "nets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    level = np.where(rng.random(400) < 0.5, 0.1, 0.9)
    images = np.repeat(level[:, None, None, None], 256, 1).reshape(400, 1, 16, 16).astype(np.float32)
    images[:, :, :, :8] += np.where(rng.random(400) < 0.5, 0.05, -0.05)[:, None, None, None].astype(np.float32)
    models = {
        name: open_model(f"{tmp_path / 'nets.py'}:{name}", tmp_path / name, ModelRequest()).model
        for name in ("brightness", "side")
    }
    task = open_task((images, (level > 0.5).astype(int)), models["side"], tmp_path / "data", DataRequest())
    return models, task


def test_a_network_is_indifferent_to_what_changes_none_of_its_answers(opened: tuple[dict[str, Model], Task]) -> None:
    models, task = opened
    select = task.split("select")
    assert select is not None
    assert indifferent(models["brightness"], task, select) == ASKED
    assert "flip" not in indifferent(models["side"], task, select)


def test_asking_draws_none_of_the_random_numbers_of_the_caller(opened: tuple[dict[str, Model], Task]) -> None:
    models, task = opened
    select = task.split("select")
    assert select is not None
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    indifferent(models["side"], task, select)
    assert torch.equal(torch.rand(3), expected)


def test_numbers_and_regression_have_no_augmentation(opened: tuple[dict[str, Model], Task]) -> None:
    models, task = opened
    select = task.split("select")
    assert select is not None
    assert indifferent(models["side"], replace(task, kind="regression"), select) == ()
