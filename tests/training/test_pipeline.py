"""Networks cut into stages: where they are cut, and what can't be."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from trimtab.core.errors import BadInput
from trimtab.training.group import Group

torch = pytest.importorskip("torch")

from trimtab.training.network import blocks_of  # noqa: E402 (after the skip)
from trimtab.training.pipeline import stage_of  # noqa: E402 (after the skip)

nn = torch.nn


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        return x + self.layer(x).relu() if isinstance(x, torch.Tensor) else x


class Net(nn.Module):
    """A stem, blocks and a head, with a skip over everything in between where one is wanted."""

    def __init__(self, widths: tuple[int, ...] = (8, 8, 8), skip: bool = False, unused: bool = False) -> None:
        super().__init__()
        self.stem = nn.Linear(4, widths[0])
        self.blocks = nn.Sequential(*(Residual(width) for width in widths))
        self.head, self.skip = nn.Linear(widths[-1], 4), skip
        self.scale = nn.Parameter(torch.full((4,), 2.0))
        if unused:
            self.spare = nn.Linear(3, 3)

    def forward(self, input: Any) -> Any:
        out = self.head(self.blocks(self.stem(input).relu())) * self.scale
        return out + input if self.skip else out


def cut(module: Any, size: int = 2) -> list[Any]:
    """Return every process's stage."""
    found = []
    for rank in range(size):
        own = copy.deepcopy(module)
        found.append(stage_of(own, blocks_of(own), Group(rank=rank, size=size, parallel="pipeline")))
    return found


def names(stage: Any) -> set[str]:
    return {name for name, _ in stage.named_parameters()}


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_stages_one_after_the_other_are_the_network(size: int) -> None:
    module, given = Net(), torch.randn(5, 4)
    value = given
    for stage in cut(module, size):
        value = stage(value)
    assert torch.equal(value, module(given))


def test_every_weight_is_in_one_stage_under_its_own_name() -> None:
    module = Net(unused=True)
    stages = cut(module, 3)
    held = [name for stage in stages for name in names(stage)]
    assert sorted(held) == sorted(names(module))
    assert {"spare.weight", "spare.bias"} < names(stages[0]), "what no stage uses is kept with the first"


def test_weights_are_divided_about_evenly() -> None:
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(8)))
    sizes = [sum(weight.numel() for weight in stage.parameters()) for stage in cut(layers, 4)]
    assert sizes == [2 * (16 * 16 + 16)] * 4


def test_what_others_run_takes_no_memory() -> None:
    module = Net()
    stage_of(module, blocks_of(module), Group(rank=1, size=2, parallel="pipeline"))
    assert module.stem.weight.numel() == 0
    assert module.head.weight.numel() == 4 * 8


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, input: Any) -> Any:
        return self.other(self.one(input)) if input.sum() > 0 else input


class Paired(Branching):
    def forward(self, input: Any, more: Any) -> Any:
        return self.other(self.one(input)) + more


class Tied(Branching):
    def forward(self, input: Any) -> Any:
        return self.one(self.other(self.one(input)))


CUT_SHORT = "there are 0 places where nothing but one tensor goes on; use --parallel fsdp"


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Branching(), "the network can't be cut into stages: it can't be traced .*; use --parallel fsdp"),
        (Paired(), "a pipeline takes networks of one input, and this one has 2"),
        (Net(skip=True), CUT_SHORT),
        (Tied(), CUT_SHORT),
        (nn.Linear(4, 4), CUT_SHORT),
    ],
    ids=["not traced", "two inputs", "a skip", "a layer that is used twice", "one layer"],
)
def test_what_can_not_be_cut_is_refused_with_the_reason(module: Any, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        cut(module)
