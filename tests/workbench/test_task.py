from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trimtab.core import plugins
from trimtab.core.errors import BadInput
from trimtab.core.values import Goal, Limit, Model, Reading, Settings, Task, Variant, Workload
from trimtab.data.request import DataRequest
from trimtab.search.race import METERS
from trimtab.testing.fakes import FakeProcessSession
from trimtab.testing.networks import PERCEPTRON
from trimtab.testing.samples import source
from trimtab.workbench import task as subject
from trimtab.workbench.opening import open_model
from trimtab.workbench.task import check_goal, given_task, lost_limits, unseen

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


def test_items_that_may_have_chosen_a_bundle_do_not_judge_it(model, tmp_path, monkeypatch):
    task = given_task((INPUTS, LABELS), model, tmp_path / "data", DataRequest())
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    for certificate, left in (("a certificate", ["calibrate", "certify"]), (None, ["calibrate", "select", "certify"])):
        held = SimpleNamespace(certificate=certificate)
        monkeypatch.setattr(subject, "read_manifest", lambda folder, held=held: held)
        found = unseen(task, ["model.onnx", tmp_path / "bundle"])
        assert [split.name for split in found.splits] == left
        assert ("bundle" in " ".join(found.notes)) == (certificate is not None)
    assert unseen(task, ["model.onnx"]) is task
    assert unseen(Task(), [tmp_path / "bundle"]) == Task()


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


def limited(reading: str, bound: float = 0.5) -> Goal:
    return Goal(limits=(Limit(reading=reading, relation="<=", bound=bound),))


def test_a_limit_on_what_nothing_reads_is_told_with_the_nearest_and_all_that_is_read(model, tmp_path):
    task = given_task((INPUTS, LABELS), model, tmp_path, DataRequest())
    with pytest.raises(BadInput, match=r"'acuracy' for classification; did you mean accuracy\? .*latency_p99.*top5"):
        check_goal(limited("acuracy"), task)
    with pytest.raises(BadInput, match=r"'zzz' for classification\. What can be read: "):
        check_goal(limited("zzz"), task)


@pytest.mark.parametrize("reading", ["bytes", "peak_memory", "latency_p99", "throughput", "macs", "compression_bytes"])
def test_a_limit_may_be_on_whatever_is_read_of_any_model(reading):
    check_goal(limited(reading), Task())


def test_a_limit_on_quality_is_on_what_such_data_tells(model, tmp_path):
    labelled = given_task((INPUTS, LABELS), model, tmp_path / "a", DataRequest())
    plain = given_task({"x": INPUTS}, model, tmp_path / "b", DataRequest())
    for reading in ("accuracy", "accuracy_macro", "recall", "top5", "agreement", "latency_end_to_end"):
        check_goal(limited(reading), labelled)
    check_goal(limited("agreement"), plain)
    check_goal(limited("own.module:function"), replace(labelled, metric="own.module:function"))
    for reading, task, words in (
        ("accuracy", plain, "'accuracy' for classification without labels"),
        ("mse", labelled, "'mse' for classification"),
        ("cost", labelled, "'cost' for classification"),
        ("accuracy", Task(), "'accuracy' without data"),
        ("latency_end_to_end", Task(), "'latency_end_to_end' without data"),
        ("own.module:function", labelled, "'own.module:function' for classification"),
    ):
        with pytest.raises(BadInput, match=words):
            check_goal(limited(reading), task)


def test_every_reading_of_our_meters_may_be_limited(model, tmp_path):
    task = given_task((INPUTS, LABELS), model, tmp_path, DataRequest())
    variant = Variant(model=model, settings=Settings(runtime="onnxruntime"))
    session = FakeProcessSession(variant, PERCEPTRON.answer)
    for name in METERS:
        for reading in plugins.make("meters", name).read(session, variant, task, Workload()):
            if isinstance(reading, Reading) and reading.place is None:
                check_goal(limited(reading.name), task)


def test_what_meters_of_others_read_is_known_once_they_have_read_the_model_as_given(monkeypatch):
    monkeypatch.setattr(subject, "foreign_meters", lambda: ("smell",))
    goal = limited("odour")
    check_goal(goal, Task())
    with pytest.raises(BadInput, match="'accuracy' without data"):
        check_goal(limited("accuracy"), Task())
    assert lost_limits(goal, [Reading(name="odour", value=1.0)], judged=True) == []
    unavailable = Reading(name="odour", value=None, provenance="unavailable")
    assert lost_limits(goal, [unavailable], judged=True) == [], "an export may have one"
    assert lost_limits(goal, [Reading(name="smell", value=1.0)], judged=False) == list(goal.limits)


def test_quality_that_the_answers_of_the_model_as_given_do_not_tell_will_never_be_told():
    goal = Goal(limits=tuple(Limit(reading=name, relation=">=", bound=0.5) for name in ("top5", "accuracy", "bytes")))
    read = [Reading(name="accuracy", value=0.9), Reading(name="top5", value=None)]
    assert [limit.reading for limit in lost_limits(goal, read, judged=True)] == ["top5"]
    assert lost_limits(goal, [], judged=False) == [], "it never answered"


@pytest.mark.parametrize("load", [{"concurrency": 4}, {"arrival_rate_hz": 10.0}])
def test_a_load_that_is_not_timed_is_refused(load):
    with pytest.raises(BadInput, match="calls are timed one at a time"):
        check_goal(Goal(workload=Workload(**load)), Task())
