from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from trimtab.core.protocols import Session
from trimtab.core.values import Reading, Task, Trace, Variant, Workload
from trimtab.testing import PERCEPTRON, FakeProcessSession, FakeSession, MeterSuite, check_readings, samples, task

COUNT = Reading(name="files", value=1.0, direction="lower", provenance="counted", source="the disk")
RANDOM = np.random.default_rng()


class Files:
    """Keeps every law: one file."""

    name = "files"

    def read(self, session: Session, variant: Variant, task: Task, workload: Workload) -> list[Reading | Trace]:
        return [COUNT]


class NeedsAnOption(Files):
    def __init__(self, share: float) -> None:
        self.share = share


class CountsAtRandom(Files):
    def read(self, *given: Any) -> list[Reading | Trace]:
        return [replace(COUNT, value=float(RANDOM.uniform()))]


class HoldsAnArray(Files):
    def read(self, *given: Any) -> list[Reading | Trace]:
        return [Trace(name="files", times=(0.0, 1.0), values=[1.0, 2.0])]  # type: ignore[arg-type] # that is broken


class ClosesTheSession(Files):
    def read(self, session: Session, *given: Any) -> list[Reading | Trace]:
        session.close()
        return [COUNT]


class LeavesOneOpen(Files):
    def read(self, session: Any, *given: Any) -> list[Reading | Trace]:
        session.fresh()
        return [COUNT]


class LeavesAFile(Files):
    def read(self, session: Session, variant: Variant, *given: Any) -> list[Reading | Trace]:
        variant.model.path.with_suffix(".profile").write_text("profile")
        return [COUNT]


class FailsWithoutData(Files):
    def read(self, session: Session, variant: Variant, task: Task, workload: Workload) -> list[Reading | Trace]:
        return [replace(COUNT, value=None)] if not task.splits else [COUNT]


class MissaysItsReadings(Files):
    readings: ClassVar = {"folders": "1"}


LAWS = {
    NeedsAnOption: ("test_has_a_name_and_no_option_without_a_default", "has no default"),
    MissaysItsReadings: ("test_reads_what_it_says_that_it_reads", "`readings` says"),
    CountsAtRandom: ("test_counting_again_counts_the_same", "became"),
    HoldsAnArray: ("test_readings_can_be_written_and_read_back", "plain values"),
    ClosesTheSession: ("test_closes_the_sessions_that_it_opens_and_not_the_one_it_is_given", "belongs to the caller"),
    LeavesOneOpen: ("test_closes_the_sessions_that_it_opens_and_not_the_one_it_is_given", "stays open"),
    LeavesAFile: ("test_leaves_the_model_and_the_data_alone", "left behind"),
    FailsWithoutData: ("test_what_cannot_be_had_is_unavailable_with_its_reason_and_never_zero", "not unavailable"),
}


@pytest.mark.parametrize(("plugin", "law", "words"), [(plugin, *law) for plugin, law in LAWS.items()])
def test_the_law_that_is_broken_says_so(plugin: type[Any], law: str, words: str, broken: Any) -> None:
    assert words in broken(MeterSuite, plugin, law)


@pytest.mark.parametrize("law", [law for law in dir(MeterSuite) if law.startswith("test_")])
def test_an_honest_meter_keeps_it(law: str, broken: Any) -> None:
    assert broken(MeterSuite, Files, law) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Files found"}, "joined by underscores"),
        ({"unit": ""}, "no unit"),
        ({"name": "latency_p50", "unit": "ms"}, "its unit is 's'"),
        ({"provenance": "guessed"}, "comes from 'guessed'"),
        ({"direction": "up"}, "direction 'up'"),
        ({"provenance": "unavailable", "value": 0.0, "scope": "no counter"}, "never a number"),
        ({"provenance": "unavailable", "value": None}, "without a reason"),
        ({"value": None}, "is not unavailable"),
        ({"value": float("nan")}, "is nan"),
        ({"low": 2.0}, "interval begins 2.0"),
        ({"high": 0.5}, "interval ends 0.5"),
        ({"level": 95}, "level 95"),
        ({"samples": 0}, "0 samples"),
        ({"source": ""}, "its source"),
    ],
)
def test_a_reading_that_is_not_well_formed_is_told_why(change: dict[str, Any], words: str) -> None:
    check_readings([COUNT])
    with pytest.raises(AssertionError, match=words):
        check_readings([replace(COUNT, **change)])


def test_readings_are_told_apart_by_name_and_place() -> None:
    check_readings([COUNT, replace(COUNT, place="one"), Trace(name="files", times=(0.0,), values=(1.0,))])
    with pytest.raises(AssertionError, match="twice"):
        check_readings([COUNT, replace(COUNT, value=2.0)])
    with pytest.raises(AssertionError, match="go back"):
        check_readings([Trace(name="files", times=(1.0, 0.0), values=(1.0, 1.0))])


def test_a_fake_session_takes_exactly_as_long_as_it_is_told() -> None:
    variant = samples()[0][0].variant
    session = FakeSession(variant, PERCEPTRON.answer, lambda call, items: 1000 * items + call, cores=2.0)
    given = PERCEPTRON.inputs(3, 0)
    assert session.time(given, 2).wall_ns.tolist() == [3000, 3001]
    assert session.time(given, 1).wall_ns.tolist() == [3002]
    assert session.time(given, 1).cpu_ns.tolist() == [6006]
    np.testing.assert_array_equal(session.run(given)["scores"], PERCEPTRON.answer(given)["scores"])
    assert (session.timed, session.batches, session.closed) == ([3, 3, 3], [3], False)
    other = FakeProcessSession(variant, PERCEPTRON.answer).fresh()
    assert other.info()["load_s"] == 0.25


def test_a_network_is_always_right_about_its_own_task(tmp_path: Any) -> None:
    given = task(PERCEPTRON, tmp_path, items=40)
    split = given.split("certify")
    assert split is not None and split.labels is not None
    scores = PERCEPTRON.answer({"x": np.load(split.inputs[0].path)})["scores"]
    np.testing.assert_array_equal(np.argmax(scores, axis=1), np.load(split.labels.path))
    assert len(set(np.load(split.labels.path))) > 1
