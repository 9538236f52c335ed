"""Comparing recipes: every value under the same seeds, resumable, with a verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from trimtab.core.errors import BadInput
from trimtab.training.recipe import Recipe
from trimtab.workbench.train import Training
from trimtab.workbench.train_compare import COMPARED, compare_recipes, read_option

torch = pytest.importorskip("torch")

NET = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

example_inputs = {"input": torch.zeros(1, 1, 8, 8)}
"""


@pytest.fixture
def asked(tmp_path: Path) -> Training:
    torch.set_num_threads(1)
    code = tmp_path / "net.py"
    code.write_text(NET)
    images, labels = load_digits(return_X_y=True)
    splits = np.repeat(["train", "test"], [500, 400])
    data = {
        "inputs": (images[:900].reshape(-1, 1, 8, 8) / 16).astype(np.float32),
        "labels": labels[:900],
        "split": splits,
    }
    return Training(model=f"{code}:make", data=data, output=tmp_path / "out", recipe=Recipe(epochs=2, batch=32))


def test_a_learning_rate_that_learns_nothing_is_found_lower(asked: Training) -> None:
    found = compare_recipes(asked, "lr=0.01,0.0000001", seeds=3, target=0.4)
    good, bad = found.arms
    assert (good.name, bad.name, found.metric) == ("0.01", "0.0000001", "accuracy")
    assert bad.gain.verdict() == "lower"
    assert bad.gain.value == pytest.approx(np.mean(bad.best) - np.mean(good.best))
    assert all(good.reached_s)
    assert bad.reached_s == (None,) * 3
    assert bad.cost is None
    written = json.loads((asked.output / COMPARED).read_text())
    assert [arm["best"] for arm in written["arms"]] == [list(good.best), list(bad.best)]
    assert (asked.output / "curves.png").stat().st_size > 1000


def test_seeds_draw_other_first_weights_and_are_the_same_for_every_value(asked: Training) -> None:
    found = compare_recipes(asked, "epochs=1,2", seeds=2)
    short, long = (arm.runs for arm in found.arms)
    losses = [[run.trace("train_loss") for run in runs] for runs in (short, long)]
    assert losses[0][0].values[0] != losses[0][1].values[0]
    assert all("out/" not in str(run.configuration) for run in short)


def test_what_was_trained_before_is_not_trained_again(asked: Training) -> None:
    heard: list[str] = []

    def told(label: str) -> Any:
        return lambda epoch, metric: heard.append(f"{label} {epoch.number}")

    first = compare_recipes(asked, "optimizer=sgd,adam", seeds=1, heard=told)
    assert heard == [f"optimizer={name}, seed 0 {epoch}" for name in ("sgd", "adam") for epoch in (1, 2)]
    again = compare_recipes(asked, "optimizer=sgd,adam", seeds=1, heard=told)
    assert len(heard) == 4
    assert [arm.best for arm in again.arms] == [arm.best for arm in first.arms]


@pytest.mark.parametrize("text", ["optimizer", "optimizer=sgd", "=sgd,adam", "optimizer=sgd,sgd"])
def test_what_is_no_comparison_is_one_clear_line(text: str) -> None:
    with pytest.raises(BadInput, match="type it like"):
        read_option(text)


def test_an_unknown_value_is_refused_before_anything_is_trained(asked: Training) -> None:
    with pytest.raises(BadInput, match="optimizer='magic' is not known"):
        compare_recipes(asked, "optimizer=sgd,magic", seeds=1)
    assert not asked.output.exists()
