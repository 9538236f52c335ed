from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Split, Step, Task, Workload
from trimtab.meters.feed import timing_inputs, timing_split

ITEMS = np.arange(15, dtype=np.float32).reshape(5, 3)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("certify", "train", "calibrate", "select"), "select"),
        (("certify", "train", "calibrate"), "calibrate"),
        (("certify", "train"), "train"),
        (("certify",), None),
        ((), None),
    ],
)
def test_items_come_from_what_may_be_looked_at_never_from_certify(split: Any, names: Any, expected: str | None) -> None:
    task = Task(splits=tuple(split(ITEMS, name=name) for name in names))
    found = timing_split(task)
    assert (found.name if found else None) == expected


def test_a_batch_larger_than_the_split_starts_again(fakes: Any, timed_task: Task) -> None:
    made = timing_inputs(fakes.variant(), timed_task, Workload(batch=7))["x"]
    np.testing.assert_array_equal(made, np.concatenate([ITEMS, ITEMS[:2]]))


def test_a_variant_that_prepares_by_itself_is_fed_raw_items(fakes: Any, timed_task: Task) -> None:
    step = Step(technique="scale", options=(("divisor", 2.0),))
    task, variant = replace(timed_task, preprocessing=(step,)), fakes.variant()
    np.testing.assert_array_equal(timing_inputs(variant, task, Workload(batch=5))["x"], ITEMS / 2)
    absorbed = replace(variant, absorbed=(step,))
    np.testing.assert_array_equal(timing_inputs(absorbed, task, Workload(batch=5))["x"], ITEMS)


def test_a_length_that_was_asked_for_is_made_up_whatever_the_items_are(fakes: Any, timed_task: Task) -> None:
    variant = fakes.variant()
    free = replace(variant.model.signature.inputs[0], shape=("N", "T"))
    model = replace(variant.model, signature=replace(variant.model.signature, inputs=(free,)))
    workload = Workload(batch=2, lengths=(("T", 9),))
    made = timing_inputs(replace(variant, model=model), timed_task, workload)["x"]
    assert made.shape == (2, 9)
    np.testing.assert_array_equal(made, timing_inputs(replace(variant, model=model), timed_task, workload)["x"])


def test_a_fixed_batch_must_be_the_one_that_is_timed(fakes: Any, split: Callable[..., Split]) -> None:
    task = Task(splits=(split(ITEMS),))
    assert len(timing_inputs(fakes.variant(batch=4), task, Workload(batch=4))["x"]) == 4
    with pytest.raises(BadInput, match=r"4 items per call, no more and no less: give --batch 4"):
        timing_inputs(fakes.variant(batch=4), task, Workload(batch=2))
