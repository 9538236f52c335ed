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
    figures = {f"{name}.{kind}" for name in ("curves", "confusion") for kind in ("png", "svg")}
    assert {"weights.safetensors", "model", "run.json", "work", *figures} == made
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


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    """The perceptron that gave the labels, as a person names it."""
    return source("torch", tmp_path / "teacher")


def test_a_network_learns_from_teachers_by_their_answers_kept_on_disk(trimtab, words, teacher, tmp_path):
    more = ("--epochs", "20", "-o", "lr=0.05", "-o", "distill=0.9", "-o", "temperature=1", "--json")
    done = trimtab(*words, *more, "--teacher", teacher, "--teacher", teacher)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert dict(found["configuration"])["distill"] == 0.9
    assert len(list((tmp_path / "out" / "work").glob("answers-*.npy"))) == 1
    accuracy = next(each["value"] for each in found["readings"] if each["name"] == "accuracy")
    assert accuracy > 0.7
    again = trimtab(*words, *more, "--teacher", teacher)
    assert again.code == 2
    assert "is of another network, other data, another recipe or other code" in again.err


def test_without_any_label_the_teacher_says_what_is_right(trimtab, words, teacher, tmp_path):
    for name in ("train", "val"):
        np.savez(tmp_path / f"{name}.npz", x=np.load(tmp_path / f"{name}.npz")["x"])
    more = ("--epochs", "20", "-o", "lr=0.05", "-o", "temperature=1")
    done = trimtab(*words, *more, "-o", "distill=1", "--teacher", teacher, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    (agreement,) = (each["value"] for each in found["readings"] if each["name"] == "agreement")
    (trace,) = (each for each in found["traces"] if each["name"] == "agreement")
    assert agreement == max(trace["values"]) > 0.7
    for given, says in ((["-o", "distill=0.5", "--teacher", teacher], "or distill=1 to learn from a teacher alone"),
                        ([], "learn from --teacher alone by -o distill=1")):  # fmt: skip
        refused = trimtab(*words[:-1], tmp_path / "other", *more, *given)
        assert refused.code == 2
        assert says in refused.err


def test_a_teacher_brings_weights_of_its_own(trimtab, words, teacher, tmp_path):
    assert trimtab(*words, "--epochs", "1").code == 0
    weights = tmp_path / "out" / "weights.safetensors"
    more = ("--epochs", "1", "-o", "distill=1", "--teacher", f"{teacher}={weights}")
    done = trimtab(*words[:-1], tmp_path / "other", *more)
    assert done.code == 0, done.err
    absent = trimtab(*words[:-1], tmp_path / "third", *more[:-1], f"{teacher}=nowhere.safetensors")
    assert absent.code == 2
    assert "there is no weights file nowhere.safetensors" in absent.err


def test_a_training_can_be_tracked(trimtab, words, tmp_path):
    done = trimtab(*words, "--epochs", "1", "--track", f"folder:folder={tmp_path / 'runs'}")
    assert done.code == 0, done.err
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("out-20")
    assert json.loads((run / "status.json").read_text())["status"] == "finished"


def test_what_a_step_holds_is_told_and_nothing_is_trained(trimtab, words, tmp_path):
    done = trimtab(*words, "--memory", "-o", "batch=32")
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "One step on 32 items, tensors counted" in said
    assert "zero_grad" in said
    assert "activation checkpointing can't be: the module has no blocks" in said
    assert done.out.splitlines()[-1] == f"memory: {(tmp_path / 'out').resolve()}"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"memory.json", "memory.png", "memory.svg", "work"}
    found = json.loads((tmp_path / "out" / "memory.json").read_text())
    assert [step["name"] for step in found["steps"]][:2] == ["as asked", "activation checkpointing"]
    assert found["command"].startswith("trimtab train ")


def test_with_and_without_a_teacher_are_compared(trimtab, words, teacher, tmp_path):
    more = ("--epochs", "1", "--seeds", "1", "--teacher", teacher)
    done = trimtab(*words, *more, "--compare", "distill=0,0.8")
    assert done.code == 0, done.err
    kept = {name: (tmp_path / "out" / name / "work" / "teachers").exists() for name in ("0-0", "0.8-0")}
    assert kept == {"0-0": False, "0.8-0": True}
    refused = trimtab(*words[:-1], tmp_path / "other", *more, "--compare", "optimizer=sgd,adam")
    assert refused.code == 2
    assert "a teacher teaches nothing by itself" in refused.err


BAD = [
    (["--teacher", "nets:large"], "a teacher teaches nothing by itself: add -o distill=0.5, or -o hints=features"),
    (["-o", "distill=0.5"], "distill and hints need a teacher: name one with --teacher"),
    (["-o", "hints=eyes"], "hints='eyes' is not known; type one of none, features, attention"),
    (["-o", "lr=fast"], "the training option lr takes none or a number"),
    (["-o", "learning_rate=1"], "training has no option 'learning_rate=1'; its options are: epochs, share, batch"),
    (["-o", "optimizer=magic"], "optimizer='magic' is not known; type one of sgd, adam"),
    (["-o", "augment=crop"], "augmentation needs images"),
    (["-o", "dropout=0.5"], "the module has no dropout layer"),
    (["-o", "checkpointing=true"], "the module has no blocks"),
    (["--budget", "soon"], "soon"),
    (["--processes", "2", "--parallel", "magic"], "--parallel 'magic' is not known; type one of ddp, fsdp"),
    (["--memory", "--compare", "lr=1,2"], "--memory trains nothing, so there is nothing to --compare"),
    (["--track", "abacus"], "there is no tracker named 'abacus'"),
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


def test_hints_between_networks_that_have_nothing_in_common_are_refused(trimtab, words, teacher):
    done = trimtab(*words, "-o", "hints=features", "--teacher", teacher)
    assert done.code == 2
    assert "hints=features finds nothing that both networks have in common" in done.err


def test_a_teacher_that_is_no_network_of_pytorch_is_refused(trimtab, words, files):
    done = trimtab(*words, "-o", "distill=0.5", "--teacher", files[0])
    assert done.code == 2
    assert "is onnx; give one in PyTorch" in done.err


def test_what_is_no_network_of_pytorch_is_refused(trimtab, words, files):
    done = trimtab("train", files[0], *words[2:])
    assert done.code == 2
    assert "is onnx, and training needs PyTorch" in done.err


def test_two_processes_tell_as_one(trimtab, words, tmp_path):
    done = trimtab(*words, "--epochs", "2", "--processes", "2")
    assert done.code == 0, done.err
    assert [line[:7] for line in done.out.splitlines() if line.startswith("epoch ")] == ["epoch 1", "epoch 2"]
    assert done.out.count("trained: ") == 1
    assert {path.name for path in (tmp_path / "out" / "work" / "logs").iterdir()} == {"process-0.log", "process-1.log"}


def test_apply_trains_on_a_source_of_its_own(trimtab, words, tmp_path):
    given = ["apply", "qat", *words[1:-1], tmp_path / "int8", "-o", "epochs=1", "-o", "batch=32"]
    done = trimtab(*given)
    assert done.code == 0, done.err
    assert done.out.startswith("qat(")
    bundle = json.loads((tmp_path / "int8" / "manifest.json").read_text())
    assert bundle["variant"]["model"]["format"] == "onnx"
