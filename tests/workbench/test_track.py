"""What trackers are told of a run, and that none of them can cost it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Reading, Scalar, Trial
from trimtab.search.progress import Silent
from trimtab.workbench.track import Log, Track, trackers, trial_readings

Enter = Callable[..., Trial]


class FakeTracker:
    """Remembers what it is told, and fails where it is told to."""

    name = "fake"

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.told: list[tuple[str, object]] = []

    def start(self, run: str, configuration: Mapping[str, Scalar]) -> None:
        self._tell("start", run)

    def log(self, readings: Sequence[Reading], step: int) -> None:
        self._tell("log", step)

    def end(self, status: str, artifacts: Sequence[Path]) -> None:
        self._tell("end", (status, [path.name for path in artifacts]))

    def _tell(self, what: str, said: object) -> None:
        if what == self.fails:
            raise ConnectionError("no\nserver")
        self.told.append((what, said))


class Told(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def stage(self, text: str) -> None:
        self.heard.append(text)

    def begin(self, name: str, spent_s: float, budget_s: float) -> None:
        self.heard.append(name)

    def done(self, trial: Trial, best: Trial | None) -> None:
        self.heard.append(trial.name)


def test_each_trial_is_one_step_and_everything_is_told_on(tmp_path: Path, enter: Enter) -> None:
    fake, told = FakeTracker(), Told()
    first, second = enter(value=1.0), enter("bf16", value=0.5)
    with Track({"fake": fake}, told) as track:
        track.stage("searching")
        track.start(tmp_path / "fast" / "work", {}, [])
        track.begin("bf16", 0.0, 1.0)
        track.done(first, first)
        track.done(second, second)
        track.end("finished", [tmp_path / "result.json"])
    assert told.heard == ["searching", "bf16", first.name, second.name]
    assert fake.told[1:] == [("log", 1), ("log", 2), ("end", ("finished", ["result.json"]))]
    name = str(fake.told[0][1])
    assert name.startswith("fast-20"), "people know it by its folder and its time"


def test_a_run_that_goes_on_keeps_its_name_and_repeats_nothing(tmp_path: Path, enter: Enter) -> None:
    first = enter(value=1.0)
    before = [trial_readings(first)]
    old, new = FakeTracker(), FakeTracker()
    with Track({"old": old}, Silent()) as track:
        track.start(tmp_path, {}, [])
        track.done(first, None)
    with Track({"old": old, "new": new}, Silent()) as track:
        track.start(tmp_path, {}, before)
        track.done(enter("bf16"), None)
    names = [said for what, said in old.told if what == "start"]
    assert len(names) == 2
    assert names[0] == names[1]
    assert [said for what, said in old.told if what == "log"] == [1, 2]
    assert [said for what, said in new.told if what == "log"] == [1, 2], "one that is new is told what was before"


def test_a_step_is_told_once(tmp_path: Path) -> None:
    fake = FakeTracker()
    with Log({"fake": fake}) as log:
        log.start(tmp_path, {}, [[]])
        log.log([], 2)
        log.log([], 2)
        log.log([], 3)
    assert [said for what, said in fake.told if what == "log"] == [1, 2, 3]


@pytest.mark.parametrize("fails", ["start", "log", "end"])
def test_a_tracker_that_fails_is_left_out_with_one_warning_and_the_others_go_on(
    tmp_path: Path, enter: Enter, fails: str
) -> None:
    broken, whole, told = FakeTracker(fails), FakeTracker(), Told()
    with Track({"broken": broken, "whole": whole}, told) as track:
        track.start(tmp_path, {}, [])
        for threads in (1, 2):
            track.done(enter(threads=threads), None)
        track.end("finished")
    assert track.warnings == ["the tracker broken failed and was left out from then on: no server"]
    assert [what for what, _ in whole.told] == ["start", "log", "log", "end"]
    assert len(told.heard) == 2
    assert fails not in [what for what, _ in broken.told]


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "killed"), (BadInput, "failed")])
def test_a_run_that_is_broken_off_has_ended_so(tmp_path: Path, error: type[BaseException], status: str) -> None:
    fake = FakeTracker()
    with pytest.raises(error), Track({"fake": fake}, Silent()) as track:
        track.start(tmp_path, {}, [])
        raise error
    assert fake.told[-1] == ("end", (status, []))


def test_what_failed_before_it_began_is_no_run() -> None:
    fake = FakeTracker()
    with pytest.raises(BadInput), Track({"fake": fake}, Silent()):
        raise BadInput("no such file")
    assert fake.told == []


def test_a_trial_tells_how_it_ended_and_what_was_read(enter: Enter) -> None:
    trial = enter("bf16", value=0.5, worse=7, state="dropped", reason="loses 1 pt")
    found = {reading.name: reading for reading in trial_readings(trial)}
    assert found["trial_time"].scope == f"{trial.name}: dropped (loses 1 pt)"
    assert (found["trial_time"].value, found["trial_time"].unit) == (1.0, "s")
    assert (found["relative_time"].value, found["relative_time"].low) == (0.5, 0.495)
    assert found["accuracy_change"].value == -0.01
    bare = trial_readings(enter(state="failed", screening=None, quality=None, threads=2))
    assert [reading.name for reading in bare] == ["trial_time"], "a trial without readings is told nevertheless"


def test_trackers_are_typed_with_their_options(tmp_path: Path) -> None:
    (made,) = trackers([f"folder:folder={tmp_path}"]).values()
    made.start("run", {"seed": 1})
    assert json.loads((tmp_path / "run" / "configuration.json").read_text()) == {"seed": 1}
    assert trackers([]) == {}
    with pytest.raises(BadInput, match="there is no tracker named 'abacus'; known are: folder"):
        trackers(["abacus"])
    with pytest.raises(BadInput, match="folder has no option 'place=x'; its options are: folder"):
        trackers(["folder:place=x"])
