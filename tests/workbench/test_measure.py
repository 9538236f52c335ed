from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.core import plugins
from trimtab.core.errors import BadInput, WorkerCrashed
from trimtab.core.machine import machine
from trimtab.core.values import Measurement, Reading, Settings, Task, Variant, Workload, options
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.meters.quality import tune_threshold
from trimtab.stores.folder import FolderStore
from trimtab.testing.networks import PERCEPTRON
from trimtab.testing.samples import source
from trimtab.testing.samples import task as sample_task
from trimtab.workbench import measure as subject
from trimtab.workbench.measure import arithmetic, measure, with_compression
from trimtab.workbench.opening import open_model


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    found = open_model(source("onnx", tmp_path / "model"), tmp_path / "work")
    return found.on(Settings(runtime="onnxruntime", threads=1))


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return sample_task(PERCEPTRON, tmp_path / "data")


def test_reads_what_the_meters_named_tell_and_nothing_else(variant, task):
    found = measure(variant, task, meters=("size", "quality"), split="certify")
    assert found.value("parameters") == 16 * 32 + 32 + 32 * 4 + 4
    assert found.value("accuracy") == 1.0, "the network itself gave the labels"
    assert found.reading("latency_p50") is None
    assert (found.variant, found.task, found.workload) == (variant, task.digest, Workload())
    assert found.machine.digest == machine().digest


def test_without_data_the_quality_is_left_out_unless_it_was_asked_for(variant, monkeypatch):
    monkeypatch.setattr(subject, "METERS", ("size", "quality"))
    found = measure(variant, Task())
    assert {reading.name for reading in found.readings} == {"parameters", "bytes", "bytes_compressed"}
    with pytest.raises(BadInput, match="there is no split 'select' to answer; give --data"):
        measure(variant, Task(), meters=("quality",))


def test_a_split_that_the_data_does_not_have_is_named_with_those_it_has(variant, task):
    with pytest.raises(BadInput, match="there is no split 'test' to answer; the data has calibrate, select, certify"):
        measure(variant, task, split="test")


def test_a_meter_that_does_not_exist_is_named_with_the_known_ones(variant, task):
    with pytest.raises(BadInput, match=r"there is no meter named 'taste'; known are: .*latency"):
        measure(variant, task, meters=("taste",))


def test_what_was_measured_before_is_returned_as_it_was(variant, task, tmp_path):
    store = FolderStore(str(tmp_path / "kept"))
    first = measure(variant, task, meters=("size",), store=store)
    marked = replace(first, time="before")
    (path,) = (tmp_path / "kept").iterdir()
    store.put(path.stem, marked)
    assert measure(variant, task, meters=("size",), store=store) == marked
    again = measure(variant, task, Workload(batch=2), meters=("size",), store=store)
    assert again.time != "before"
    other = measure(variant.on(Settings(runtime="openvino")), task, meters=("size",), store=store)
    assert other.time != "before"


