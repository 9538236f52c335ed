"""Recipes side by side, on curves that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.machine import machine
from trimtab.core.values import Run, Trace
from trimtab.training.arms import side_by_side


def run(scores: list[float], seconds: float = 2.0, metric: str = "accuracy") -> Run:
    times = tuple(float(epoch) for epoch in range(1, len(scores) + 1))
    traces = (
        Trace(name=metric, times=times, values=tuple(scores)),
        Trace(name="epoch_cpu_time", times=times, values=(seconds,) * len(scores), unit="s"),
    )
    return Run(
        configuration=(), traces=traces, readings=(), notes=(), model=None, finished=True, checkpoint=Path("c"),
        machine=machine(), time="2026-01-01",
    )  # fmt: skip


def test_the_best_epoch_counts_and_the_first_recipe_is_the_measure() -> None:
    found = side_by_side(
        {"a": (run([0.5, 0.8, 0.7]), run([0.6, 0.7, 0.7])), "b": (run([0.9, 0.8]), run([0.8, 0.85]))},
        "accuracy", None, lower_is_better=False,
    )  # fmt: skip
    first, second = found.arms
    assert first.best == (0.8, 0.7)
    assert first.gain.value == 0.0
    assert second.gain.value == pytest.approx(np.mean([0.9 - 0.8, 0.85 - 0.7]))


def test_an_error_is_best_where_it_is_smallest() -> None:
    found = side_by_side({"a": (run([3.0, 1.0, 2.0], metric="mse"),)}, "mse", 2.5, lower_is_better=True)
    assert found.arms[0].best == (1.0,)
    assert found.arms[0].reached_s == (4.0,)


def test_the_time_to_the_target_is_that_of_whole_epochs_and_its_ratio_is_paired() -> None:
    quick, slow = (run([0.5, 0.9], seconds=1.0), run([0.9, 0.9], seconds=1.0)), (run([0.5, 0.9]), run([0.9, 0.9]))
    found = side_by_side({"slow": slow, "quick": quick}, "accuracy", 0.9, lower_is_better=False)
    assert found.arms[1].reached_s == (2.0, 1.0)
    assert found.arms[1].cost is not None
    assert found.arms[1].cost.value == pytest.approx(0.5)


def test_a_run_that_never_reached_the_target_is_counted_and_gives_no_ratio() -> None:
    found = side_by_side(
        {"a": (run([0.9]), run([0.9])), "b": (run([0.9]), run([0.3]))}, "accuracy", 0.8, lower_is_better=False
    )
    assert found.arms[1].reached_s == (2.0, None)
    assert found.arms[1].cost is None


def test_a_run_without_an_epoch_is_refused() -> None:
    with pytest.raises(BadInput, match="before its first epoch"):
        side_by_side({"a": (run([]),)}, "accuracy", None, lower_is_better=False)
