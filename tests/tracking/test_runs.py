"""What all trackers share."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Reading
from trimtab.tracking.runs import begun, checked_name, json_lines, points


@pytest.mark.parametrize("name", ["fast-1", "größe", "a b", "it's", "..."])
def test_a_name_of_a_folder_is_a_name_of_a_run(name):
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a"])
def test_what_leaves_the_folder_is_no_name(name):
    with pytest.raises(BadInput, match="is not a name of a run"):
        checked_name(name)


def test_nothing_can_be_logged_to_a_run_that_was_not_started():
    assert begun("run") == "run"
    with pytest.raises(BadInput, match="call start"):
        begun(None)


def test_a_reading_is_its_value_and_the_ends_of_its_interval():
    known = Reading(name="recall", value=0.5, low=0.25, high=0.75)
    assert points(known, "r/spam") == [("r/spam", 0.5), ("r/spam.low", 0.25), ("r/spam.high", 0.75)]
    assert points(Reading(name="macs", value=7), "macs") == [("macs", 7.0)]


def test_zero_is_a_value_and_unavailable_is_none():
    assert points(Reading(name="flips", value=0.0, low=0.0), "flips") == [("flips", 0.0), ("flips.low", 0.0)]
    assert points(Reading(name="macs", value=None, provenance="unavailable"), "macs") == []


def test_a_line_holds_the_whole_reading():
    known = Reading(name="recall", value=0.5, unit="1", samples=8, place="spam → ham\nü", scope="8 items")
    text = json_lines([known, known], step=3)
    line = json.loads(text.splitlines()[1])
    assert (line["step"], line["place"], line["samples"], line["scope"]) == (3, "spam → ham\nü", 8, "8 items")
    assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
    assert json_lines([], step=3) == ""
