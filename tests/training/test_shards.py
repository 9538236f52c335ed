"""Networks divided among processes: which layers can be, and that one process is left as it is."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Signature, TensorSpec

torch = pytest.importorskip("torch")

from trimtab.training.group import ALONE  # noqa: E402 (after the skip)
from trimtab.training.shards import all_placed, all_whole, clip, linear_pairs, own, placed, whole  # noqa: E402 (skip)

nn = torch.nn
ROWS = Signature(
    inputs=(TensorSpec(name="input", dtype="float32", shape=("batch", 8)),),
    outputs=(TensorSpec(name="output", dtype="float32", shape=("batch", 8)),),
)


class Mixed(nn.Module):
    """Two layers with an activation between, beside two whose outputs are also needed elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"wide": nn.Linear(8, 32), "narrow": nn.Linear(32, 8)})
        self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, input: Any) -> Any:
        found = self.block["narrow"](nn.functional.gelu(self.block["wide"](input)))
        middle = self.one(input)
        return found + middle + self.other(middle.relu())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, input: Any) -> Any:
        return self.second(self.first(self.first(input)).relu())


class Undecided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, input: Any) -> Any:
        return self.second(self.first(input)) if input.sum() > 0 else input


def row(*widths: int, between: Any = nn.ReLU) -> Any:
    layers = [nn.Linear(*ends) for ends in itertools.pairwise(widths)]
    return nn.Sequential(*(part for layer in layers for part in (layer, between())))


def test_layers_with_only_activations_between_are_a_pair() -> None:
    assert linear_pairs(Mixed(), ROWS, 2) == [("block.wide", "block.narrow")]
    assert linear_pairs(row(8, 4, 8, 4, 8), ROWS, 2) == [("0", "2"), ("4", "6")]
    assert linear_pairs(row(8, 4, 6, 8), ROWS, 2) == [("0", "2")], "the middle one is in one pair only"
    dropped = nn.Sequential(nn.Linear(8, 4), nn.SiLU(), nn.Dropout(0.5), nn.Linear(4, 8)).train()
    assert linear_pairs(dropped, ROWS, 2) == [("0", "3")]
    assert dropped.training


def test_a_width_that_can_not_be_divided_is_left_whole() -> None:
    assert linear_pairs(row(8, 5, 6, 8), ROWS, 2) == [("2", "4")]
    assert linear_pairs(row(8, 6, 6, 8), ROWS, 3) == [("0", "2")]


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (row(8, 5, 8), "no two linear layers in a row, with only activations between, whose width 2 processes"),
        (row(8, 8, 8, between=lambda: nn.LayerNorm(8)), "no two linear layers in a row"),
        (row(8, 8), "no two linear layers in a row"),
        (Tied(), "no two linear layers in a row"),
        (Undecided(), "torch.export can't trace this module"),
    ],
    ids=["odd", "normalized", "one", "used twice", "not traced"],
)
def test_what_can_not_be_divided_is_refused_with_the_reason(module: Any, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        linear_pairs(module, ROWS, 2)


def test_in_one_process_every_tensor_is_whole_already() -> None:
    tensor = torch.randn(3, 4)
    assert whole(tensor) is tensor is own(tensor)
    assert all_whole({"a": tensor}, ALONE) == {"a": tensor}


def test_a_tensor_is_placed_as_another_is_laid_out() -> None:
    images = torch.randn(2, 3, 4, 4)
    like = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    found = placed(images, like)
    assert torch.equal(found, images)
    assert found.stride() == like.stride()
    assert torch.equal(all_placed({"a": images, "b": images}, {"a": like})["a"], images)
    assert set(all_placed({"a": images, "b": images}, {"a": like, "c": like})) == {"a"}


def test_gradients_are_clipped_as_pytorch_does() -> None:
    slopes = [torch.randn(3, 4), torch.randn(5)]
    one, other = ([nn.Parameter(torch.zeros_like(each)) for each in slopes] for _ in range(2))
    for weights in (one, other):
        for weight, slope in zip(weights, slopes, strict=True):
            weight.grad = slope.clone()
    clip([*one, nn.Parameter(torch.zeros(2))], 0.5, ALONE)
    nn.utils.clip_grad_norm_(other, 0.5)
    assert all(torch.equal(here.grad, there.grad) for here, there in zip(one, other, strict=True))
    assert float(nn.utils.get_total_norm([weight.grad for weight in one])) == pytest.approx(0.5, rel=1e-4)
