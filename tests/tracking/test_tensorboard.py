"""What is logged for TensorBoard, read back with TensorBoard's own reader."""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from trimtab.core.errors import BadInput, MissingExtra
from trimtab.core.values import Reading
from trimtab.testing.laws import Missing, elsewhere
from trimtab.tracking.tensorboard import TensorBoardTracker

pytest.importorskip("tensorboard")

LATENCY = Reading(name="latency_p50", value=0.25, unit="s", low=0.125, high=0.5, samples=10, scope="bf16: a | b")


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator

    return EventAccumulator(str(folder), STORE_EVERYTHING_SIZE_GUIDANCE).Reload()


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def texts(folder: Path, tag: str) -> list[tuple[int, str]]:
    found = read(folder)
    assert found.SummaryMetadata(tag).plugin_data.plugin_name == "text"
    return [(event.step, event.tensor_proto.string_val[0].decode()) for event in found.Tensors(tag)]


def started(folder: Path, run: str = "run") -> TensorBoardTracker:
    tracker = TensorBoardTracker(str(folder))
    tracker.start(run, {"seed": 1})
    return tracker


def test_readings_are_scalars_at_their_step_with_the_ends_of_their_interval(tmp_path):
    tracker = started(tmp_path)
    tracker.log([LATENCY, Reading(name="accuracy", value=0.5)], step=1)
    tracker.log([Reading(name="accuracy", value=0.75)], step=7)
    tracker.end("finished", [])
    folder = tmp_path / "run"
    assert scalars(folder, "accuracy") == [(1, 0.5), (7, 0.75)]
    assert scalars(folder, "latency_p50") == [(1, 0.25)]
    assert (scalars(folder, "latency_p50.low"), scalars(folder, "latency_p50.high")) == ([(1, 0.125)], [(1, 0.5)])


def test_is_on_disk_when_log_returns(tmp_path):
    tracker = started(tmp_path)
    tracker.log([LATENCY], step=1)
    assert scalars(tmp_path / "run", "latency_p50") == [(1, 0.25)]
    tracker.end("killed", [])


def test_numbers_are_kept_in_32_bits_and_without_bounds_too(tmp_path):
    tracker = started(tmp_path)
    tracker.log([Reading(name="ratio", value=0.1, low=float("-inf")), Reading(name="loss", value=float("nan"))], step=0)
    tracker.end("finished", [])
    found = read(tmp_path / "run")
    assert found.Scalars("ratio")[0].value == float(np.float32(0.1))
    assert found.Scalars("ratio.low")[0].value == float("-inf")
    assert np.isnan(found.Scalars("loss")[0].value)


def test_a_place_is_a_series_of_its_own(tmp_path):
    tracker = started(tmp_path)
    tracker.log(
        [Reading(name="recall", value=n, place=place) for n, place in enumerate(["größe", "spam → ham"])], step=2
    )
    tracker.end("finished", [])
    assert scalars(tmp_path / "run", "recall/größe") == [(2, 0.0)]
    assert scalars(tmp_path / "run", "recall/spam → ham") == [(2, 1.0)]


def test_what_is_unavailable_is_no_scalar_and_says_why_in_the_table_of_its_step(tmp_path):
    tracker = started(tmp_path)
    tracker.log([Reading(name="macs", value=None, provenance="unavailable", scope="no counter"), LATENCY], step=3)
    tracker.end("finished", [])
    assert "macs" not in read(tmp_path / "run").Tags()["scalars"]
    ((step, table),) = texts(tmp_path / "run", "readings")
    _, _, macs, latency = table.splitlines()
    assert step == 3
    assert macs == "| macs |  |  |  |  | 1 | 1 | unavailable | no counter |"
    assert latency == "| latency_p50 |  | 0.25 | 0.125 | 0.5 | s | 10 | measured | bf16: a \\| b |"


def test_configuration_and_end_are_texts(tmp_path):
    tracker = TensorBoardTracker(str(tmp_path))
    tracker.start("run", {"model": "a.onnx", "seed": None, "deep": True})
    tracker.log([LATENCY], step=4)
    tracker.end("failed", [Path("fast/result.json")])
    ((step, configuration),) = texts(tmp_path / "run", "configuration")
    assert (step, configuration.splitlines()[2:]) == (0, ["| model | a.onnx |", "| seed |  |", "| deep | True |"])
    assert texts(tmp_path / "run", "status") == [(4, "failed\n\n- fast/result.json")]


def test_artifacts_that_are_png_are_images(tmp_path):
    drawn = np.zeros((3, 5, 3))
    matplotlib.image.imsave(tmp_path / "confusion.png", drawn)
    tracker = started(tmp_path)
    tracker.log([LATENCY], step=4)
    tracker.end("finished", [tmp_path / "confusion.png", tmp_path / "not-read.html"])
    found = read(tmp_path / "run")
    (image,) = found.Images("confusion.png")
    assert (image.step, image.width, image.height) == (4, 5, 3)
    assert image.encoded_image_string == (tmp_path / "confusion.png").read_bytes()
    assert found.Tags()["images"] == ["confusion.png"]


@pytest.mark.parametrize("content", [None, b"", b"GIF89a" + zlib.compress(b"x" * 100), b"\x89PNG\r\n\x1a\n"])
def test_an_image_that_is_none_is_refused_when_the_end_has_been_told(tmp_path, content):
    if content is not None:
        (tmp_path / "odd.png").write_bytes(content)
    tracker = started(tmp_path)
    with pytest.raises(BadInput, match=r"the artifact .*odd\.png"):
        tracker.end("finished", [tmp_path / "odd.png"])
    assert texts(tmp_path / "run", "status")[0][1].startswith("finished")


def test_a_run_that_goes_on_keeps_its_scalars(tmp_path):
    for step in (1, 2):
        tracker = started(tmp_path)
        tracker.log([Reading(name="accuracy", value=step / 4)], step=step)
        tracker.end("killed", [])
    assert scalars(tmp_path / "run", "accuracy") == [(1, 0.25), (2, 0.5)]
    assert len(list((tmp_path / "run").iterdir())) == 2, "each part has a file of its own"


def test_two_runs_stay_apart(tmp_path):
    tracker = TensorBoardTracker(str(tmp_path))
    for run, value in (("one", 0.25), ("two", 0.5)):
        tracker.start(run, {})
        tracker.log([Reading(name="accuracy", value=value)], step=1)
        tracker.end("finished", [])
    assert scalars(tmp_path / "one", "accuracy") == [(1, 0.25)]
    assert scalars(tmp_path / "two", "accuracy") == [(1, 0.5)]


def test_is_kept_in_the_home_of_trimtab_when_no_folder_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    TensorBoardTracker().start("run", {})
    assert list((tmp_path / "tensorboard" / "run").iterdir())


def test_needs_neither_pytorch_nor_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    calls = (("start", ("run", {})), ("log", ([LATENCY], 1)), ("end", ("finished", [])))
    assert elsewhere(TensorBoardTracker, *calls, without=("torch", "tensorflow")) == []


def test_names_the_command_that_installs_what_is_missing(tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Missing(["tensorboard"]), *sys.meta_path])
    with pytest.raises(MissingExtra, match=r"pip install 'trimtab\[tensorboard\]'"):
        started(tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_not_be_written_is_refused_in_words(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(BadInput, match="can't create the folder"):
        started(tmp_path)


def test_a_folder_that_is_a_file_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="can't create the folder"):
        started(tmp_path / "file")
