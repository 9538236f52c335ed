from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, r2_score

from trimtab.core.errors import BadInput
from trimtab.core.values import Goal, Settings, Task, Variant
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.testing.networks import PERCEPTRON
from trimtab.testing.samples import source
from trimtab.workbench.compare import Care, compare, compare_predictions, judged
from trimtab.workbench.opening import open_model

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


def test_all_items_are_judged_but_those_that_calibrate(variants, tmp_path):
    task = open_task({**DATA, "labels": LABELS}, variants[0].model, tmp_path / "data")
    sizes = {split.name: len(split) for split in task.splits}
    (whole,) = judged(variants, task, Goal())
    assert whole.items == sizes["select"] + sizes["certify"] == ITEMS - sizes["calibrate"]
    rows = np.concatenate([np.load(split.rows.path) for split in task.splits if split.name != "calibrate"])
    other = PERCEPTRON.graph(1)
    import onnxruntime

    scores = onnxruntime.InferenceSession(other.SerializeToString()).run(None, {"x": DATA["x"][rows]})[0]
    assert whole.difference == pytest.approx(accuracy_score(LABELS[rows], scores.argmax(axis=1)) - 1)


def test_groups_are_kept_over_both_splits(variants, tmp_path):
    grouped = {**DATA, "labels": LABELS, "groups": np.arange(ITEMS) // 4}
    task = open_task(grouped, variants[0].model, tmp_path / "data", DataRequest(groups="groups"))
    (found,) = judged(variants, task, Goal())
    assert found.groups == found.items // 4


def test_without_data_only_the_time_is_compared(variants):
    assert judged(variants, Task(), Goal()) == ()


def test_a_drop_that_says_nothing_is_refused_before_anything_runs(variants, tmp_path):
    task = open_task({**DATA, "labels": LABELS}, variants[0].model, tmp_path / "data")
    with pytest.raises(BadInput, match=r"max_drop=5 says nothing about accuracy: .*0\.01 is one point"):
        judged(variants, task, Goal(max_drop=5.0))


def test_one_model_is_no_comparison(variants):
    with pytest.raises(BadInput, match="at least two models"):
        compare(variants[:1], Task())


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
