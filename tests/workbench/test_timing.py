"""The arithmetic of final timings, on times that were written down; `test_compare.py` times real processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.core.values import Model, Settings, Signature, Variant
from trimtab.stats.ratios import ratio
from trimtab.workbench.timing import Timing, TimingPlan, _kept, time_finally

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


def test_what_was_timed_before_is_read_and_not_made_again(tmp_path):
    made: list[int] = []

    def rounds() -> tuple[np.ndarray, np.ndarray]:
        made.append(1)
        return np.ones((2, 3)), np.full((2, 3), 2.0)

    path = tmp_path / "deep" / "0.npz"
    for _ in range(2):
        wall, cpu = _kept(path, rounds)
        assert (wall.tolist(), cpu.tolist()) == (np.ones((2, 3)).tolist(), np.full((2, 3), 2.0).tolist())
    assert made == [1]
    assert [file.name for file in path.parent.iterdir()] == ["0.npz"], "nothing half written is left"


def test_a_timing_that_breaks_off_leaves_nothing_that_looks_finished(tmp_path):
    def rounds() -> tuple[np.ndarray, np.ndarray]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _kept(tmp_path / "0.npz", rounds)
    assert list(tmp_path.iterdir()) == []
