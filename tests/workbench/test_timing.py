"""The arithmetic of final timings, on times that were written down; `test_compare.py` times real processes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import WorkerCrashed
from trimtab.core.process import Limits
from trimtab.core.values import Model, Settings, Signature, Variant
from trimtab.stats.ratios import ratio
from trimtab.testing.fakes import FakeProcessSession
from trimtab.workbench import timing as subject
from trimtab.workbench.timing import Timing, TimingPlan, _kept, time_finally, time_trials

MODEL = Model(format="onnx", path=Path("never-opened"), digest="d", signature=Signature(inputs=(), outputs=()))


def variants(number: int) -> tuple[Variant, ...]:
    return tuple(Variant(model=MODEL, settings=Settings(runtime="onnxruntime", threads=n + 1)) for n in range(number))


def times(speeds: list[float], processes: int = 5, rounds: int = 40, noise: float = 0.01) -> tuple[np.ndarray, ...]:
    """Block times of each process, a row per variant; all of a round share what disturbed the machine."""
    rng = np.random.default_rng(0)
    disturbed = [rng.uniform(1, 3, rounds) for _ in range(processes)]
    return tuple(
        np.array([speed * each * rng.lognormal(0, noise, rounds) for speed in speeds]) * 1e-3 for each in disturbed
    )


def timing(speeds: list[float], control: int = 0, **given: float) -> Timing:
    wall = times([*speeds, speeds[control]], **given)  # type: ignore[arg-type]  # numbers by their names
    return Timing(variants=variants(len(speeds)), control=control, wall_s=wall, cpu_s=wall, seed=0, margin=0.03)


def written(folder: Path, speeds: list[float], control: int = 0, processes: int = 9, noise: float = 0.01) -> Path:
    """Keep the times of so many processes, as a run that was killed would have."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, wall in enumerate(times([*speeds, speeds[control]], processes, noise=noise)):
        np.savez(folder / f"{number}.npz", wall=wall, cpu=wall)
    return folder


def test_a_ratio_is_found_through_what_disturbs_both_alike():
    found = timing([1.0, 0.5, 2.0])
    for index, true in ((1, 0.5), (2, 2.0)):
        ratio_ = found.ratio(index, 0)
        assert ratio_.value == pytest.approx(true, rel=0.01)
        assert ratio_.low <= true <= ratio_.high
    assert (found.ratio(1, 0).verdict, found.ratio(2, 0).verdict) == ("faster", "slower")
    assert found.ratio(1, 2).value == pytest.approx(0.25, rel=0.02)


def test_a_ratio_names_what_was_compared_and_from_how_many_processes():
    found = timing([1.0, 0.5], processes=7)
    made = found.ratio(1, 0)
    assert (made.variant, made.baseline) == (found.variants[1].key, found.variants[0].key)
    assert (made.processes, made.blocks, made.margin) == (7, 7 * 40, 0.03)


def test_it_is_the_estimate_of_stats_on_the_same_rows():
    found = timing([1.0, 0.7])
    expected = ratio([w[1] for w in found.wall_s], [w[0] for w in found.wall_s], margin=0.03, seed=0)
    made = found.ratio(1, 0)
    assert (made.value, made.low, made.high) == (expected.value, expected.low, expected.high)


@pytest.mark.parametrize("control", [0, 1])
def test_the_control_against_itself_says_neither_faster_nor_slower(control):
    found = timing([1.0, 0.5], control=control)
    test = found.self_test()
    assert test.variant == test.baseline == found.variants[control].key
    assert test.verdict == "equivalent"
    assert test.low <= 1 <= test.high


def test_turning_a_ratio_round_is_its_inverse():
    found = timing([1.0, 0.6])
    assert found.ratio(0, 1).value == pytest.approx(1 / found.ratio(1, 0).value)


def test_timing_stops_at_the_processes_asked_for_when_they_agree(tmp_path):
    folder = written(tmp_path / "kept", [1.0, 0.5], noise=0.001)
    found = time_finally(variants(2), [{}, {}], TimingPlan(folder=folder, seconds=60, margin=0.03))
    assert len(found.wall_s) == 5
    assert found.ratio(1, 0).value == pytest.approx(0.5, rel=0.01)


def test_when_they_scatter_and_time_is_left_there_are_more_up_to_nine(tmp_path):
    folder = written(tmp_path / "kept", [1.0, 0.5], noise=0.5)
    found = time_finally(variants(2), [{}, {}], TimingPlan(folder=folder, seconds=60, margin=0.03))
    assert len(found.wall_s) == 9


def test_when_no_time_is_left_the_processes_asked_for_are_enough(tmp_path):
    folder = written(tmp_path / "kept", [1.0, 0.5], noise=0.5)
    found = time_finally(variants(2), [{}, {}], TimingPlan(folder=folder, seconds=0, margin=0.03, processes=3))
    assert len(found.wall_s) == 3


def test_the_verdict_never_stops_the_timing(tmp_path):
    wide = written(tmp_path / "wide", [1.0, 0.1], noise=0.5)  # faster beyond doubt, and not known exactly
    assert len(time_finally(variants(2), [{}, {}], TimingPlan(folder=wide, seconds=60, margin=0.03)).wall_s) == 9


def test_what_had_not_settled_is_marked_and_warned_of_by_its_name():
    found = timing([1.0, 0.5, 0.7], processes=3)
    assert found.warnings() == ()
    assert "no steady state" not in found.ratio(1, 0).cache
    marks = ([False, True, False, False], [False, True, False, True], [False] * 4)
    found = replace(found, unsettled=tuple(np.array(rows) for rows in marks))
    assert "no steady state" in found.ratio(1, 0).cache
    assert "no steady state" in found.self_test().cache, "of the second process of the control"
    assert "no steady state" not in found.ratio(2, 0).cache
    assert found.warnings() == (
        "no steady state: the times of as given on onnxruntime, 2 threads (2 of 3 processes) still changed after 300 "
        "calls of warm-up",
    )


