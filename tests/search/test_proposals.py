from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from trimtab.core import plugins
from trimtab.core.values import Step
from trimtab.search.proposals import Proposals

pytest.importorskip("optuna")


def first(made: Proposals, count: int) -> list[Step]:
    return [step for step in islice(iter(made.next, None), count) if step is not None]


def test_every_proposal_is_another_step_inside_its_ranges(tmp_path: Path) -> None:
    steps = first(Proposals(tmp_path / "study.log", ["prune", "factorize"], seed=0), 25)
    assert len(set(steps)) == len(steps) == 25
    assert {step.technique for step in steps} == {"prune", "factorize"}
    for step in steps:
        spans, given = plugins.ranges("techniques", step.technique), dict(step.options)
        assert all(span.low <= given.get(name, span.low) <= span.high for name, span in spans.items())
        plugins.make("techniques", step.technique, step.options)


def test_a_study_that_goes_on_proposes_the_same_again_before_anything_new(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    before = Proposals(path, ["prune"], seed=0)
    steps = first(before, 6)
    for step in steps[:4]:
        before.tell(step, 0.5, 0.02)
    again = Proposals(path, ["prune"], seed=0)
    assert first(again, 6) == steps
    again.tell(steps[0], 0.4, 0.01)  # told before: no harm
    following = again.next()
    assert following is not None and following not in steps


def test_two_processes_that_share_a_study_learn_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    one, other = Proposals(path, ["prune"], seed=0), Proposals(path, ["prune"], seed=1)
    mine = first(one, 3)
    assert other.next() not in mine or len(first(other, 3)) == 3
    assert set(first(Proposals(path, ["prune"], seed=2), 4)) > set(mine[:1])


def test_proposals_come_to_lie_where_time_and_loss_are_small(tmp_path: Path) -> None:
    made = Proposals(tmp_path / "study.log", ["prune"], seed=0)
    amounts = []
    for _ in range(40):
        (step,) = first(made, 1)
        amount = float(dict(step.options).get("amount", 0.5) or 0.5)  # type: ignore[arg-type]
        amounts.append(amount)
        made.tell(step, 1.0 + abs(amount - 0.3), abs(amount - 0.3))
    near = [abs(amount - 0.3) <= 0.15 for amount in amounts]
    assert np.mean(near[20:]) > 0.6, "three in ten are by chance"


def test_there_is_an_end_of_what_can_be_proposed(tmp_path: Path) -> None:
    steps = list(iter(Proposals(tmp_path / "study.log", ["factorize"], seed=0).next, None))
    span = plugins.ranges("techniques", "factorize")["energy"]
    assert 1 < len(steps) <= round((span.high - span.low) / span.step) + 1


def test_a_proposal_that_came_to_nothing_or_is_not_finite_is_told_as_failed(tmp_path: Path) -> None:
    made = Proposals(tmp_path / "study.log", ["prune"], seed=0)
    steps = first(made, 2)
    made.fail(steps[0])
    made.tell(steps[1], float("nan"), 0.1)
    assert first(Proposals(tmp_path / "study.log", ["prune"], seed=0), 2) == steps


def test_what_nothing_comes_of_is_proposed_less(tmp_path: Path) -> None:
    made = Proposals(tmp_path / "study.log", ["prune", "drop-layers"], seed=0)
    drawn = []
    for step in first(made, 30):
        drawn.append(step.technique)
        if step.technique == "drop-layers":
            made.fail(step)
        else:
            made.tell(step, 0.5, 0.01)
    assert drawn[10:].count("drop-layers") < drawn[10:].count("prune")
