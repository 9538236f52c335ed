from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Reading
from trimtab.tracking.folder import FolderTracker


def reading(value: float) -> Reading:
    return Reading(name="accuracy", value=value, direction="higher", samples=10)


def test_a_run_is_a_folder_that_anyone_can_read(tmp_path):
    tracker = FolderTracker(str(tmp_path))
    tracker.start("run-1", {"seed": 1, "metric": "accuracy", "limit": None})
    tracker.log([reading(0.5), reading(0.6)], step=1)
    tracker.log([reading(0.7)], step=2)
    tracker.end("finished", [Path("fast/manifest.json")])
    folder = tmp_path / "run-1"
    assert json.loads((folder / "configuration.json").read_text()) == {"seed": 1, "metric": "accuracy", "limit": None}
    lines = [json.loads(line) for line in (folder / "readings.jsonl").read_text().splitlines()]
    assert [(line["step"], line["name"], line["value"]) for line in lines] == [
        (1, "accuracy", 0.5),
        (1, "accuracy", 0.6),
        (2, "accuracy", 0.7),
    ]
    ended = json.loads((folder / "status.json").read_text())
    assert ended == {"status": "finished", "artifacts": ["fast/manifest.json"]}


def test_a_run_of_the_same_name_goes_on(tmp_path):
    for number in (1, 2):
        tracker = FolderTracker(str(tmp_path))
        tracker.start("run", {})
        tracker.log([reading(number)], step=number)
    assert len((tmp_path / "run" / "readings.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("name", ["", "a/b", "..", "../a"])
def test_a_run_can_not_leave_the_folder(tmp_path, name):
    with pytest.raises(BadInput, match="is not a name of a run"):
        FolderTracker(str(tmp_path)).start(name, {})


def test_logging_without_a_run_is_refused(tmp_path):
    tracker = FolderTracker(str(tmp_path))
    with pytest.raises(BadInput, match="no run was started"):
        tracker.log([reading(1)], step=0)
    tracker.start("run", {})
    tracker.end("killed", [])
    with pytest.raises(BadInput, match="no run was started"):
        tracker.end("again", [])


def test_is_kept_in_the_home_of_trimtab_when_no_folder_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    FolderTracker().start("run", {})
    assert (tmp_path / "runs" / "run" / "configuration.json").is_file()


def test_a_run_that_goes_on_has_not_ended(tmp_path):
    for _ in range(2):
        tracker = FolderTracker(str(tmp_path))
        tracker.start("run", {})
        assert not (tmp_path / "run" / "status.json").exists()
        tracker.end("finished", [])
        assert (tmp_path / "run" / "status.json").exists()


def test_every_line_is_a_reading_with_its_interval_unit_and_moment(tmp_path):
    tracker = FolderTracker(str(tmp_path))
    tracker.start("größe-1", {})
    known = Reading(name="recall", value=0.5, low=0.25, high=0.75, samples=8, place="spam → ham\nü")
    tracker.log([known, Reading(name="macs", value=None, provenance="unavailable", scope="no counter")], step=3)
    first, second = (json.loads(line) for line in (tmp_path / "größe-1" / "readings.jsonl").read_text().splitlines())
    assert (first["low"], first["high"], first["place"], first["unit"]) == (0.25, 0.75, "spam → ham\nü", "1")
    assert (second["value"], second["provenance"], second["step"]) == (None, "unavailable", 3)
    assert datetime.fromisoformat(first["time"]).utcoffset() == timedelta(0)


def test_no_readings_are_no_line_and_no_error(tmp_path):
    tracker = FolderTracker(str(tmp_path))
    tracker.start("run", {})
    tracker.log([], step=0)
    assert (tmp_path / "run" / "readings.jsonl").read_text() == ""
