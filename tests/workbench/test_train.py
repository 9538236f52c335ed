"""Training as a verb: what it leaves, what it goes on from, what it refuses, and what it warns of."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from trimtab.core.errors import BadInput, TrimtabError
from trimtab.core.values import Run, Task
from trimtab.data.batches import feeds
from trimtab.data.batches import labels as labels_of
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.reports.words import with_interval
from trimtab.testing.networks import PERCEPTRON
from trimtab.testing.samples import source
from trimtab.training.checkpoint import Epoch
from trimtab.training.recipe import Recipe
from trimtab.workbench.opening import ModelRequest, open_model
from trimtab.workbench.train import Training, drawn, read_run, score_of, traces, train
from trimtab.workbench.train_notes import cautions, kept, probabilities

torch = pytest.importorskip("torch")

NET = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

def sure():
    return nn.Sequential(make(), nn.Softmax(dim=1))

class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = make()

    def forward(self, input, count):
        return self.net(input), count + 1

example_inputs = {"input": torch.zeros(1, 1, 8, 8)}
"""
IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = (IMAGES.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
RECIPE = Recipe(epochs=3, batch=32, lr=0.01)


def data(train: int = 600, judged: int = 400) -> dict[str, Any]:
    count = train + judged
    return {"inputs": IMAGES[:count], "labels": LABELS[:count], "split": np.repeat(["train", "test"], [train, judged])}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


@pytest.fixture
def asked(net: Path, tmp_path: Path) -> Training:
    return Training(model=f"{net}:make", data=data(), output=tmp_path / "out", recipe=RECIPE)


def accuracy(model: Any, given: Any, folder: Path, request: ModelRequest | None = None) -> float:
    """Return the share of the select items that an engine answers rightly: nothing of the training is left in it."""
    from trimtab.runtimes.torch import TorchRuntime

    variant = open_model(model, folder / "model", request)
    select = open_task(given, variant.model, folder / "data").split("select")
    outputs = TorchRuntime().load(variant)(feeds(Task(), select, slice(None)))
    return float(np.mean(next(iter(outputs.values())).argmax(axis=1) == labels_of(select)))


def timeless(run: Run) -> Run:
    """Return a run without what no two of them have in common."""
    clocks = ("epoch_time", "epoch_cpu_time", "loader_time", "loader_wait")
    return replace(
        run,
        traces=tuple(trace for trace in run.traces if trace.name not in clocks),
        readings=tuple(reading for reading in run.readings if reading.unit != "s"),
        time="",
        machine=replace(run.machine, load_average=None, pressure=None, steal_s=None),
    )


def test_leaves_weights_curves_and_all_it_takes_to_go_on(asked: Training, tmp_path: Path) -> None:
    heard: list[tuple[int, str]] = []
    run = train(asked, lambda epoch, metric: heard.append((epoch.number, metric)))
    assert heard == [(1, "accuracy"), (2, "accuracy"), (3, "accuracy")]
    names = {"weights.safetensors", "model", "run.json", "work"}
    names |= {f"{name}.{kind}" for name in ("curves", "confusion") for kind in ("png", "svg")}
    assert {path.name for path in asked.output.iterdir()} == names
    assert read_run(asked.output) == run
    assert run.finished
    assert run.configuration == RECIPE.options()
    scores = run.trace("accuracy").values
    assert len(scores) == 3
    assert run.reading("accuracy").value == max(scores) > 0.7
    assert run.reading("accuracy").scope == f"select split, of which epoch {1 + scores.index(max(scores))} was chosen"
    assert run.reading("train_time").value == pytest.approx(sum(run.trace("epoch_time").values))


def test_the_weights_score_what_the_run_says_wherever_they_are_opened(asked: Training, tmp_path: Path) -> None:
    run = train(asked)
    weights = ModelRequest(weights=asked.output / "weights.safetensors")
    assert accuracy(asked.model, asked.data, tmp_path / "one", weights) == run.reading("accuracy").value
    assert accuracy(run.model, asked.data, tmp_path / "two") == run.reading("accuracy").value
    untrained = accuracy(asked.model, asked.data, tmp_path / "three")
    assert untrained < run.reading("accuracy").value


def test_again_it_is_done_already(asked: Training) -> None:
    first = train(asked)
    again = train(asked, lambda epoch, metric: pytest.fail("an epoch was trained again"))
    assert replace(again, time=first.time, machine=first.machine) == first


def test_when_the_time_is_up_it_says_so_and_goes_on_later(asked: Training, tmp_path: Path) -> None:
    early = train(replace(asked, seconds=0.0))
    assert (early.finished, early.model, early.traces) == (False, None, ())
    assert {reading.name for reading in early.readings} == {
        "train_time",
        "train_cpu_time",
        "loader_time",
        "loader_wait",
    }
    assert not (asked.output / "weights.safetensors").exists()
    found = train(asked)
    whole = train(replace(asked, output=tmp_path / "whole"))
    assert found.model.digest == whole.model.digest
    same = replace(whole, model=found.model, checkpoint=found.checkpoint)
    assert timeless(found) == timeless(same)


def test_the_same_seed_draws_the_same_first_weights(asked: Training, tmp_path: Path) -> None:
    digests = []
    for number, seed in enumerate((3, 3, 4)):
        torch.rand(number + 1)
        recipe = replace(RECIPE, epochs=1, seed=seed)
        digests.append(train(replace(asked, recipe=recipe, output=tmp_path / f"{number}")).model.digest)
    assert digests[0] == digests[1] != digests[2]


def logged(folder: Path) -> list[tuple[int, str, str | None, float]]:
    """Return what the one run in a tracker's folder was told: step, name, place and value of every reading."""
    (path,) = folder.glob("*/readings.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["step"], line["name"], line["place"], line["value"]) for line in lines]


def test_a_tracker_is_told_every_epoch_and_the_result_with_the_files(asked: Training, tmp_path: Path) -> None:
    run = train(replace(asked, track=(f"folder:folder={tmp_path / 'runs'}",)))
    told = logged(tmp_path / "runs")
    for trace in run.traces:
        assert tuple(value for _, name, place, value in told if (name, place) == (trace.name, None)) == trace.values
    assert {step for step, *_ in told} == {1, 2, 3, 4}
    assert (4, "accuracy", "result", run.reading("accuracy").value) in told
    (folder,) = (tmp_path / "runs").iterdir()
    ended = json.loads((folder / "status.json").read_text())
    assert ended["status"] == "finished"
    assert [Path(path).name for path in ended["artifacts"]] == [
        "run.json", "curves.png", "confusion.png", "weights.safetensors"
    ]  # fmt: skip
    configuration = json.loads((folder / "configuration.json").read_text())
    assert (configuration["lr"], configuration["epochs"], configuration["metric"]) == (0.01, 3, "accuracy")
    assert configuration["model"] == asked.model


def test_a_training_that_goes_on_logs_no_epoch_twice_and_leaves_none_out(asked: Training, tmp_path: Path) -> None:
    tracked = replace(asked, track=(f"folder:folder={tmp_path / 'old'}",))

    def interrupt(epoch: Epoch, metric: str) -> None:
        if epoch.number == 2:  # it is in the checkpoint already, and no tracker has heard of it
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tracked, interrupt)
    (folder,) = (tmp_path / "old").iterdir()
    assert json.loads((folder / "status.json").read_text())["status"] == "killed"
    assert {step for step, *_ in logged(tmp_path / "old")} == {1}
    both = (*tracked.track, f"folder:folder={tmp_path / 'new'}")
    run = train(replace(asked, track=both))
    train(replace(asked, track=both))  # which has nothing left to do
    for name in ("old", "new"):
        told = [(step, value) for step, name, place, value in logged(tmp_path / name) if (name, place)
                == ("train_loss", None)]  # fmt: skip
        assert told == list(enumerate(run.trace("train_loss").values, start=1))


def test_a_training_whose_time_is_up_has_not_finished_for_its_tracker(asked: Training, tmp_path: Path) -> None:
    track = (f"folder:folder={tmp_path / 'runs'}",)
    train(replace(asked, seconds=0.0, track=track))
    (folder,) = (tmp_path / "runs").iterdir()
    ended = json.loads((folder / "status.json").read_text())
    assert (ended["status"], [Path(path).name for path in ended["artifacts"]]) == ("killed", ["run.json"])
    train(replace(asked, track=track))
    assert json.loads((folder / "status.json").read_text())["status"] == "finished"


def test_a_tracker_that_fails_costs_a_note_and_not_the_training(asked: Training, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = train(replace(asked, track=(f"folder:folder={tmp_path / 'file'}",)))
    assert run.finished
    assert "failed and was left out from then on: can't create the folder" in run.notes[-1]
    assert read_run(asked.output) == run


def test_an_unknown_tracker_is_refused_before_anything_is_made(asked: Training) -> None:
    with pytest.raises(BadInput, match="there is no tracker named 'abacus'"):
        train(replace(asked, track=("abacus",)))
    assert not asked.output.exists()


@pytest.mark.skipif(not all(map(find_spec, ("mlflow", "sqlalchemy", "alembic"))), reason="mlflow is not installed")
def test_mlflow_gets_curves_matrix_and_weights(
    asked: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow puts the files of a database that is given
    database = f"sqlite:///{tmp_path}/runs.db"
    run = train(replace(asked, track=(f"mlflow:uri={database}",)))
    from mlflow import MlflowClient

    client = MlflowClient(database)
    (experiment,) = [each for each in client.search_experiments() if each.name == "trimtab"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    points = client.get_metric_history(found.info.run_id, "accuracy")
    assert [(point.step, point.value) for point in points] == list(enumerate(run.trace("accuracy").values, start=1))
    assert found.data.metrics["accuracy/result.low"] == run.reading("accuracy").low
    names = {each.path for each in client.list_artifacts(found.info.run_id)}
    assert {"run.json", "curves.png", "confusion.png", "weights.safetensors"} < names


def test_the_matrix_is_drawn_of_classes_only(asked: Training, tmp_path: Path) -> None:
    run = train(asked)
    model = open_model(asked.model, tmp_path / "model").model
    task = open_task(data(), model, tmp_path / "data")
    before = np.zeros((len(labels_of(task.split("select"))), 10), np.float32)
    found = drawn(run, task, task.split("select"), before)
    titles = [axes.get_title(loc="left") for axes in found["confusion"].axes]
    assert titles == ["before training", "after training", "difference"]
    assert set(drawn(run, replace(task, kind="regression"), task.split("select"), before)) == {"curves"}
    assert set(drawn(run, task, task.split("select"), before * np.nan)) == {"curves"}, "what is no number is no answer"
    assert drawn(replace(run, traces=()), task, task.split("select"), before) == {}


def test_what_keeping_the_items_in_bytes_saves_is_told(asked: Training) -> None:
    run = train(replace(asked, recipe=replace(RECIPE, epochs=1, store="uint8")))
    read = {(each.name, each.place): each.value for each in run.readings}
    bytes_ = [read["items_bytes", place] for place in ("uint8", "as given", "prepared")]
    assert bytes_[0] < bytes_[1] / 3 < bytes_[2] / 2.9, "the images came as float32"
    assert {place for name, place in read if name == "loader_batch_time"} == {"uint8", "as given"}
    (note,) = [note for note in run.notes if "kept as uint8" in note]
    assert note.startswith("the items to train on are kept as uint8: ")
    assert read["loader_time", None] == sum(run.trace("loader_time").values) > 0
    assert kept(None) == ()


def test_another_recipe_in_the_same_folder_is_refused_and_leaves_it_alone(asked: Training) -> None:
    run = train(asked)
    with pytest.raises(BadInput, match="of another network, other data, another recipe"):
        train(replace(asked, recipe=replace(RECIPE, lr=0.02)))
    assert read_run(asked.output) == run


def test_training_starts_from_the_weights_given(asked: Training, tmp_path: Path) -> None:
    first = train(asked)
    request = ModelRequest(weights=asked.output / "weights.safetensors")
    later = train(
        replace(asked, output=tmp_path / "later", model_request=request, recipe=Recipe(epochs=1, batch=32, lr=1e-5))
    )
    assert later.trace("train_loss").values[0] < first.trace("train_loss").values[0] / 2


def test_a_hugging_face_classifier_is_trained_and_stays_one(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 50, (400, 6))
    given = {
        "input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids),
        "labels": ids[:, 0] % 4, "split": np.repeat(["train", "test"], [280, 120]),
    }  # fmt: skip
    folder = source("huggingface", tmp_path / "given")
    asked = Training(model=folder, data=given, output=tmp_path / "out", recipe=Recipe(epochs=2, batch=32, lr=3e-3))
    run = train(asked)
    made = {"model", "run.json", "curves.png", "curves.svg", "confusion.png", "confusion.svg", "work"}
    assert made == {path.name for path in asked.output.iterdir()}
    assert run.trace("train_loss").values[1] < run.trace("train_loss").values[0]
    assert accuracy(asked.output / "model", given, tmp_path / "again") == run.reading("accuracy").value


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("onnx", r"is onnx, and training needs PyTorch: give package.module:factory \(--weights\), or a Hugging Face"),
        ("torch-export", "was exported for inference; give the factory that builds the module instead"),
    ],
)
def test_what_holds_nothing_to_train_is_refused_with_the_reason(kind: str, reason: str, tmp_path: Path) -> None:
    inputs = PERCEPTRON.inputs(100, 0)["x"]
    given = {"x": inputs, "labels": PERCEPTRON.answer({"x": inputs})["scores"].argmax(axis=1)}
    model = source(kind, tmp_path / "given")
    with pytest.raises(BadInput, match=reason):
        train(Training(model=model, data=given, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_network_that_is_fed_its_own_state_is_refused(net: Path, tmp_path: Path) -> None:
    request = ModelRequest(
        example=(("input", (1, 1, 8, 8), "float32"), ("count", (1, 1), "float32")), states=(("count", "output_1"),)
    )
    asked = Training(model=f"{net}:Counting", data=data(), output=tmp_path / "out", model_request=request)
    with pytest.raises(BadInput, match="a network that is fed its own state can't be trained here"):
        train(asked)


def test_data_without_items_to_train_on_or_to_judge_is_refused(asked: Training) -> None:
    plain = {"inputs": IMAGES[:400], "labels": LABELS[:400]}
    with pytest.raises(
        BadInput, match="there are no items to train on: give them with --train, or name some of the data"
    ):
        train(replace(asked, data=plain))
    with pytest.raises(BadInput, match="training needs data: give items with --data"):
        train(replace(asked, data=None))
    with pytest.raises(BadInput, match="training needs labels, and the items have none"):
        train(replace(asked, data={name: array for name, array in data().items() if name != "labels"}))
    assert not asked.output.exists()


def test_a_second_source_is_what_is_trained_on(asked: Training) -> None:
    request = DataRequest(train={"inputs": IMAGES[:600], "labels": LABELS[:600]})
    judged = {"inputs": IMAGES[600:1000], "labels": LABELS[600:1000]}
    run = train(replace(asked, data=judged, data_request=request))
    assert run.reading("accuracy").value > 0.7
    assert run.reading("accuracy").samples == 133, "a third of those to judge by selects"


def test_what_diverges_leaves_nothing_behind(asked: Training) -> None:
    wild = Recipe(epochs=2, batch=32, optimizer="sgd", lr=1e9, warmup=0, schedule="constant")
    with pytest.raises(TrimtabError, match="training diverges"):
        train(replace(asked, recipe=wild))
    assert not asked.output.exists()


def test_a_folder_without_a_training_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"holds no training \(run.json is missing\); give the --output of trimtab train"
    ):
        read_run(tmp_path)


def test_few_and_unbalanced_items_are_warned_of(asked: Training, tmp_path: Path) -> None:
    model = open_model(asked.model, tmp_path / "model").model
    rare = np.flatnonzero(LABELS == 3)[:2]
    rows = np.concatenate([np.flatnonzero((LABELS != 3) & (LABELS != 7))[:300], rare])
    given = {"inputs": IMAGES[rows], "labels": LABELS[rows]}
    judged = {"inputs": IMAGES[1000:1400], "labels": LABELS[1000:1400]}
    task = open_task(judged, model, tmp_path / "data", DataRequest(train=given))
    held = np.bincount(labels_of(task.split("train")), minlength=10)
    few, missing, unbalanced = cautions(task)
    assert few == (
        f"{held.sum()} items ({held[3]} of the rarest class) are few to train on: start from weights that were trained "
        "before (--weights), with few epochs, a small lr and augmentation; trimtab optimize without --train needs none"
    )
    assert missing == "no item to train on is of class 7: it will be unlearnt"
    assert unbalanced == (
        f"class {held.argmax()} has {held.max()} items to train on and class 3 {held[3]}; class_weights=balanced "
        "weighs them alike, and f1_macro or accuracy_macro as --metric judges them alike"
    )


def test_what_is_found_of_the_rarest_class_is_told(asked: Training) -> None:
    rows = np.concatenate([np.flatnonzero(LABELS[:1000] != 3), np.flatnonzero(LABELS[:1000] == 3)[:4]])
    given = {"inputs": IMAGES[rows], "labels": LABELS[rows]}
    judged = {"inputs": IMAGES[1000:1400], "labels": LABELS[1000:1400]}
    longer = replace(RECIPE, epochs=5)
    plain = replace(asked, data=judged, data_request=DataRequest(train=given), recipe=longer)
    runs = [train(plain)]
    recipe = replace(longer, class_weights="balanced")
    runs.append(train(replace(plain, recipe=recipe, output=asked.output.with_name("balanced"))))
    recalls = []
    for run in runs:
        (recall,) = [each for each in run.readings if (each.name, each.place) == ("recall", "3")]
        (note,) = [note for note in run.notes if note.startswith("of the select items of class 3 (")]
        assert note.endswith(f"{with_interval(recall)} are found")
        recalls.append(recall.value)
    assert recalls[0] < recalls[1], "weighing classes alike finds more of the rare one"


def test_items_of_a_single_class_are_refused_before_anything_is_learnt(asked: Training) -> None:
    threes = np.flatnonzero(LABELS == 3)
    request = DataRequest(train={"inputs": IMAGES[threes], "labels": LABELS[threes]})
    judged = {"inputs": IMAGES[1000:1400], "labels": LABELS[1000:1400]}
    with pytest.raises(BadInput, match=r"all \d+ items to train on are of class 3: there is nothing to tell apart"):
        train(replace(asked, data=judged, data_request=request))
    assert not asked.output.exists()


@pytest.mark.parametrize(
    ("items", "says"), [(1, "there are no items"), (2, "there is 1 item to train on: a step takes")]
)
def test_fewer_items_than_a_step_takes_are_refused(asked: Training, items: int, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        train(replace(asked, data=data(train=items)))
    assert not asked.output.exists()


def test_few_items_to_choose_by_are_warned_of(asked: Training, tmp_path: Path) -> None:
    model = open_model(asked.model, tmp_path / "model").model
    (said,) = cautions(open_task(data(train=700, judged=40), model, tmp_path / "data"))
    assert said == "10 items to choose the best epoch by hardly tell epochs apart: give a few hundred with --data"


def test_a_network_whose_code_was_edited_does_not_go_on_from_its_checkpoint(asked: Training, net: Path) -> None:
    train(replace(asked, seconds=0.0))
    net.write_text(NET.replace("nn.ReLU()", "nn.Tanh()"))
    with pytest.raises(BadInput, match="of another network, other data, another recipe or other code; delete it or"):
        train(asked)
    net.write_text(NET)
    assert train(asked).finished


def test_enough_items_of_every_class_are_nothing_to_warn_of(asked: Training, tmp_path: Path) -> None:
    model = open_model(asked.model, tmp_path / "model").model
    assert cautions(open_task(data(train=700), model, tmp_path / "data")) == ()
    assert cautions(Task()) == ()


def test_a_network_that_answers_probabilities_is_warned_of(net: Path, asked: Training, tmp_path: Path) -> None:
    run = train(replace(asked, model=f"{net}:sure", recipe=replace(RECIPE, epochs=1)))
    assert "the network answers probabilities; it learns better when" in run.notes[-1]
    shares = np.array([[0.2, 0.8], [0.5, 0.5]])
    assert probabilities(Task(), shares)
    assert probabilities(Task(kind="binary"), shares[:, :1])
    for kind, outputs in (("regression", shares), ("classification", shares * 2), ("classification", shares - 0.3)):
        assert probabilities(Task(kind=kind), outputs) == ()


def test_scores_are_higher_where_the_metric_is_better(tmp_path: Path, asked: Training) -> None:
    model = open_model(asked.model, tmp_path / "model").model
    task = open_task(data(), model, tmp_path / "data")
    select = task.split("select")
    wanted = np.eye(10)[labels_of(select)]
    wrong = np.roll(wanted, 1, axis=1)
    assert score_of(task, select)(wanted) == 1.0
    assert score_of(task, select)(wrong) == 0.0
    assert score_of(replace(task, metric="f1_macro"), select)(wanted) == pytest.approx(1.0)
    numbers = replace(task, kind="regression", metric="mse")
    labels = labels_of(select).astype(float)
    assert score_of(numbers, select)(labels) == 0.0
    assert score_of(numbers, select)(labels + 2) == -4.0


def test_a_metric_of_ones_own_is_trained_for(asked: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "def share(labels, outputs):\n    return float((outputs.argmax(axis=1) == labels).mean())\n"
    (tmp_path / "metric_of_my_own.py").write_text(code)
    run = train(replace(asked, data_request=DataRequest(metric="metric_of_my_own:share")))
    assert max(run.trace("metric_of_my_own:share").values) == run.reading("accuracy").value


def test_traces_are_over_epochs_in_the_sense_of_the_metric() -> None:
    history = [
        Epoch(number=number, steps=4 * number, loss=1 / number, score=-2.0 / number, rate=0.1, optimizer="sgd",
              seconds=1.0, cpu_s=2.0, waited_s=0.5)
        for number in (1, 2)
    ]  # fmt: skip
    found = {trace.name: trace for trace in traces(history, "mse")}
    assert found["mse"].values == (2.0, 1.0)
    assert {trace.times for trace in found.values()} == {(1.0, 2.0)}
    assert (found["epoch_cpu_time"].values, found["epoch_cpu_time"].unit) == ((2.0, 2.0), "s")
    assert {"train_loss", "learning_rate", "epoch_time", "loader_wait"} < set(found)
    assert {trace.name: trace.values for trace in traces(history, "accuracy")}["accuracy"] == (-2.0, -1.0)
    assert traces((), "accuracy") == ()
