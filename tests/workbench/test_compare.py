from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, r2_score

from trimtab.core.errors import BadInput
from trimtab.core.machine import machine
from trimtab.core.values import Goal, Settings, Task, Variant
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.meters.quality import tune_threshold
from trimtab.serving.bundle import write_bundle
from trimtab.testing.networks import PERCEPTRON
from trimtab.testing.samples import source
from trimtab.workbench.compare import Care, compare, compare_predictions, judged
from trimtab.workbench.opening import open_model
from trimtab.workbench.verbs import Requests, opened

ITEMS = 400
DATA: dict[str, Any] = PERCEPTRON.inputs(ITEMS, 0)
LABELS = PERCEPTRON.answer(DATA)["scores"].argmax(axis=1)
ORT = Settings(runtime="onnxruntime", threads=1)


@pytest.fixture
def variants(tmp_path: Path) -> list[Variant]:
    """The network that is always right, and one with other weights."""
    return [open_model(source("onnx", tmp_path / str(seed), seed), tmp_path / "work").on(ORT) for seed in (0, 1)]


def test_times_and_judges_every_variant_against_the_first(variants, tmp_path):
    task = open_task({**DATA, "labels": LABELS}, variants[0].model, tmp_path / "data")
    found = compare([*variants, variants[0]], task, Goal(max_drop=0.05, margin=0.5), Care(seconds=1, processes=2))
    assert [measurement.variant for measurement in found.measurements] == [*variants, variants[0]]
    assert [(ratio.variant, ratio.baseline) for ratio in found.ratios] == [
        (variants[1].key, variants[0].key),
        (variants[0].key, variants[0].key),
    ]
    assert all(ratio.processes >= 2 for ratio in found.ratios)
    assert found.self_test is not None
    assert [proof.proven for proof in found.quality] == [False, True]
    for measurement in found.measurements:
        (latency,) = (reading for reading in measurement.readings if reading.name == "latency_p50")
        assert 0 < latency.low <= latency.value <= latency.high
        assert latency.samples == found.ratios[0].processes, "calls of one process are no samples of their own"
    assert found.measurements[0].value("parameters") == 16 * 32 + 32 + 32 * 4 + 4
    rates = [[m.value(f"compression_{what}") for what in ("parameters", "bytes")] for m in found.measurements]
    sizes = [measurement.value("bytes") for measurement in found.measurements]
    assert rates == [[None, None], [1.0, sizes[0] / sizes[1]], [1.0, 1.0]], "against the first one, which has none"


def test_all_items_are_judged_but_those_that_calibrate(variants, tmp_path):
    task = open_task({**DATA, "labels": LABELS}, variants[0].model, tmp_path / "data")
    sizes = {split.name: len(split) for split in task.splits}
    (whole,) = judged(variants, task, Goal()).quality
    assert whole.items == sizes["select"] + sizes["certify"] == ITEMS - sizes["calibrate"]
    rows = np.concatenate([np.load(split.rows.path) for split in task.splits if split.name != "calibrate"])
    other = PERCEPTRON.graph(1)
    import onnxruntime

    scores = onnxruntime.InferenceSession(other.SerializeToString()).run(None, {"x": DATA["x"][rows]})[0]
    assert whole.difference == pytest.approx(accuracy_score(LABELS[rows], scores.argmax(axis=1)) - 1)


