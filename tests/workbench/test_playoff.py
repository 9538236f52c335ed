"""The leaders of a search run against each other again before anything is proven."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.machine import machine
from trimtab.core.values import Goal, NoWorse, Ratio, Settings, Task, Trial, TrialState, Variant
from trimtab.search.budget import Budget
from trimtab.search.journal import Journal
from trimtab.search.making import Shop
from trimtab.search.progress import Silent
from trimtab.search.race import Race, outpaced
from trimtab.workbench import playoff
from trimtab.workbench.opening import open_model
from trimtab.workbench.playoff import leaders, play_off


def screened(value: float, processes: int = 1) -> Ratio:
    return Ratio(
        reading="latency", variant="v", baseline="b", value=value, low=0.9 * value, high=1.1 * value, level=0.95,
        margin=0.03, verdict="inconclusive", blocks=16, processes=processes, noise="",
    )  # fmt: skip


def judged(worse: int) -> NoWorse:
    return NoWorse(
        metric="accuracy", variant="v", baseline="b", max_drop=0.01, error=0.05, method="", items=100, groups=100,
        difference=-worse / 100, low=-1.0, high=1.0, better=0, worse=worse, flips=worse, proven=False, needed=None,
        reason="", harmed=(),
    )  # fmt: skip


@pytest.fixture
def original(digits_files: tuple[Path, Path], tmp_path: Path) -> Variant:
    return open_model(digits_files[0], tmp_path / "model")


@pytest.fixture
def race(original: Variant, tmp_path: Path) -> Iterator[Race]:
    """A race whose search is over: nothing is known of it but what a test enters."""
    shop = Shop(task=Task(), goal=Goal(max_drop=None), original=original, folder=tmp_path / "variants")
    made = Race(
        shop=shop,
        journal=Journal(tmp_path / "journal.jsonl"),
        budget=Budget(seconds=30),
        progress=Silent(),
        machine=machine(),
    )
    yield made
    made.close()


def enter(
    race: Race, threads: int | None, value: float, state: TrialState = "kept", quality: NoWorse | None = None
) -> Trial:
    variant = race.shop.original.on(Settings(runtime="onnxruntime", threads=threads))
    trial = Trial(
        name=variant.label(), steps=(), settings=variant.settings, variant=variant, state=state, reason="",
        screening=screened(value), quality=quality,
    )  # fmt: skip
    race.journal.add(trial)
    race.names.append(trial.name)
    return trial


def test_the_fastest_lead_and_the_model_as_given_is_what_they_are_compared_with(race: Race) -> None:
    enter(race, None, 1.0)
    fast, slower, _ = enter(race, 1, 0.5), enter(race, 2, 0.6), enter(race, 3, 0.7)
    assert leaders(race, race.trials, (), most=2) == [fast, slower]


def test_one_dropped_for_its_time_alone_may_have_been_unlucky(race: Race) -> None:
    enter(race, None, 1.0)
    fast, unlucky = enter(race, 1, 0.5), enter(race, 2, 0.6, state="dropped")
    wrong = enter(race, 3, 0.4, state="dropped", quality=judged(worse=30))
    assert outpaced(unlucky)
    assert not outpaced(wrong)
    assert leaders(race, race.trials, (), most=8) == [fast, unlucky]


def test_what_is_far_behind_stays_out_unless_it_is_the_baseline(race: Race) -> None:
    enter(race, None, 1.0)
    fast, far, plain = enter(race, 1, 0.5), enter(race, 2, 0.8), enter(race, 3, 0.9)
    assert leaders(race, race.trials, (), most=8) == [fast]
    assert leaders(race, race.trials, (plain,), most=2) == [plain, fast]
    assert far not in leaders(race, race.trials, (plain,), most=8)


def test_nothing_leads_where_nothing_was_kept(race: Race) -> None:
    enter(race, None, 1.0)
    enter(race, 1, 0.2, state="failed")
    assert leaders(race, race.trials, (), most=8) == []


def test_the_leaders_get_times_from_fresh_processes_and_the_unlucky_one_is_judged(race: Race, tmp_path: Path) -> None:
    enter(race, None, 1.0)
    lucky, unlucky = enter(race, 1, 0.01), enter(race, 2, 0.012, state="dropped")
    play_off(race, (), tmp_path / "playoff")
    corrected = {trial.name: trial for trial in race.trials}
    for trial in (lucky, unlucky):
        found = corrected[trial.name]
        assert found.state == "kept"
        assert found.screening is not None
        assert found.screening.processes >= 2
        assert found.screening.value > 0.1  # the same network is not a hundred times faster with another thread count
    assert race.journal.get(lucky.name) == lucky  # the journal keeps what the search went by


def test_a_play_off_that_was_made_is_not_made_again(race: Race, tmp_path: Path) -> None:
    enter(race, None, 1.0)
    enter(race, 1, 0.5)
    enter(race, 2, 0.5)
    play_off(race, (), tmp_path / "playoff")
    first = dict(race.corrected)
    race.corrected.clear()
    logs = {path: path.stat().st_mtime_ns for path in (tmp_path / "playoff").rglob("*.log")}
    play_off(race, (), tmp_path / "playoff")
    assert race.corrected == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "playoff").rglob("*.log")} == logs


def test_a_field_that_is_another_one_is_timed_itself(
    race: Race, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playoff, "_EACH_S", 1.0)
    enter(race, None, 1.0)
    enter(race, 1, 0.5)
    enter(race, 2, 0.5)
    play_off(race, (), tmp_path / "playoff")
    kept = list((tmp_path / "playoff").rglob("*.npz"))
    enter(race, 3, 0.4)  # as when a longer budget found one more
    race.corrected.clear()
    play_off(race, (), tmp_path / "playoff")
    new = set((tmp_path / "playoff").rglob("*.npz")) - set(kept)
    assert {len(np.load(path)["wall"]) for path in kept} == {4}, "the model as given, two leaders, the self-test"
    assert {len(np.load(path)["wall"]) for path in new} == {5}


def test_a_leader_that_crashes_is_out_and_the_others_play_on(
    race: Race, tmp_path: Path, crashing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playoff, "_EACH_S", 0.01)
    race.budget.seconds = 0.1
    enter(race, None, 1.0)
    bad, good = enter(race, 1, 0.5), enter(race, 2, 0.6)
    assert bad.variant is not None
    crashing.add(bad.variant.key)
    play_off(race, (), tmp_path / "playoff")
    found = {trial.name: trial for trial in race.trials}
    assert (found[bad.name].state, found[good.name].state) == ("failed", "kept")
    assert found[bad.name].reason == "failed when it was timed again: crashed with SIGSEGV (time)"
    assert found[good.name].screening is not None
    assert found[good.name].screening.processes >= 2


def test_a_goal_that_is_no_time_needs_no_play_off(race: Race, tmp_path: Path) -> None:
    race.shop = replace(race.shop, goal=Goal(objective="bytes", max_drop=None))
    enter(race, None, 1.0)
    enter(race, 1, 0.5)
    enter(race, 2, 0.5)
    play_off(race, (), tmp_path / "playoff")
    assert race.corrected == {}