def test_a_warm_up_that_never_settles_is_noted_while_one_cut_short_is_not(tmp_path, monkeypatch):
    clocks = {1: lambda number, items: 10_000, 2: lambda number, items: 10_000 * (1 + number // 20)}
    clocks[3] = lambda number, items: 300_000_000 + number % 2  # too slow for 40 calls in the time that there is

    def opened(variant, log, limits):
        return nullcontext(FakeProcessSession(variant, dict, clocks[variant.settings.threads]))

    monkeypatch.setattr(subject, "open_session", opened)
    monkeypatch.setattr(subject, "_LEAST_S", 0.01)
    plan = TimingPlan(folder=tmp_path, seconds=0, margin=0.03, processes=1)
    found = time_finally(variants(3), [{"x": np.zeros((1, 1))}] * 3, plan)
    assert [rows.tolist() for rows in found.unsettled] == [[False, True, False, False]]
    assert np.load(tmp_path / "0.npz")["unsettled"].tolist() == [False, True, False, False]


class TestTrials:
    """Trials that are timed again, of which some may not run any more."""

    def test_one_whose_worker_fails_is_out_and_the_others_are_timed_anew(self, over, enter, crashing, tmp_path):
        given, bad, good = enter(value=1.0), enter("bf16", value=0.5), enter("simplify", value=0.6)
        crashing.add(bad.variant.key)
        plan = TimingPlan(folder=tmp_path / "timing", seconds=0, margin=0.03, processes=2)
        ran, found = time_trials(over, [given, bad, good], plan, bad)
        assert ran == [given, good]
        assert found.variants == (given.variant, good.variant)
        assert [len(wall) for wall in found.wall_s] == [3, 3], "both and the self-test"
        assert found.control == 0, "the one that was to be the control is gone"
        assert [(trial.state, trial.reason) for trial in over.trials] == [
            ("kept", ""),
            ("failed", "failed when it was timed again: crashed with SIGSEGV (time)"),
            ("kept", ""),
        ]

    def test_without_the_first_there_is_nothing_to_compare_with(self, over, enter, crashing, tmp_path):
        given, good = enter(value=1.0), enter("simplify", value=0.6)
        crashing.add(given.variant.key)
        plan = TimingPlan(folder=tmp_path, seconds=0, margin=0.03, processes=2)
        with pytest.raises(WorkerCrashed):
            time_trials(over, [given, good], plan)
        assert [trial.state for trial in over.trials] == ["kept", "kept"]

    def test_every_field_is_kept_for_itself_and_read_again(self, over, enter, crashing, tmp_path):
        given, good, other = enter(value=1.0), enter("bf16", value=0.5), enter("simplify", value=0.6)
        plan = TimingPlan(folder=tmp_path, seconds=0, margin=0.03, processes=2)
        first, second = (time_trials(over, field, plan)[1] for field in ([given, good], [given, other, good]))
        crashing.update(trial.variant.key for trial in (given, good, other))
        again = time_trials(over, [given, good], plan)[1]
        assert [wall.tolist() for wall in again.wall_s] == [wall.tolist() for wall in first.wall_s]
        assert len(second.wall_s[0]) == 4

    def test_their_workers_have_limits(self, over, enter, tmp_path, monkeypatch):
        plans: list[TimingPlan] = []
        monkeypatch.setattr(subject, "time_finally", lambda variants, feeds, plan: plans.append(plan))
        over.shop = replace(over.shop, memory_bytes=10**9)
        time_trials(over, [enter(value=1.0)], TimingPlan(folder=tmp_path, seconds=0, margin=0.03))
        assert plans[0].limits.memory_bytes == 10**9
        assert plans[0].limits.call_s is not None
        assert plans[0].limits.call_s < 600


def test_the_limits_of_the_plan_are_those_of_every_worker(tmp_path, monkeypatch):
    seen = []

    def opened(variant, log, limits):
        seen.append(limits)
        return nullcontext(FakeProcessSession(variant, dict, lambda number, items: 10_000))

    monkeypatch.setattr(subject, "open_session", opened)
    monkeypatch.setattr(subject, "_LEAST_S", 0.01)
    limits = Limits(memory_bytes=10**9)
    plan = TimingPlan(folder=tmp_path, seconds=0, margin=0.03, processes=1, limits=limits)
    time_finally(variants(2), [{"x": np.zeros((1, 1))}] * 2, plan)
    assert seen == [limits] * 3


def test_what_was_timed_before_is_read_and_not_made_again(tmp_path):
    made: list[int] = []

    def rounds() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        made.append(1)
        return np.ones((2, 3)), np.full((2, 3), 2.0), np.array([True, False])

    path = tmp_path / "deep" / "0.npz"
    for _ in range(2):
        wall, cpu, unsettled = _kept(path, rounds)
        assert (wall.tolist(), cpu.tolist()) == (np.ones((2, 3)).tolist(), np.full((2, 3), 2.0).tolist())
        assert unsettled.tolist() == [True, False]
    assert made == [1]
    assert [file.name for file in path.parent.iterdir()] == ["0.npz"], "nothing half written is left"


def test_a_timing_that_breaks_off_leaves_nothing_that_looks_finished(tmp_path):
    def rounds() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _kept(tmp_path / "0.npz", rounds)
    assert list(tmp_path.iterdir()) == []
