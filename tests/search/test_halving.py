from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.search.halving import STEP, Candidate, Halving, rungs_of


def halving(*candidates: Candidate, allowed: float = 0.01, rungs: tuple[float, ...] = (1, 3, 9)) -> Halving:
    made = Halving(allowed, rungs)
    for each in candidates:
        made.add(each)
    return made


def candidate(name: str, time: float = 0.5, work: float = 0.5, epoch_s: float = 10.0) -> Candidate:
    return Candidate(name=name, time=time, work=work, epoch_s=epoch_s)


def test_nothing_is_trained_that_is_no_faster_than_the_best() -> None:
    made = halving(candidate("slower", time=0.6), candidate("as fast", time=0.5))
    assert made.next(best=0.5, left_s=1e6) is None


def test_nothing_is_trained_that_takes_longer_than_is_left() -> None:
    made = halving(candidate("a", epoch_s=10), rungs=(2, 6))
    assert made.next(1.0, left_s=19) is None
    job = made.next(1.0, left_s=20)
    assert job is not None and (job.name, job.rung, job.seconds) == ("a", 0, 80)


def test_of_equal_candidates_the_faster_is_trained_first() -> None:
    made = halving(candidate("fast", time=0.3), candidate("slow", time=0.5))
    job = made.next(1.0, 1e6)
    assert job is not None and job.name == "fast"
    assert job.gain == pytest.approx(-math.log(0.3))


def test_of_equal_candidates_the_cheaper_is_trained_first() -> None:
    made = halving(candidate("dear", epoch_s=30), candidate("cheap", epoch_s=10))
    job = made.next(1.0, 1e6)
    assert job is not None and job.name == "cheap"


def test_a_candidate_that_lost_little_climbs_before_one_that_lost_much() -> None:
    made = halving(candidate("good"), candidate("bad"))
    made.told("good", 0.01)
    made.told("bad", 0.2)
    job = made.next(1.0, 1e6)
    assert job is not None and (job.name, job.rung) == ("good", 1)
    assert job.chance > 0.5


def test_a_hopeless_candidate_waits_for_a_new_one() -> None:
    made = halving(candidate("hopeless"), candidate("new"))
    made.told("hopeless", 0.5)
    job = made.next(1.0, 1e6)
    assert job is not None and (job.name, job.rung) == ("new", 0)


def test_a_candidate_that_was_dropped_or_is_at_the_top_is_trained_no_more() -> None:
    made = halving(candidate("a"), candidate("b"))
    made.drop("b")
    for _ in range(3):
        job = made.next(1.0, 1e6)
        assert job is not None and job.name == "a"
        made.told("a", 0.001)
    assert made.next(1.0, 1e6) is None


def test_larger_candidates_are_expected_to_lose_less() -> None:
    made = halving(candidate("small", work=0.1), candidate("large", work=0.9))
    assert made.final_loss("small") > made.final_loss("large")


def test_a_candidate_that_lost_little_before_any_training_is_expected_to_lose_less() -> None:
    made = halving(candidate("refitted"), candidate("broken"), candidate("unknown"))
    made.candidates["refitted"].before, made.candidates["broken"].before = 0.03, 0.7
    assert made.final_loss("refitted") < made.final_loss("broken") == made.final_loss("unknown")
    job = made.next(1.0, 1e6)
    assert job is not None and job.name == "refitted"


def test_what_small_candidates_were_seen_to_lose_changes_what_others_are_expected_to() -> None:
    seen, unseen = (
        halving(candidate("new", work=0.15), *(candidate(f"seen {work}", work=work) for work in (0.1, 0.2, 0.3)))
        for _ in range(2)
    )
    for name in list(seen.candidates)[1:]:
        seen.told(name, 0.0)
    assert seen.final_loss("new") < unseen.final_loss("new")


def test_rungs_that_bring_more_than_expected_raise_hope_for_the_next() -> None:
    first, second = candidate("first"), candidate("second")
    fell, stayed = halving(first, second), halving(candidate("first"), candidate("second"))
    for made, after in ((fell, 0.005), (stayed, 0.05)):
        made.told("first", 0.05)
        made.told("first", after)
        made.told("second", 0.05)
    assert fell.final_loss("second") < stayed.final_loss("second")


def test_a_first_rung_far_from_the_goal_is_no_reason_to_give_up_before_anybody_climbed() -> None:
    made = halving(candidate("a"), rungs=(0.2, 0.6, 2, 6))
    made.told("a", 0.08)
    before = made.next(1.0, 1e6)
    assert before is not None and (before.rung, before.chance > 0.3) == (1, True)
    for loss in (0.079, 0.078):  # two climbs that brought nothing
        made.told("a", loss)
    after = made.next(1.0, 1e6)
    assert after is not None and after.chance < 0.05


def test_rungs_that_were_climbed_stay_and_those_above_may_be_planned_anew() -> None:
    made = halving(candidate("a"), rungs=(0.2, 0.6, 2))
    made.extend((0.5, 2, 6))
    assert made.rungs == (0.5, 2, 6)
    made.told("a", 0.05)
    made.extend((0.3, 0.9, 3))
    assert made.rungs == (0.5, 0.9, 3)


@given(
    epoch_s=st.floats(0.1, 1e4),
    seconds=st.floats(10, 1e5),
)
def test_rungs_rise_by_the_same_factor_and_the_top_one_fits(epoch_s: float, seconds: float) -> None:
    rungs = rungs_of(epoch_s, seconds)
    assert all(each > 0 for each in rungs)
    assert all(1.5 <= after / before <= 2 * STEP for before, after in itertools.pairwise(rungs))
    assert all(each == round(each) for each in rungs if each > 1)
    assert len(rungs) == 1 or rungs[-1] * epoch_s <= 0.6 * seconds


def test_why_a_job_comes_next_is_said_in_words() -> None:
    job = halving(candidate("a", time=0.5)).next(1.0, 1e6)
    assert job is not None
    assert job.words().startswith("50% less time than the best so far, a chance of ")
    assert job.words().endswith("about 130 s of training left")
