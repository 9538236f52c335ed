"""`trimtab train` as people type it, on a tiny network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from trimtab.testing.networks import PERCEPTRON
from trimtab.testing.samples import source


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """The command line that trains a perceptron on what another one answers."""
    inputs = PERCEPTRON.inputs(400, 0)["x"]
    labels = PERCEPTRON.answer({"x": inputs})["scores"].argmax(axis=1)
    np.savez(tmp_path / "train.npz", x=inputs[:240], labels=labels[:240])
    np.savez(tmp_path / "val.npz", x=inputs[240:], labels=labels[240:])
    given = source("torch", tmp_path / "net", seed=1)
    return [
        "train",
        given,
        "--data",
        tmp_path / "val.npz",
        "--train",
        tmp_path / "train.npz",
        "--output",
        tmp_path / "out",
    ]


def test_tells_every_epoch_and_leaves_weights_and_curves(trimtab, words, tmp_path):
    done = trimtab(*words, "--epochs", "2", "-o", "lr=0.02", "-o", "optimizer=sgd", "--seed", "3")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    told = [line for line in lines if line.startswith("epoch ")]
    assert [line.partition(":")[0] for line in told] == ["epoch 1", "epoch 2"]
    assert all("accuracy" in line and "learning rate" in line and "(sgd)" in line for line in told)
    assert "read on" in done.out
    assert "select split, of which epoch" in done.out
    assert lines[-1] == f"trained: {(tmp_path / 'out').resolve()}"
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"weights.safetensors", "model", "run.json", "curves.png", "curves.svg", "work"} == made
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    options = dict(run["configuration"])
    assert (options["epochs"], options["lr"], options["seed"]) == (2, 0.02, 3)
    assert run["command"].startswith("trimtab train ")


def test_a_seed_among_the_options_goes_before_that_of_the_splits(trimtab, words, tmp_path):
    done = trimtab(*words, "--epochs", "1", "-o", "seed=7", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert dict(found["configuration"])["seed"] == 7
    assert found == json.loads((tmp_path / "out" / "run.json").read_text())
    assert "epoch 1" in done.err


def test_when_the_budget_is_up_the_same_command_goes_on(trimtab, words, tmp_path):
    early = trimtab(*words, "--epochs", "2", "--budget", "0s")
    assert early.code == 0, early.err
    assert "the time was up: run the same command again to go on" in " ".join(early.out.split())
    assert not (tmp_path / "out" / "weights.safetensors").exists()
    assert trimtab(*words, "--epochs", "2").code == 0
    assert (tmp_path / "out" / "weights.safetensors").is_file()


BAD = [
    (["-o", "lr=fast"], "the training option lr takes none or a number"),
    (["-o", "learning_rate=1"], "training has no option 'learning_rate=1'; its options are: epochs, batch"),
    (["-o", "optimizer=magic"], "optimizer='magic' is not known; type one of sgd, adam"),
    (["-o", "augment=crop"], "augmentation needs images"),
    (["-o", "dropout=0.5"], "the module has no dropout layer"),
    (["-o", "checkpointing=true"], "the module has no blocks"),
    (["--budget", "soon"], "soon"),
    (["--train", "nowhere.npz"], "there is no file or folder nowhere.npz"),
]


@pytest.mark.parametrize(("more", "says"), BAD, ids=[" ".join(more) for more, _ in BAD])
def test_what_can_not_be_is_one_line_and_exit_code_2(trimtab, words, tmp_path, more, says):
    done = trimtab(*words, *more)
    assert done.code == 2
    assert "Traceback" not in done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("trimtab: ")]
    assert says in line
    assert not (tmp_path / "out").exists()


def test_what_is_no_network_of_pytorch_is_refused(trimtab, words, files):
    done = trimtab("train", files[0], *words[2:])
    assert done.code == 2
    assert "is onnx, and training needs PyTorch" in done.err


def test_apply_trains_on_a_source_of_its_own(trimtab, words, tmp_path):
    given = ["apply", "qat", *words[1:-1], tmp_path / "int8", "-o", "epochs=1", "-o", "batch=32"]
    done = trimtab(*given)
    assert done.code == 0, done.err
    assert done.out.startswith("qat(")
    bundle = json.loads((tmp_path / "int8" / "manifest.json").read_text())
    assert bundle["variant"]["model"]["format"] == "onnx"
