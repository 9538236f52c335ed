"""Processes that train together: two real ones learn what one does, go on bit for bit, and never outlive a failure."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from trimtab.core.errors import BadInput, WorkerCrashed
from trimtab.core.values import Task
from trimtab.training.group import ALONE, torchrun_started
from trimtab.training.launch import Meeting, together
from trimtab.training.recipe import Recipe

torch = pytest.importorskip("torch")

JOBS = """
import copy, math, os, signal, time
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from trimtab.core.errors import BadInput, TrimtabError
from trimtab.core.values import Signature, TensorSpec
from trimtab.data.batches import labels
from trimtab.training.fit import Course, fit, fitted
from trimtab.training.group import ALONE
from trimtab.training.shards import own

IMAGE = Signature(
    inputs=(TensorSpec(name="input", dtype="float32", shape=("batch", 1, 8, 8)),),
    outputs=(TensorSpec(name="output", dtype="float32", shape=("batch", 10)),),
)

class Block(nn.Module):
    def __init__(self, hidden, dropout):
        super().__init__()
        self.first, self.second = nn.Linear(64, hidden), nn.Linear(hidden, 64)
        self.norm, self.dropout = nn.LayerNorm(64), nn.Dropout(dropout)

    def forward(self, x):
        return self.norm(x + self.second(self.dropout(self.first(x).relu())))