class FakeMeter:
    """Fails in the way that it is told, and does not say what it would have read."""

    error: Exception = WorkerCrashed("the worker fell over")

    def read(self, *given: object) -> Sequence[Reading]:
        raise self.error


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every meter but that of the size falls over with its worker."""
    made = plugins.make

    def make(group: str, name: str, *options: object) -> object:
        meter = made(group, name, *options)
        if group == "meters" and name != "size":
            meter.read = FakeMeter().read
        return meter

    monkeypatch.setattr(plugins, "make", make)


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("memory", {"peak_memory": "B"}),
        ("throughput", {"throughput": "1/s"}),
        ("end-to-end", {"latency_end_to_end": "s"}),
        ("compute", {"macs": "1", "macs_nonzero": "1", "macs_coverage": "1"}),
    ],
)
def test_what_a_meter_that_fails_would_have_read_is_unavailable_and_the_others_go_on(
    variant, task, failing, name, units
):
    found = measure(variant, task, meters=(name, "size"))
    lost = [reading for reading in found.readings if reading.provenance == "unavailable"]
    assert {reading.name: reading.unit for reading in lost} == units
    assert {(reading.value, reading.scope) for reading in lost} == {(None, "the worker fell over")}
    assert found.value("parameters") is not None


def test_a_meter_of_another_distribution_may_fail_in_any_way(variant, task, monkeypatch):
    class Broken(FakeMeter):
        error = ZeroDivisionError("no such luck")

    made = plugins.make
    monkeypatch.setattr(plugins, "make", lambda *given: Broken() if given[1] == "bad-smell" else made(*given))
    monkeypatch.setattr(subject, "foreign_meters", lambda: ("bad-smell",))
    found = measure(variant, task, meters=("bad-smell", "size"))
    smell = found.reading("bad_smell")
    assert smell is not None
    assert (smell.value, smell.scope) == (None, "the meter bad-smell failed: ZeroDivisionError: no such luck")
    monkeypatch.setattr(Broken, "readings", {"odour": "olf"}, raising=False)
    odour = measure(variant, task, meters=("bad-smell",)).reading("odour")
    assert odour is not None
    assert (odour.value, odour.unit, odour.scope) == (None, "olf", smell.scope), "as it says itself"
    assert found.value("parameters") is not None


def test_a_model_that_does_not_run_is_an_error(variant, task, failing):
    with pytest.raises(WorkerCrashed, match="fell over"):
        measure(variant, task, meters=("latency",))


def test_compression_is_original_over_compressed(variant, task):
    original = measure(variant, task, meters=("size",))
    smaller = replace(original, readings=tuple(replace(r, value=(r.value or 0) / 4) for r in original.readings))
    found: Measurement = with_compression(smaller, original)
    assert found.value("compression_parameters") == 4
    assert found.value("compression_bytes") == 4
    assert found.readings[: len(smaller.readings)] == smaller.readings


class FakeSession:
    """Tells what its engine computes in."""

    def __init__(self, variant: Variant, told: str | None) -> None:
        self.variant, self.told = variant, told

    def info(self) -> dict[str, Any]:
        return {"load_s": 0.1, "precision": self.told}


@pytest.mark.parametrize(
    ("asked", "told", "bits", "scope"),
    [
        (None, "bf16", 16, "the engine's own choice, nothing was asked for"),
        ("fp32", "fp32", 32, "as asked for"),
        ("fp16", "fp32", 32, "the engine's own choice, fp16 was asked for"),
        (None, "fp8", None, "the engine's own choice, nothing was asked for"),
    ],
)
def test_the_numbers_that_an_engine_computes_in_are_those_it_tells(variant, asked, told, bits, scope):
    session: Any = FakeSession(variant.on(Settings(runtime="openvino", precision=asked)), told)
    (reading,) = arithmetic(session)
    assert (reading.name, reading.place, reading.unit) == ("arithmetic", told, "bit")
    assert (reading.value, reading.scope) == (bits, scope)
    assert reading.provenance == ("unavailable" if bits is None else "counted"), "never a number that nobody knows"


def test_an_engine_that_does_not_tell_gets_no_such_reading(variant):
    assert arithmetic(FakeSession(variant, None)) == ()  # type: ignore[arg-type]  # a fake


@pytest.mark.parametrize("asked", [None, "fp32"])
def test_what_openvino_chose_by_itself_is_said_where_its_time_is(variant, task, asked):
    pytest.importorskip("openvino")
    chosen = variant.on(Settings(runtime="openvino", precision=asked, threads=1))
    found = measure(chosen, task, meters={"latency": options(calls=3, seconds=0.1)})
    (reading,) = found.named("arithmetic")
    assert reading.place == asked or (asked is None and reading.place in ("fp32", "bf16", "fp16"))
    assert found.value("latency_p50") is not None


def test_answers_near_chance_are_asked_about_and_notes_on_the_data_are_kept(variant, tmp_path):
    items = PERCEPTRON.inputs(200, 0)["x"]
    guessed = np.random.default_rng(7).integers(0, 4, 200)
    bad = open_task(
        {"x": np.repeat(items, 2, axis=0), "labels": np.repeat(guessed, 2)}, variant.model, tmp_path / "bad"
    )
    found = measure(variant, bad, meters=("quality",))
    assert "preprocessing or label order?" in found.warnings[0]
    assert found.warnings[1:] == bad.notes != ()
    assert measure(variant, bad, meters=("size",)).warnings == ()
    labels = PERCEPTRON.answer({"x": items})["scores"].argmax(axis=1)
    good = open_task({"x": items, "labels": labels}, variant.model, tmp_path / "good")
    assert measure(variant, good, meters=("quality",)).warnings == good.notes


def test_a_threshold_is_tuned_on_select_as_a_search_does(probability, tmp_path):
    rng = np.random.default_rng(3)
    labels = (rng.random(400) < 0.3).astype(np.int64)
    x = np.where(labels == 1, rng.uniform(0.05, 0.6, 400), rng.uniform(0, 0.2, 400)).astype(np.float32)[:, None]
    model = probability(1.0)
    task = open_task({"x": x, "labels": labels}, model.model, tmp_path / "data", DataRequest(costs=(10.0, 1.0)))
    rows = {split.name: np.load(split.rows.path) for split in task.splits}
    threshold = tune_threshold(task, labels[rows["select"]], x[rows["select"]])
    cost = measure(model, task, meters=("quality",), split="certify").reading("cost")
    assert cost is not None
    given, truth = x[rows["certify"], 0] >= threshold, labels[rows["certify"]] == 1
    assert cost.value == pytest.approx(np.mean(10.0 * (truth & ~given) + (~truth & given)))
    assert cost.scope == f"certify split, threshold {threshold:.3g}"
