from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Goal, Reading, Task, Variant, Workload
from trimtab.testing.samples import source
from trimtab.workbench import batch as subject
from trimtab.workbench.batch import Batch, is_open, open_batch
from trimtab.workbench.opening import open_model

MOST = Goal(objective="throughput", direction="maximize")


@pytest.fixture
def original(tmp_path: Path) -> Variant:
    return open_model(source("onnx", tmp_path / "model"), tmp_path / "opened")


class FakeThroughputMeter:
    """Reads what it is told to at every batch, and remembers its options."""

    rates: Sequence[tuple[int, float | None]] = ()
    made: Sequence[dict[str, Any]] = ()

    def __init__(self, **given: Any) -> None:
        type(self).made = [*self.made, given]

    def read(self, *given: object) -> list[Reading]:
        found = [Reading(name="throughput", value=v, scope="was killed", place=f"batch={n}") for n, v in self.rates]
        return [Reading(name="throughput", value=1e9), *found]


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> type[FakeThroughputMeter]:
    class Fake(FakeThroughputMeter):
        """One for each test."""

    monkeypatch.setattr(subject, "ThroughputMeter", Fake)
    return Fake


def test_only_throughput_of_one_item_at_a_time_leaves_the_batch_open():
    assert is_open(MOST)
    assert not is_open(Goal(objective="throughput", workload=Workload(batch=8)))
    assert not is_open(Goal())


def test_it_is_the_one_at_which_the_model_as_given_has_the_most_throughput(original, reading, tmp_path):
    reading.rates = ((1, 100.0), (2, 190.0), (4, 300.0), (8, 290.0), (16, None))
    found = open_batch(MOST, original, Task(), tmp_path, seconds=600)
    assert found == Batch(size=4, rate=300.0, alone=100.0)
    assert found.words() == (
        "no --batch was given: throughput is compared at 4 items per call, where the model as given has the most "
        "(300 items/s, against 100 one at a time)"
    )


def test_a_continued_run_keeps_it_whatever_would_be_read_now(original, reading, tmp_path):
    reading.rates = ((1, 100.0), (2, 190.0))
    first = open_batch(MOST, original, Task(), tmp_path, seconds=600)
    reading.rates = ((1, 100.0), (2, 190.0), (4, 300.0))
    assert open_batch(MOST, original, Task(), tmp_path, seconds=600) == first
    assert len(reading.made) == 1


def test_no_batch_beyond_64_is_tried_and_a_short_budget_gives_it_less_time(original, reading, tmp_path):
    reading.rates = ((1, 100.0),)
    for seconds in (600, 60, 6000):
        open_batch(MOST, original, Task(), tmp_path / str(seconds), seconds=seconds)
    assert [made["largest"] for made in reading.made] == [64] * 3
    assert [made["seconds"] for made in reading.made] == [10.0, 2.0, 10.0]


def test_a_model_of_one_batch_only_has_that_one(original, reading, tmp_path):
    reading.rates = ((8, 100.0),)
    found = open_batch(MOST, original, Task(), tmp_path, seconds=600)
    assert found == Batch(size=8, rate=100.0, alone=None)
    assert "against" not in found.words()


def test_one_that_can_not_be_called_says_why(original, reading, tmp_path):
    reading.rates = ((1, None),)
    with pytest.raises(BadInput, match="throughput of the model as given can't be read: was killed"):
        open_batch(MOST, original, Task(), tmp_path, seconds=600)


def test_where_a_batch_is_given_nothing_is_read(original, reading, tmp_path):
    goal = Goal(objective="throughput", workload=Workload(batch=8))
    assert open_batch(goal, original, Task(), tmp_path, seconds=600) is None
    assert reading.made == ()


def test_it_is_read_in_a_real_process(original, tmp_path):
    found = open_batch(MOST, original, Task(), tmp_path, seconds=60)
    assert found is not None
    assert found.size in (1, 2, 4, 8, 16, 32, 64)
    assert found.rate >= (found.alone or 0.0) > 0