class Net(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.blocks = nn.ModuleList(Block(hidden, dropout) for hidden in (16, 15))
        self.head, self.unused = nn.Linear(64, 10), nn.Linear(3, 3)

    def forward(self, input):
        input = input.flatten(1)
        for block in self.blocks:
            input = block(input)
        return self.head(input)

class Normalized(nn.Sequential):
    def __init__(self, dropout=0.0):
        layers = (nn.Conv2d(1, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False))
        blocks = (nn.Sequential(layer, nn.BatchNorm2d(8), nn.ReLU()) for layer in layers)
        super().__init__(*blocks, nn.Flatten(), nn.Linear(128, 10))

def learn(task, recipe, folder, group=ALONE, seed=0, dropout=0.0, deadline=math.inf, net=Net):
    torch.manual_seed(seed)
    module, right = net(dropout), labels(task.split("select"))
    score = lambda outputs: float(np.mean(outputs.argmax(axis=1) == right))
    course = Course(folder=folder, start="here", deadline=deadline, group=group)
    return module, fit(module, IMAGE, task, recipe, score, course)

def told(task, recipe, folder, net=Net):
    module = net()
    found = fitted(module, IMAGE, task, recipe, Course(folder=folder, start="here"))
    return {name: value.numpy() for name, value in module.state_dict().items()}, found

def holds(module):
    return {name: tuple(own(value).shape) for name, value in module.state_dict().items()}

def learns(task, recipes, folder, group, say):
    for number, recipe in enumerate(recipes):
        module, _ = learn(task, recipe, folder / str(number), group)
        say((*told(task, recipe, folder / str(number)), holds(module)))

def normalizes(task, recipe, folder, group, say):
    learn(task, recipe, folder, group, net=Normalized)

def goes_on(task, recipe, folder, group, say):
    learn(task, recipe, folder / "whole", group, dropout=0.3)
    say(told(task, recipe, folder / "whole"))
    finished, seed = False, 0
    while not finished:
        _, found = learn(task, recipe, folder / "parts", group, seed, 0.3, deadline=0.0)
        finished, seed = found.finished, seed + 1
    say(told(task, recipe, folder / "parts"))

def begins(task, recipe, folder, group, say):
    learn(task, recipe, folder, group, deadline=0.0)

def diverges(task, recipe, folder, group, say):
    try:
        learn(task, recipe, folder, group)
    except TrimtabError as error:
        say(str(error))
    say((folder / "checkpoint.safetensors").exists())

def agrees(group, say):
    say(group.summed(1.5, group.rank))
    say(group.first(group.rank + 5.0))
    say([each.tolist() for each in group.collected(torch.tensor([group.rank, 7]))])
    say(group.told("each hears \\u00e9" if group.rank == 0 else ""))
    say((group.share, group.device, torch.get_num_threads()))
    print("an aside")

def dies(how, group, say):
    say(os.getpid())
    if group.rank == 1:
        if how == "refuses":
            raise BadInput("this can not be, for a reason")
        if how == "breaks":
            raise ZeroDivisionError("by nought")
        os.kill(os.getpid(), {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP, "ended": signal.SIGTERM}[how])
    for _ in range(1000):
        group.summed(1.0)
        time.sleep(0.01)

def waits(group, say):
    say(os.getpid())
    time.sleep(600)
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module above, where other processes find it too."""
    name = f"jobs_{os.getpid()}_{abs(hash(tmp_path.name))}"
    (tmp_path / f"{name}.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    torch.set_num_threads(1)
    return importlib.import_module(name)


@pytest.fixture
def two(tmp_path: Path) -> Any:
    """Run a function of the module in two processes and return what the first one said."""

    def run(job: Any, *given: Any, silence_s: float = 120.0, parallel: str = "ddp") -> list[Any]:
        heard: list[Any] = []
        meeting = Meeting(size=2, parallel=parallel, logs=tmp_path / "logs", silence_s=silence_s)
        together(meeting, partial(job, *given) if given else job, heard.append)
        return heard

    return run


def near(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def timeless(fitted: Any) -> tuple[Any, ...]:
    return tuple((e.number, e.steps, e.loss, e.score, e.rate, e.optimizer) for e in fitted.history)


PLAIN = Recipe(epochs=2, batch=32, optimizer="sgd", lr=0.1)
RECIPES = [
    PLAIN,
    Recipe(
        epochs=2, batch=32, lr=0.01, accumulate=4, clip=0.5, label_smoothing=0.1, l1=1e-4, ema=0.5, checkpointing=True
    ),
    Recipe(epochs=2, batch=31, optimizer="adam-then-sgd", switch="step:3", schedule="one-cycle", channels_last=True),
]


def test_alone_a_process_agrees_with_itself() -> None:
    assert (ALONE.share, ALONE.summed(2.0), ALONE.first(3.0), ALONE.told("so")) == ((0, 1), (2.0,), (3.0,), "so")
    assert torchrun_started() == (0, 1)


def test_all_get_the_same_from_what_each_gives(jobs: Any, two: Any, tmp_path: Path) -> None:
    said = two(jobs.agrees)
    assert said[:4] == [(3.0, 1.0), (5.0,), [[0, 7], [1, 7]], "each hears é"]
    assert said[4][:2] == ((0, 2), "cpu")
    assert {path.read_text() for path in (tmp_path / "logs").iterdir()} == {"an aside\n"}


HELD = {  # of a block's first layer [16, 64] with its second [64, 16], and of a head of [10, 64], by the first process
    "ddp": ((16, 64), (64, 16), (10, 64)),
    "fsdp": ((8, 64), (32, 16), (5, 64)),
    "tensor": ((8, 64), (64, 8), (10, 64)),
    "pipeline": ((16, 64), (64, 16), (0,)),
}


@pytest.mark.parametrize("parallel", HELD)
def test_two_processes_learn_what_one_does(parallel: str, jobs: Any, two: Any, few: Task, tmp_path: Path) -> None:
    found = two(jobs.learns, few, RECIPES, tmp_path, parallel=parallel)
    for number, (recipe, (weights, fitted, held)) in enumerate(zip(RECIPES, found, strict=True)):
        layers = ("blocks.0.first", "blocks.0.second", "head")
        assert tuple(held.get(f"{name}.weight") for name in layers) == HELD[parallel]
        jobs.learn(few, recipe, tmp_path / f"alone-{number}")
        alone, expected = jobs.told(few, recipe, tmp_path / f"alone-{number}")
        near(weights, alone)
        assert [e.loss for e in fitted.history] == pytest.approx([e.loss for e in expected.history], rel=1e-4)
        assert [(e.steps, e.score, e.rate) for e in fitted.history] == [
            (e.steps, e.score, e.rate) for e in expected.history
        ]
        assert (fitted.best, fitted.notes, fitted.finished) == (expected.best, expected.notes, True)


def test_stages_normalize_each_part_of_a_batch_as_accumulation_does(
    jobs: Any, two: Any, few: Task, tmp_path: Path
) -> None:
    recipe = Recipe(epochs=2, batch=35, accumulate=5)
    two(jobs.normalizes, few, recipe, tmp_path / "two", parallel="pipeline")
    jobs.learn(few, recipe, tmp_path / "one", net=jobs.Normalized)
    near(*(jobs.told(few, recipe, tmp_path / name, jobs.Normalized)[0] for name in ("two", "one")))


@pytest.mark.parametrize("parallel", HELD)
def test_stopped_after_every_step_they_end_bit_for_bit_as_if_they_never_were(
    parallel: str, jobs: Any, two: Any, few: Task, tmp_path: Path
) -> None:
    pytest.importorskip("kornia")
    recipe = Recipe(epochs=2, batch=32, augment="crop+erase+mixup", ema=0.9)
    (whole, expected), (parts, found) = two(jobs.goes_on, few, recipe, tmp_path, parallel=parallel)
    assert timeless(found) == timeless(expected)
    assert all(np.array_equal(value, whole[name]) for name, value in parts.items())


@pytest.mark.parametrize("parallel", ["fsdp", "pipeline"])
def test_one_process_goes_on_where_two_were(parallel: str, jobs: Any, two: Any, few: Task, tmp_path: Path) -> None:
    two(jobs.begins, few, PLAIN, tmp_path / "one", parallel=parallel)
    for name, seed in {
        "one": 5,
        "other": 0,
    }.items():  # weights that it is made with give way to those of the checkpoint
        jobs.learn(few, PLAIN, tmp_path / name, seed=seed)
    near(*(jobs.told(few, PLAIN, tmp_path / name)[0] for name in ("one", "other")))


def test_they_go_back_and_give_up_together_when_the_loss_diverges(
    jobs: Any, two: Any, few: Task, tmp_path: Path
) -> None:
    error, left = two(jobs.diverges, few, Recipe(epochs=2, batch=32, optimizer="sgd", lr=1e30), tmp_path)
    assert "training diverges" in error
    assert "after going back 3 times" in error
    assert not left


DEATHS = [
    ("killed", 60.0, WorkerCrashed, "process 1 of the 2 (counted from 0) was killed by SIGKILL; if nobody did, the "),
    ("ended", 60.0, WorkerCrashed, "process 1 of the 2 (counted from 0) was killed by SIGTERM"),
    ("stopped", 3.0, WorkerCrashed, "another process of this training does not answer"),
    ("breaks", 60.0, WorkerCrashed, "crashed with exit code 1: ZeroDivisionError: by nought; run the same command"),
    ("refuses", 60.0, BadInput, "this can not be, for a reason"),
]


@pytest.mark.parametrize(("how", "silence_s", "kind", "says"), DEATHS, ids=[each[0] for each in DEATHS])
def test_one_that_fails_ends_all_with_one_line(
    how: str, silence_s: float, kind: Any, says: str, jobs: Any, two: Any
) -> None:
    with pytest.raises(kind) as caught:
        two(jobs.dies, how, silence_s=silence_s)
    (line,) = str(caught.value).splitlines()
    assert says in line
    assert kind is BadInput or line.endswith("run the same command again to go on from the checkpoint")
    alive = [each for each in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(each.cmdline())]
    assert alive == []


def test_they_die_with_the_process_that_started_them(jobs: Any, tmp_path: Path) -> None:
    script = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(tmp_path)!r})
        import {jobs.__name__} as jobs
        from trimtab.training.launch import Meeting, together
        if __name__ == "__main__":
            meeting = Meeting(size=2, parallel="ddp", logs=Path({str(tmp_path)!r}))
            together(meeting, jobs.waits, lambda pid: print(pid, flush=True))
    """
    path = tmp_path / "starts.py"
    path.write_text(textwrap.dedent(script))
    parent = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert int(parent.stdout.readline()) > 0
    workers = [each for each in psutil.Process(parent.pid).children() if "spawn_main" in " ".join(each.cmdline())]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert len(workers) == 2
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