def test_groups_are_kept_over_both_splits(variants, tmp_path):
    grouped = {**DATA, "labels": LABELS, "groups": np.arange(ITEMS) // 4}
    task = open_task(grouped, variants[0].model, tmp_path / "data", DataRequest(groups="groups"))
    (found,) = judged(variants, task, Goal()).quality
    assert found.groups == found.items // 4


def test_without_data_only_the_time_is_compared(variants):
    assert judged(variants, Task(), Goal()).quality == ()


def test_without_data_it_is_said_and_outputs_that_are_not_alike_are_told(variants):
    goal, care = Goal(margin=0.5), Care(seconds=0.1, processes=2)
    said, *doubts = compare([*variants, variants[0].on(Settings(runtime="onnxruntime"))], Task(), goal, care).warnings
    assert said.startswith("speed only: there are no items to judge answers by, so no drop of quality is checked")
    (doubt,) = [doubt for doubt in doubts if "steady" not in doubt]
    assert "(2): its output 'scores' for made-up inputs is" in doubt, "of the second model, and of no other"


def test_a_drop_that_says_nothing_is_refused_before_anything_runs(variants, tmp_path):
    task = open_task({**DATA, "labels": LABELS}, variants[0].model, tmp_path / "data")
    with pytest.raises(BadInput, match=r"max_drop=5 says nothing about accuracy: .*0\.01 is one point"):
        judged(variants, task, Goal(max_drop=5.0))


def test_one_model_is_no_comparison(variants):
    with pytest.raises(BadInput, match="at least two models"):
        compare(variants[:1], Task())


def test_answers_near_chance_are_asked_about_and_notes_on_the_data_are_kept(variants, tmp_path):
    twice = {"x": np.repeat(DATA["x"][:200], 2, axis=0), "labels": np.random.default_rng(7).integers(0, 4, ITEMS)}
    task = open_task(twice, variants[0].model, tmp_path / "data")
    found = judged([variants[0]] * 2, task, Goal())
    assert "preprocessing or label order?" in found.warnings[0]
    assert found.warnings[1:] == task.notes
    assert any("certify items also occur in select" in note for note in found.warnings)
    good = open_task({**DATA, "labels": LABELS}, variants[0].model, tmp_path / "good")
    assert judged([variants[0]] * 2, good, Goal(max_drop=0.05)).warnings == good.notes


class TestThreshold:
    """Where a mistake costs more than another, the threshold is part of the terms."""

    @staticmethod
    def opened(model: Any, folder: Path, **request: Any) -> tuple[Task, Any]:
        """A task whose one input is the probability itself, and that input in the order of each split."""
        rng = np.random.default_rng(3)
        labels = (rng.random(ITEMS) < 0.3).astype(np.int64)
        x = np.where(labels == 1, rng.uniform(0.05, 0.6, ITEMS), rng.uniform(0, 0.2, ITEMS)).astype(np.float32)[:, None]
        task = open_task({"x": x, "labels": labels}, model, folder, DataRequest(**request))
        return task, {split.name: (x[np.load(split.rows.path)], np.load(split.labels.path)) for split in task.splits}

    @staticmethod
    def money(scores: Any, labels: Any, threshold: float) -> float:
        given = scores.ravel() >= threshold
        return float(np.mean(10 * ((labels == 1) & ~given) + ((labels == 0) & given)))

    def test_is_tuned_on_select_by_the_first_and_judged_on_certify(self, probability, tmp_path):
        first, second = probability(1.0), probability(0.8)
        task, held = self.opened(first.model, tmp_path / "data", costs=(10.0, 1.0))
        found = judged([first, second], task, Goal(max_drop=0.5))
        (verdict,), (note,) = found.quality, found.notes
        threshold = tune_threshold(task, held["select"][1], held["select"][0])
        assert threshold < 0.3
        assert note.startswith(
            f"answers are positive from a probability of {threshold:.3g}, tuned with the first model"
        )
        x, labels = held["certify"]
        assert (verdict.metric, verdict.items) == ("cost", len(labels))
        loss = self.money(np.float32(0.8) * x, labels, threshold) - self.money(x, labels, threshold)
        assert verdict.difference == pytest.approx(-loss)
        assert loss > 0

    def test_that_is_given_is_taken_on_all_items_and_accuracy_keeps_the_middle(self, probability, tmp_path):
        models = [probability(1.0), probability(0.8)]
        for request, notes in (
            ({"costs": (10.0, 1.0), "threshold": 0.2}, ("answers are positive from a probability of 0.2",)),
            ({}, ()),
        ):
            task, held = self.opened(models[0].model, tmp_path / "data", **request)
            found = judged(models, task, Goal(max_drop=0.5))
            assert found.notes == notes
            assert found.quality[0].items == len(held["select"][1]) + len(held["certify"][1])

    def test_of_a_bundle_is_the_one_that_is_compared_at(self, probability, tmp_path):
        model, requests = probability(1.0), Requests()
        task, _ = self.opened(model.model, tmp_path / "data")
        for name, threshold in (("a", 0.11), ("b", 0.22)):
            own = replace(task, threshold=threshold, positive=1)
            write_bundle(
                tmp_path / name, model, own, measurement=None, certificate=None, machine=machine(), version="1"
            )
        with opened([model, tmp_path / "a"], task, requests) as (_, given):
            assert (given.threshold, given.positive) == (0.11, 1)
        with opened([model, tmp_path / "a"], replace(task, threshold=0.4), requests) as (_, given):
            assert given.threshold == 0.4
        with (
            pytest.raises(BadInput, match=r"thresholds of their own \(.*a at 0\.11, .*b at 0\.22\); .*--threshold"),
            opened([tmp_path / "a", tmp_path / "b"], task, requests),
        ):
            pass
        other = Requests(data=DataRequest(positive=0))
        with (
            pytest.raises(BadInput, match="was made for the other class"),
            opened([tmp_path / "a"], replace(task, positive=0), other),
        ):
            pass


class TestPredictionFiles:
    """Answers that were made elsewhere."""

    TRUTH = np.random.default_rng(0).integers(0, 3, 400)

    def saved(self, folder: Path, **arrays: Any) -> list[Path]:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        return [folder / f"{name}.npy" for name in arrays]

    def test_class_numbers_are_judged_like_scores(self, tmp_path):
        old, new = self.TRUTH.copy(), self.TRUTH.copy()
        new[:10] = (new[:10] + 1) % 3
        files = self.saved(tmp_path, truth=self.TRUTH, a=old, b=new, c=np.eye(3, dtype=np.float32)[new])
        found = compare_predictions(files[1:], files[0], Goal(max_drop=0.05))
        assert [proof.difference for proof in found] == [-10 / 400] * 2
        assert [(proof.variant, proof.baseline) for proof in found] == [
            (str(files[2]), str(files[1])),
            (str(files[3]), str(files[1])),
        ]

    def test_an_archive_may_hold_them_by_name(self, tmp_path):
        (truth,) = self.saved(tmp_path, truth=self.TRUTH)
        np.savez(tmp_path / "a.npz", outputs=self.TRUTH, other=np.zeros(3))
        (found,) = compare_predictions([tmp_path / "a.npz"] * 2, truth)
        assert found.difference == 0

    def test_values_are_judged_by_r2_or_the_metric_that_is_asked_for(self, tmp_path):
        rng = np.random.default_rng(1)
        truth = rng.normal(size=200)
        old, new = truth + rng.normal(size=200) * 0.1, truth + rng.normal(size=200) * 0.2
        files = self.saved(tmp_path, truth=truth, a=old, b=new)
        (found,) = compare_predictions(files[1:], files[0])
        assert (found.metric, found.difference) == ("r2", pytest.approx(r2_score(truth, new) - r2_score(truth, old)))
        (found,) = compare_predictions(files[1:], files[0], metric="mae")
        assert found.difference == pytest.approx(np.abs(old - truth).mean() - np.abs(new - truth).mean())

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("none.npy", None, "there is no file"),
            ("short.npy", np.zeros(3, np.int64), "answers 3 items, .* has 400 labels: give the same items"),
            ("nan.npy", np.r_[np.zeros(399), np.nan], "holds NaN or infinity .item 399."),
            ("text.npy", np.array(["a"] * 400), "give numbers, a row per item"),
            ("objects.npy", np.array([{}] * 400), "holds no plain array"),
            ("one.npy", np.float64(3.0), "give numbers, a row per item"),
            ("nothing.npy", np.zeros(0), "give numbers, a row per item"),
            ("complex.npy", np.zeros(400, complex), "give numbers, a row per item"),
        ],
    )
    def test_files_that_can_not_be_used_are_one_clear_line(self, tmp_path, name, content, words):
        files = self.saved(tmp_path, truth=self.TRUTH, a=self.TRUTH)
        if content is not None:
            np.save(tmp_path / name, content)
        with pytest.raises(BadInput, match=words) as raised:
            compare_predictions([files[1], tmp_path / name], files[0])
        assert "\n" not in str(raised.value)

    def test_a_file_that_is_no_array_is_told(self, tmp_path):
        files = self.saved(tmp_path, truth=self.TRUTH, a=self.TRUTH)
        for name, content in (("text.npy", b"hello"), ("empty.npy", b""), ("cut.npz", b"PK\x03\x04abc")):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(BadInput, match="holds no plain array"):
                compare_predictions([files[1], tmp_path / name], files[0])
        np.savez(tmp_path / "named.npz", mine=self.TRUTH)
        with pytest.raises(BadInput, match="holds no array `outputs`, only mine"):
            compare_predictions([files[1], tmp_path / "named.npz"], files[0])

    def test_one_archive_may_hold_labels_and_outputs(self, tmp_path):
        new = np.where(np.arange(400) < 40, (self.TRUTH + 1) % 3, self.TRUTH)
        np.savez(tmp_path / "a.npz", outputs=self.TRUTH, labels=self.TRUTH)
        np.savez(tmp_path / "b.npz", outputs=new, labels=self.TRUTH)
        (found,) = compare_predictions([tmp_path / "a.npz", tmp_path / "b.npz"], tmp_path / "b.npz")
        assert found.difference == -0.1

    def test_truths_are_classes(self, tmp_path):
        truth = self.TRUTH > 0
        files = self.saved(tmp_path, truth=truth, a=truth, b=~truth)
        (found,) = compare_predictions(files[1:], files[0])
        assert (found.metric, found.difference) == ("accuracy", -1.0)

    @pytest.mark.parametrize(
        ("labels", "words"),
        [
            (np.eye(3, dtype=np.int64)[TRUTH], r"whole numbers of shape \(400, 3\): give one class number per item"),
            (np.where(TRUTH == 2, np.nan, 1.0), "truth.npy holds NaN or infinity"),
        ],
    )
    def test_labels_that_can_not_be_used_are_one_clear_line(self, tmp_path, labels, words):
        files = self.saved(tmp_path, truth=labels, a=self.TRUTH, b=self.TRUTH)
        with pytest.raises(BadInput, match=words):
            compare_predictions(files[1:], files[0])

    def test_a_metric_or_a_drop_that_makes_no_sense_is_told(self, tmp_path):
        files = self.saved(tmp_path, truth=self.TRUTH, a=self.TRUTH, b=self.TRUTH)
        with pytest.raises(BadInput, match="there is no metric 'taste'"):
            compare_predictions(files[1:], files[0], metric="taste")
        with pytest.raises(BadInput, match="max_drop=2 says nothing about accuracy"):
            compare_predictions(files[1:], files[0], Goal(max_drop=2.0))
        with pytest.raises(BadInput, match="at least two files with predictions"):
            compare_predictions(files[1:2], files[0])

    def test_files_are_judged_without_writing_anything(self, tmp_path):
        files = self.saved(tmp_path, truth=self.TRUTH, a=self.TRUTH, b=self.TRUTH)
        before = sorted(tmp_path.iterdir())
        compare_predictions(files[1:], files[0])
        assert sorted(tmp_path.iterdir()) == before
