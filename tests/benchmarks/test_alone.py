"""The peers that train: what they are asked, and what they learn on."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trimtab.data.arrays import open_array
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.workbench.opening import ModelRequest, open_model

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"


@pytest.fixture
def alone(importable: None) -> Any:
    pytest.importorskip("torch")
    return importlib.import_module("alone")


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """Write items that a classifier of images can learn, with their labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 700)
    images = rng.normal(0, 0.3, (700, 1, 28, 28)).astype(np.float32)
    for row, label in enumerate(labels):
        images[row, 0, 2 * label : 2 * label + 4] += 2
    path = tmp_path / "items.npz"
    np.savez(path, train=images[:600], train_labels=labels[:600], select=images[600:], select_labels=labels[600:])
    return path


@pytest.fixture
def weights(importable: None, tmp_path: Path) -> Path:
    """Write random weights of the classifier."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from networks import build

    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    save_file(build("mnist.py:build").state_dict(), path)
    return path


def test_everybody_is_given_the_same_items_and_the_same_time(alone: Any, tmp_path: Path) -> None:
    asset = SimpleNamespace(factory="mnist.py:build", weights=tmp_path / "w", calibration=tmp_path / "c", model="m")
    commands = [peer.command(asset, tmp_path / "out") for peer in alone.pupils(tmp_path / "items.npz", 90.0)]
    for command in commands:
        assert command[command.index("--train") + 1] == str(tmp_path / "items.npz")
        assert command[command.index("--seconds") + 1] == "90"
    assert len({peer.key for peer in alone.pupils(tmp_path / "items.npz", 90.0)}) == len(commands)


def test_the_items_are_those_of_the_task_prepared_for_the_model(alone: Any, tmp_path: Path, weights: Path) -> None:
    request = ModelRequest(weights=weights)
    model = open_model(f"{MODELS}/mnist.py:build", tmp_path / "model", request).model
    rng = np.random.default_rng(0)
    data = {
        "inputs": rng.integers(0, 255, (120, 28, 28), dtype=np.uint8),
        "labels": rng.integers(0, 10, 120),
        "split": np.repeat(["train", "select", "certify", "calibrate"], 30),
    }
    task = open_task(data, model, tmp_path / "data", DataRequest(preprocess="mnist"))
    path = alone.kept_items(SimpleNamespace(task=task), tmp_path / "items.npz")
    with np.load(path) as held:
        for name in ("train", "select"):
            rows = open_array(task.split(name).rows)
            assert len(rows) == 30
            expected = (data["inputs"][rows, None] / 255 - 0.1307) / 0.3081
            np.testing.assert_allclose(held[name], expected, atol=1e-5)
            np.testing.assert_array_equal(held[f"{name}_labels"], data["labels"][rows])


@pytest.mark.parametrize("script", ["prune_and_tune", "distil_mobilenetv2"])  # NNCF's compiles for minutes at first
def test_each_peer_learns_and_leaves_a_model_that_runs(
    alone: Any, script: str, items: Path, weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch_pruning")
    output = tmp_path / "out"
    command = [sys.executable, str(MODELS.parent / "peers" / f"{script}.py"), "--model", f"{MODELS}/mnist.py:build"]
    command += ["--weights", str(weights), "--train", str(items), "--seconds", "3", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "epoch 1: " in done.stdout
    variant = alone.contest.opened(output)
    assert [spec.shape[1:] for spec in variant.model.signature.outputs] == [(10,)]
