"""What a step holds, against counts by hand: of a perceptron every tensor is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.values import Model, Task
from trimtab.training.memory import Measure, Phase, Steps, measures, step_memory
from trimtab.training.recipe import Recipe
from trimtab.workbench.opening import open_model

torch = pytest.importorskip("torch")

NET = """
import torch
from torch import nn

def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

def blocks():
    parts = [nn.Sequential(nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 64), nn.Sigmoid()) for _ in range(4)]
    return nn.Sequential(nn.Flatten(), *parts, nn.Linear(64, 10))

example_inputs = {"input": torch.zeros(1, 1, 8, 8)}
"""
WEIGHTS = 4 * (64 * 32 + 32 + 32 * 10 + 10)
ITEMS = 16
SAVED = 4 * (ITEMS * 32 + ITEMS * 10 + 1)
"""What the backward pass of the perceptron takes: the hidden layer's output (of both layers around it, once), the
logarithms of the shares, and the sum of the items' weights. The images are the batch's own."""


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str], Model]:
    torch.set_num_threads(1)
    (tmp_path / "net.py").write_text(NET)
    return lambda name: open_model(f"{tmp_path / 'net.py'}:{name}", tmp_path / name, None).model


@pytest.fixture
def phases(model: Callable[[str], Model], few: Task) -> Callable[..., dict[str, Phase]]:
    """Return the phases of a step by name; keywords are of the recipe."""

    def read(name: str = "mlp", kept: bool = False, **recipe: Any) -> dict[str, Phase]:
        measure = Measure(name="this", recipe=Recipe(**{"batch": ITEMS, **recipe}), kept=kept)
        found, _ = Steps(model(name), few, measure).counted()
        return {phase.name: phase for phase in found}

    return read


def test_a_step_holds_what_can_be_counted_by_hand(phases: Callable[..., dict[str, Phase]]) -> None:
    adam = 2 * WEIGHTS + 4 * 4  # two averages of every weight, and the number of steps of each of four tensors
    nothing = {"parameters": WEIGHTS, "optimizer": adam, "activations": 0}
    assert tuple(phases().values()) == (
        Phase(name="before", **nothing, gradients=0),
        Phase(name="forward", **{**nothing, "activations": SAVED}, gradients=0),
        Phase(name="backward", **nothing, gradients=WEIGHTS),
        Phase(name="optimizer step", **nothing, gradients=WEIGHTS),
        Phase(name="zero_grad", **nothing, gradients=0),
    )


def test_an_optimizer_holds_what_it_needs(phases: Callable[..., dict[str, Phase]]) -> None:
    assert phases(optimizer="sgd")["before"].optimizer == WEIGHTS, "momentum"
    assert phases(optimizer="sgd", momentum=0.0)["before"].optimizer == 0
    averaged = phases(optimizer="sgd", momentum=0.0, ema=0.9)["before"].optimizer
    assert averaged == WEIGHTS + 8, "the moving average, and how many steps it has seen"


def test_gradients_that_are_only_zeroed_stay(phases: Callable[..., dict[str, Phase]]) -> None:
    assert {phase.gradients for phase in phases(kept=True).values()} == {WEIGHTS}


def test_a_batch_in_parts_keeps_a_part(phases: Callable[..., dict[str, Phase]]) -> None:
    part = phases(accumulate=4)["forward"]
    assert part.activations == 4 * (ITEMS // 4 * 42 + 1)
    assert part.gradients == WEIGHTS, "of the parts before"


def test_checkpointed_blocks_keep_their_inputs_alone(phases: Callable[..., dict[str, Phase]]) -> None:
    whole, less = (phases("blocks", checkpointing=each)["forward"].activations for each in (False, True))
    layer, rest = 4 * ITEMS * 64, 4 * (ITEMS * 10 + 1)
    assert whole == 8 * layer + rest
    assert less == 4 * layer + rest, "the input of the first one is the batch"


def test_bf16_halves_what_layers_save(phases: Callable[..., dict[str, Phase]]) -> None:
    narrow = phases("blocks", precision="bf16")["forward"].activations
    weights = 2 * (7 * 64 * 64 + 64 * 10)  # casts of all but the first: nobody asks for the gradient of the images
    assert narrow == 2 * ITEMS * 64 * 9 + weights + 4 * (ITEMS * 10 + 1), "and the cast of the batch"


def test_the_peak_is_at_least_every_phase_with_the_batch(model: Callable[[str], Model], few: Task) -> None:
    found, peak = Steps(model("mlp"), few, Measure(name="this", recipe=Recipe(batch=ITEMS))).counted()
    batch = ITEMS * (64 * 4 + 8)
    assert max(phase.total for phase in found) + batch <= peak < 8 * WEIGHTS + SAVED + batch


def test_every_measure_is_turned_once() -> None:
    asked, *others = measures(Recipe(batch=32, compile=True))
    assert asked == Measure(name="as asked", recipe=Recipe(batch=32))
    assert {other.name: (dict(other.recipe.changed()), other.kept) for other in others} == {
        "activation checkpointing": ({"batch": 32, "checkpointing": True}, False),
        "bf16 autocast": ({"batch": 32, "precision": "bf16"}, False),
        "a batch in 4 parts": ({"batch": 32, "accumulate": 4}, False),
        "gradients zeroed, not freed": ({"batch": 32}, True),
    }
    has = Recipe(batch=32, checkpointing=True, precision="bf16", accumulate=2)
    assert [each.name for each in measures(has)[1:4]] == [
        "without activation checkpointing", "fp32 instead of bf16", "a batch in one part"
    ]  # fmt: skip
    assert len(measures(Recipe(batch=7))) == 4, "seven items can't be divided"
    assert [each.recipe.accumulate for each in measures(Recipe(batch=6))] == [1, 1, 1, 3, 1]


def test_a_step_is_read_in_a_process_of_its_own(model: Callable[[str], Model], few: Task) -> None:
    recipe = Recipe(batch=ITEMS)
    found = step_memory(model("mlp"), few, Measure(name="as asked", recipe=recipe))
    phases, peak = Steps(model("mlp"), few, Measure(name="as asked", recipe=recipe)).counted()
    assert (found.phases, found.peak, found.reason) == (phases, peak, "")
    assert found.resident is not None
    assert 0 <= found.resident < 1 << 30


def test_what_can_not_be_measured_says_why(model: Callable[[str], Model], few: Task) -> None:
    measure = Measure(name="checkpointing", recipe=Recipe(batch=ITEMS, checkpointing=True))
    found = step_memory(model("mlp"), few, measure)
    assert (found.phases, found.peak) == ((), None)
    assert "the module has no blocks" in found.reason
