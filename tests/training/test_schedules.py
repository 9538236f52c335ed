"""Learning rates against PyTorch's own schedulers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.training.recipe import SCHEDULES, Recipe
from trimtab.training.schedules import share_of_rate

STEPS = 200
"""Steps of the scheduler; a fit of ten epochs is at `10 * step / STEPS` epochs then."""


def shares(recipe: Recipe, last: int = STEPS) -> np.ndarray:
    return np.array([share_of_rate(recipe, recipe.epochs * step / last) for step in range(last + 1)])


def rates(make: Callable[[Any, Any], Any], steps: int) -> np.ndarray:
    """Return the learning rate of a scheduler of PyTorch before each of its steps, as a share of 1."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    found = [optimizer.param_groups[0]["lr"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about optimizers that take no step
        for _ in range(steps):
            scheduler.step()
            found.append(optimizer.param_groups[0]["lr"])
    return np.array(found)


def test_cosine_is_that_of_pytorch() -> None:
    wanted = rates(lambda library, optimizer: library.CosineAnnealingLR(optimizer, T_max=STEPS), STEPS)
    np.testing.assert_allclose(shares(Recipe(schedule="cosine", warmup=0)), wanted, atol=1e-9)


def test_one_cycle_is_that_of_pytorch_and_has_its_own_warm_up() -> None:
    rise = (0.3 * STEPS + 1) / (STEPS + 1)  # PyTorch counts its last step, and ends the rise one step before its share
    wanted = rates(
        lambda library, optimizer: library.OneCycleLR(
            optimizer, max_lr=1.0, total_steps=STEPS + 1, pct_start=rise, cycle_momentum=False
        ),
        STEPS,
    )
    np.testing.assert_allclose(shares(Recipe(schedule="one-cycle", warmup=3)), wanted, atol=1e-9)


def test_step_divides_by_ten_at_the_half_and_at_three_quarters() -> None:
    recipe = Recipe(schedule="step", warmup=0, epochs=8)
    found = [share_of_rate(recipe, epoch) for epoch in (0, 3.99, 4, 5.99, 6, 8)]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_constant_stays() -> None:
    assert set(shares(Recipe(schedule="constant", warmup=0))) == {1.0}


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_the_warm_up_rises_linearly_from_zero(schedule: str) -> None:
    recipe = Recipe(schedule=schedule, warmup=2, epochs=10)
    assert [share_of_rate(recipe, epoch) for epoch in (0, 0.5, 1, 2)] == pytest.approx([0, 0.25, 0.5, 1])


def test_the_schedule_has_the_rest_of_the_fit() -> None:
    recipe = Recipe(schedule="cosine", warmup=2, epochs=10)
    assert share_of_rate(recipe, 6) == pytest.approx(0.5)
    assert share_of_rate(recipe, 10) == pytest.approx(0)


@given(
    schedule=st.sampled_from(SCHEDULES),
    epochs=st.integers(1, 50),
    warmup=st.floats(0, 60),
    at=st.floats(0, 1.2),
)
def test_never_above_the_highest_nor_below_nothing(schedule: str, epochs: int, warmup: float, at: float) -> None:
    recipe = Recipe(schedule=schedule, epochs=epochs, warmup=warmup)
    assert 0 <= share_of_rate(recipe, at * epochs) <= 1


@given(schedule=st.sampled_from(["cosine", "step", "constant"]), epochs=st.integers(1, 50), share=st.floats(0.01, 1))
def test_continuous_at_the_end_of_the_warm_up(schedule: str, epochs: int, share: float) -> None:
    recipe = Recipe(schedule=schedule, epochs=epochs, warmup=share * epochs)
    before, after = (share_of_rate(recipe, recipe.warmup * (1 + side)) for side in (-1e-9, 0))
    assert before == pytest.approx(after, abs=1e-6)
    assert after == pytest.approx(1)
