"""Training as a verb in two processes: it gives what one gives, and after a kill the same call goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from trimtab.core.errors import BadInput, WorkerCrashed
from trimtab.training.recipe import Recipe
from trimtab.workbench.train import Training, read_run, train
from trimtab.workbench.train_compare import compare_recipes

torch = pytest.importorskip("torch")

NET = """
import os, signal
from pathlib import Path
import torch
from torch import nn

FUSE = Path(__file__).with_name("fuse")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.calls = nn.Linear(64, 32), nn.Linear(32, 10), 0

    def forward(self, input):
        self.calls += self.training
        if self.calls == 25 and torch.distributed.is_initialized() and torch.distributed.get_rank() and FUSE.exists():
            FUSE.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.second(self.first(input.flatten(1)).relu())

def make():
    return Net()

example_inputs = {"input": torch.zeros(1, 1, 8, 8)}
"""


@pytest.fixture
def asked(tmp_path: Path) -> Training:
    torch.set_num_threads(1)
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    (tmp_path / "net.py").write_text(NET)
    splits = np.repeat(["train", "test"], [600, 400])
    np.savez(tmp_path / "digits.npz", input=images[:1000], labels=labels[:1000], split=splits)
    return Training(
        model=f"{tmp_path / 'net.py'}:make",
        data=str(tmp_path / "digits.npz"),
        output=tmp_path / "one",
        recipe=Recipe(epochs=3, batch=32, lr=0.01, clip=1.0),
    )


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(folder / "weights.safetensors")


def near(found: Path, expected: Path) -> None:
    one, other = weights(found), weights(expected)
    assert set(one) == set(other)
    for name, value in other.items():
        np.testing.assert_allclose(one[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    runs = [read_run(folder) for folder in (found, expected)]
    for trace in ("accuracy", "train_loss", "learning_rate"):
        np.testing.assert_allclose(*(run.trace(trace).values for run in runs), rtol=1e-3)
    assert runs[0].configuration == runs[1].configuration


def test_killed_in_two_processes_it_goes_on_and_gives_what_one_gives(asked: Training, tmp_path: Path) -> None:
    train(asked)
    (tmp_path / "fuse").touch()
    two, heard = replace(asked, output=tmp_path / "two", processes=2), []
    with pytest.raises(WorkerCrashed, match=r"process 1 of the 2 .* was killed by SIGKILL; .* run the same command"):
        train(two, lambda epoch, metric: heard.append(epoch.number))
    assert heard == [1]
    assert not (tmp_path / "two" / "run.json").exists()
    run = train(two, lambda epoch, metric: heard.append(epoch.number))
    assert heard == [1, 2, 3]
    assert run.finished
    near(tmp_path / "two", tmp_path / "one")


def test_a_divided_network_is_left_whole_and_is_what_one_process_makes(asked: Training, tmp_path: Path) -> None:
    train(asked)
    run = train(replace(asked, output=tmp_path / "two", processes=2, parallel="pipeline"))
    near(tmp_path / "two", tmp_path / "one")
    assert run.model.signature == read_run(tmp_path / "one").model.signature


def test_a_teacher_and_kept_items_serve_two_processes_as_one(asked: Training, tmp_path: Path) -> None:
    (tmp_path / "large.py").write_text(NET)
    recipe = replace(asked.recipe, distill=0.5, share=0.5, store="float32")
    taught = replace(asked, recipe=recipe, teachers=(f"{tmp_path / 'large.py'}:make",))
    train(taught)
    run = train(replace(taught, output=tmp_path / "two", processes=2))
    near(tmp_path / "two", tmp_path / "one")
    assert any(reading.name == "items_bytes" for reading in run.readings)


def test_hints_are_refused_in_two_processes_and_teachers_in_a_pipeline(asked: Training, tmp_path: Path) -> None:
    taught = replace(asked, processes=2, teachers=(asked.model,))
    with pytest.raises(BadInput, match="hints are compared in one process only"):
        train(replace(taught, recipe=replace(asked.recipe, hints="features"), output=tmp_path / "hints"))
    with pytest.raises(BadInput, match="a network in stages can't be taught"):
        distilled = replace(asked.recipe, distill=0.5)
        train(replace(taught, recipe=distilled, parallel="pipeline", output=tmp_path / "stages"))


def test_a_tracker_is_told_every_epoch_once_by_two_processes(asked: Training, tmp_path: Path) -> None:
    tracked = replace(asked, processes=2, track=(f"folder:folder={tmp_path / 'runs'}",))
    train(replace(tracked, recipe=replace(asked.recipe, epochs=2)))
    (file,) = (tmp_path / "runs").glob("*/readings.jsonl")
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert [each["step"] for each in told if each["name"] == "train_loss"] == [1, 2]


def test_torchrun_starts_it_as_well_and_only_the_first_process_tells(asked: Training, tmp_path: Path) -> None:
    train(asked)
    (tmp_path / "start.py").write_text("from trimtab.cli import main\nmain()\n")
    words = ["train", asked.model, "--data", asked.data, "--output", str(tmp_path / "two"), "--epochs", "3"]
    options = [word for option in ("batch=32", "lr=0.01", "clip=1.0") for word in ("-o", option)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(tmp_path / "start.py"), *words, *options], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines() if line.startswith("epoch")] == [
        "epoch 1",
        "epoch 2",
        "epoch 3",
    ]
    assert done.stdout.count("trained: ") == 1
    near(tmp_path / "two", tmp_path / "one")


def test_what_makes_no_sense_is_refused(asked: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="--processes 0 makes no sense; give at least 1"):
        train(replace(asked, processes=0))
    with pytest.raises(BadInput, match="--parallel 'magic' is not known; type one of ddp, fsdp"):
        train(replace(asked, processes=2, parallel="magic"))
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match="--compare starts its processes itself: leave torchrun out"):
        compare_recipes(asked, "optimizer=sgd,adam", 1)
