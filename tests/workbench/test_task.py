from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Goal, Model, Task
from trimtab.data.request import DataRequest
from trimtab.testing.networks import PERCEPTRON
from trimtab.testing.samples import source
from trimtab.workbench.opening import open_model
from trimtab.workbench.task import check_goal, given_task

INPUTS = PERCEPTRON.inputs(60, 0)["x"]
LABELS = PERCEPTRON.answer({"x": INPUTS})["scores"].argmax(axis=1)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return open_model(source("onnx", tmp_path / "model"), tmp_path / "work").model


def test_without_data_the_task_has_nothing_to_judge_by(model, tmp_path):
    assert given_task(None, model, tmp_path, DataRequest()) == Task()


def test_an_opened_task_is_taken_as_it_is(model, tmp_path):
    task = given_task((INPUTS, LABELS), model, tmp_path / "data", DataRequest())
    assert given_task(task, model, tmp_path / "other", DataRequest(seed=7)) is task
    assert not (tmp_path / "other").exists()


def test_a_metric_that_does_not_exist_is_told_before_anything_runs(model, tmp_path):
    with pytest.raises(BadInput, match=r"there is no metric 'taste': choose one of .*recall_macro"):
        given_task((INPUTS, LABELS), model, tmp_path, DataRequest(metric="taste"))
    own = given_task((INPUTS, LABELS), model, tmp_path, DataRequest(metric="package.module:function"))
    assert own.metric == "package.module:function", "a user's own is looked up when it is needed"


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (DataRequest(positive=1), "--positive"),
        (DataRequest(threshold=0.3), "--threshold"),
        (DataRequest(costs=(10.0, 1.0)), "--cost"),
        (DataRequest(positive=0, threshold=0.0), "--positive, --threshold"),
    ],
)
def test_what_only_two_classes_have_is_not_ignored_with_more(model, tmp_path, request_, named):
    with pytest.raises(BadInput, match=f"^{named}: that is for two classes, and this task is classification"):
        given_task((INPUTS, LABELS), model, tmp_path, request_)


@pytest.mark.parametrize("drop", [0.0, -0.01, 1.0, 5.0, float("nan")])
def test_a_drop_of_a_share_lies_between_nothing_and_all_of_it(model, tmp_path, drop):
    task = given_task((INPUTS, LABELS), model, tmp_path, DataRequest())
    with pytest.raises(BadInput, match=r"says nothing about accuracy: give a number between 0 and 1"):
        check_goal(Goal(max_drop=drop), task)


def test_a_drop_in_another_unit_may_be_of_any_size(model, tmp_path):
    task = given_task((INPUTS, LABELS), model, tmp_path, DataRequest())
    for metric in ("cost", "mse", "r2", "package.module:function"):
        check_goal(Goal(max_drop=25.0), replace(task, metric=metric))
    with pytest.raises(BadInput, match="max_drop=0 says nothing about cost: give a number above 0, in its own unit"):
        check_goal(Goal(max_drop=0.0), replace(task, metric="cost"))


def test_without_labels_it_is_about_agreement_whatever_the_metric(model, tmp_path):
    task = given_task({"x": INPUTS}, model, tmp_path, DataRequest())
    with pytest.raises(BadInput, match="says nothing about agreement"):
        check_goal(Goal(max_drop=2.0), task)


def test_speed_only_and_sensible_goals_pass(model, tmp_path):
    task = given_task((INPUTS, LABELS), model, tmp_path, DataRequest())
    for goal, given in ((Goal(), task), (Goal(max_drop=None), task), (Goal(max_drop=7.0), Task())):
        check_goal(goal, given)
    assert np.isfinite(Goal().margin)


@pytest.mark.parametrize("objective", ["energy", "latency_p99", "accuracy"])
def test_what_no_search_can_improve_is_told_before_anything_runs(objective):
    with pytest.raises(BadInput, match=f"can't improve '{objective}': give --minimize latency, size"):
        check_goal(Goal(objective=objective), Task())


@pytest.mark.parametrize("objective", ["latency", "throughput", "bytes", "peak_memory", "macs", "parameters"])
def test_what_is_read_while_searching_can_be_improved(objective):
    check_goal(Goal(objective=objective), Task())
