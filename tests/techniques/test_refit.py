"""Refitting: what is left of a network answers as the whole did, wherever that is possible."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 (after the skip)

from trimtab.core.values import Signature, TensorSpec  # noqa: E402
from trimtab.techniques.refit import chained, narrowed, refitted, survivors  # noqa: E402


def signature(*shape: int) -> Signature:
    spec = TensorSpec(name="input", dtype="float32", shape=("n", *shape))
    return Signature(inputs=(spec,), outputs=(TensorSpec(name="output", dtype="float32", shape=("n", 3)),))


def rows(*shape: int, items: int = 400) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"input": rng.normal(size=(items // 4, *shape)).astype(np.float32)} for _ in range(4)]


def fewer(module: Any, layer: str, after: str, kept: list[int]) -> Any:
    """A copy whose layer has only some outputs, and the layer after it only those inputs."""
    made = copy.deepcopy(module)
    one, other = made.get_submodule(layer), made.get_submodule(after)
    one.weight, one.bias = nn.Parameter(one.weight[kept]), nn.Parameter(one.bias[kept])
    other.weight = nn.Parameter(other.weight[:, kept])
    return made


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, input: Any) -> Any:
        return self.two(self.one(input).relu())


class Convolutions(nn.Module):
    def __init__(self, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 6, 3, padding=1)
        self.two = nn.Conv2d(6, 3, 3, padding=1, stride=stride, bias=bias)

    def forward(self, input: Any) -> Any:
        return self.two(self.one(input).relu()).mean((2, 3))


def twins(layer: Any, first: int, second: int) -> None:
    """Let one output of a layer be another one over again."""
    with torch.no_grad():
        layer.weight[second], layer.bias[second] = layer.weight[first], layer.bias[first]


def apart(one: Any, other: Any, given: list[dict[str, np.ndarray]]) -> float:
    x = torch.tensor(given[0]["input"])
    with torch.no_grad():
        return float((one(x) - other(x)).abs().max())


SECOND = {"two": ("two", None)}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_a_channel_that_another_one_repeats_is_not_missed(stride: int, bias: bool) -> None:
    torch.manual_seed(0)
    whole, kept = Convolutions(stride, bias), [0, 1, 2, 3, 4]
    twins(whole.one, 2, 5)
    pruned, given = fewer(whole, "one", "two", kept), rows(2, 8, 8)
    before = apart(whole, pruned, given)
    assert refitted(whole, pruned, SECOND, signature(2, 8, 8), given) == 1
    assert apart(whole, pruned, given) < 0.02 * before


def test_a_neuron_that_another_one_repeats_is_not_missed() -> None:
    torch.manual_seed(0)
    whole, kept = Perceptron(), [0, 1, 2, 3, 4, 5, 6]
    twins(whole.one, 0, 7)
    pruned, given = fewer(whole, "one", "two", kept), rows(6)
    before = apart(whole, pruned, given)
    assert refitted(whole, pruned, SECOND, signature(6), given) == 1
    assert apart(whole, pruned, given) < 0.1 * before


def test_what_is_left_is_nearer_to_the_whole_also_where_nothing_repeats() -> None:
    torch.manual_seed(1)
    whole, kept = Perceptron(), [0, 2, 3, 5, 6]
    pruned, given = fewer(whole, "one", "two", kept), rows(6)
    x = torch.tensor(given[0]["input"])
    off = [(whole(x) - pruned(x)).square().mean().item()]
    refitted(whole, pruned, SECOND, signature(6), given)
    off.append((whole(x) - pruned(x)).square().mean().item())
    assert off[1] < 0.6 * off[0]


def test_layers_that_lost_no_input_keep_their_weights_and_the_whole_is_left_alone() -> None:
    torch.manual_seed(0)
    whole, kept = Perceptron(), [0, 1, 2, 3]
    before = copy.deepcopy(whole.state_dict())
    pruned = fewer(whole, "one", "two", kept)
    first = pruned.one.weight.clone()
    refitted(whole, pruned, SECOND, signature(6), rows(6))
    assert torch.equal(pruned.one.weight, first)
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())


def test_layers_that_lost_inputs_are_found_with_the_outputs_that_stayed() -> None:
    whole, every = Perceptron(), {"one": torch.arange(8), "two": torch.arange(3)}
    found = narrowed(whole, fewer(whole, "one", "two", [1, 2]), every)
    assert list(found) == ["two"]
    assert found["two"][1].tolist() == [0, 1, 2]
    assert narrowed(whole, copy.deepcopy(whole), every) == {}


def test_only_the_outputs_that_stayed_are_wanted() -> None:
    torch.manual_seed(0)
    whole = Perceptron()
    pruned = fewer(whole, "one", "two", [0, 1, 2, 3, 4, 5])
    pruned.two.weight, pruned.two.bias = nn.Parameter(pruned.two.weight[[2, 0]]), nn.Parameter(pruned.two.bias[[2, 0]])
    given = rows(6)
    x = torch.tensor(given[0]["input"])
    off = [(whole(x)[:, [2, 0]] - pruned(x)).square().mean().item()]
    assert refitted(whole, pruned, {"two": ("two", torch.tensor([2, 0]))}, signature(6), given) == 1
    off.append((whole(x)[:, [2, 0]] - pruned(x)).square().mean().item())
    assert off[1] < off[0]


def test_the_last_of_a_chain_makes_up_for_what_the_chain_lost() -> None:
    torch.manual_seed(0)
    whole, given = Convolutions(), rows(2, 8, 8)
    made = copy.deepcopy(whole)
    made.two = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.Conv2d(6, 3, 1))
    before = apart(whole, made, given)
    targets = chained(made, ["two"])
    assert targets == {"two.1": ("two", None)}
    assert refitted(whole, made, targets, signature(2, 8, 8), given) == 1
    assert apart(whole, made, given) < before


def test_a_chain_that_ends_in_groups_is_left_alone() -> None:
    made = Convolutions()
    made.two = nn.Sequential(nn.Conv2d(6, 6, 1), nn.Conv2d(6, 3, 3, padding=1, groups=3))
    assert refitted(Convolutions(), made, chained(made, ["two"]), signature(2, 8, 8), rows(2, 8, 8)) == 0


def test_it_is_the_same_every_time() -> None:
    torch.manual_seed(0)
    whole, kept = Convolutions(), [0, 2, 4]
    made = [fewer(whole, "one", "two", kept) for _ in range(2)]
    for each in made:
        refitted(whole, each, SECOND, signature(2, 8, 8), rows(2, 8, 8))
    assert torch.equal(made[0].two.weight, made[1].two.weight)


def test_without_items_nothing_changes() -> None:
    whole = Perceptron()
    pruned = fewer(whole, "one", "two", [0, 1])
    assert refitted(whole, pruned, SECOND, signature(6), []) == 0


def test_answers_that_are_no_numbers_change_nothing() -> None:
    whole = Perceptron()
    pruned = fewer(whole, "one", "two", [0, 1])
    weight = pruned.two.weight.clone()
    given = [{"input": np.full((20, 6), np.inf, dtype=np.float32)}]
    assert refitted(whole, pruned, SECOND, signature(6), given) == 0
    assert torch.equal(pruned.two.weight, weight)


def test_survivors_are_told_by_their_numbers() -> None:
    whole = Convolutions()
    found = survivors(whole, lambda marked: fewer(marked, "one", "two", [1, 4]))
    assert found["one"].tolist() == [1, 4]
    assert found["two"].tolist() == [0, 1, 2]
    assert survivors(whole, lambda marked: None) == {}
