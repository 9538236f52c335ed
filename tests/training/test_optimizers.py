"""Steps against PyTorch's own optimizers, and the switch from Adam to SGD."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from trimtab.core.errors import BadInput
from trimtab.training.recipe import LEARNING_RATES, Recipe

torch = pytest.importorskip("torch")

from trimtab.training.optimizers import Optimizer, decayed, is_flat, undecayed  # noqa: E402 (after the skip)


def with_gradients(module: Any, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    for weight in module.parameters():
        weight.grad = torch.randn_like(weight)
    return module


def flat(module: Any) -> Any:
    return torch.cat([weight.detach().reshape(-1) for weight in module.parameters()])


REFERENCES = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=1e-3),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-3),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=3e-4, momentum=0.9),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_steps_are_those_of_pytorch_at_the_usual_rate(name: str, conv) -> None:
    ours, theirs = conv(), conv()
    groups = [
        {"params": decayed(theirs), "weight_decay": 0.01},
        {"params": undecayed(theirs), "weight_decay": 0.0},
    ]
    optimizer, reference = Optimizer(ours, Recipe(optimizer=name, weight_decay=0.01)), REFERENCES[name](groups)
    for seed in range(3):
        with_gradients(ours, seed), with_gradients(theirs, seed)
        optimizer.step(1.0)
        reference.step()
    assert torch.equal(flat(ours), flat(theirs))
    assert optimizer.rate == LEARNING_RATES[name]


def test_a_step_of_plain_sgd_is_the_gradient_times_the_rate_times_the_share(mlp) -> None:
    module = with_gradients(mlp())
    before, gradient = flat(module).clone(), torch.cat([weight.grad.reshape(-1) for weight in module.parameters()])
    Optimizer(module, Recipe(optimizer="sgd", lr=0.5, momentum=0.0, weight_decay=0.0)).step(0.1)
    torch.testing.assert_close(flat(module), before - 0.05 * gradient)


def test_biases_and_normalization_do_not_decay(conv) -> None:
    module = conv()
    before = copy.deepcopy(module.state_dict())
    for weight in module.parameters():
        weight.grad = torch.zeros_like(weight)
    Optimizer(module, Recipe(optimizer="sgd", lr=0.5, momentum=0.0, weight_decay=0.1)).step(1.0)
    for name, weight in module.named_parameters():
        torch.testing.assert_close(weight.detach(), before[name] * (0.95 if weight.ndim > 1 else 1.0))


def test_every_trainable_weight_is_in_one_of_the_two_groups(conv) -> None:
    module = conv()
    next(module.parameters()).requires_grad = False
    both = [*decayed(module), *undecayed(module)]
    assert sorted(map(id, both)) == sorted(id(weight) for weight in module.parameters() if weight.requires_grad)


def test_a_network_without_anything_to_learn_is_refused() -> None:
    with pytest.raises(BadInput, match="no weights that could be trained"):
        Optimizer(torch.nn.ReLU(), Recipe())


def test_gradients_are_freed_not_zeroed(mlp) -> None:
    module = with_gradients(mlp())
    Optimizer(module, Recipe()).clear()
    assert all(weight.grad is None for weight in module.parameters())


SWITCHES = [
    ("epoch:2", {"steps": 9, "epochs": 1, "scores": [1.0]}, False),
    ("epoch:2", {"steps": 9, "epochs": 2, "scores": [1.0, 2.0]}, True),
    ("step:10", {"steps": 9, "epochs": 5, "scores": []}, False),
    ("step:10", {"steps": 10, "epochs": 0, "scores": []}, True),
    ("flat", {"steps": 999, "epochs": 4, "scores": [1.0, 2.0, 3.0, 4.0]}, False),
    ("flat", {"steps": 999, "epochs": 4, "scores": [4.0, 1.0, 2.0, 3.0]}, True),
    ("flat", {"steps": 999, "epochs": 4, "scores": []}, False),
]


@pytest.mark.parametrize(("switch", "seen", "expected"), SWITCHES)
def test_the_switch_is_due_at_its_epoch_its_step_or_when_the_curve_is_flat(switch, seen, expected, mlp) -> None:
    assert Optimizer(mlp(), Recipe(optimizer="adam-then-sgd", switch=switch)).due(**seen) is expected
    assert Optimizer(mlp(), Recipe(optimizer="adam", switch=switch)).due(**seen) is False


def test_after_the_switch_it_is_sgd_with_its_own_rate_and_no_memory_of_adam(mlp) -> None:
    module, other = mlp(), mlp()
    optimizer = Optimizer(module, Recipe(optimizer="adam-then-sgd", lr=0.002, sgd_lr=0.1, switch="step:1"))
    assert (optimizer.name, optimizer.rate) == ("adam", 0.002)
    with_gradients(module)
    optimizer.step(1.0)
    optimizer.switch()
    assert (optimizer.name, optimizer.rate) == ("sgd", 0.1)
    assert optimizer.due(99, 99, [1.0] * 9) is False
    other.load_state_dict(module.state_dict())
    plain = Optimizer(other, Recipe(optimizer="sgd", lr=0.1))
    with_gradients(module, 2), with_gradients(other, 2)
    optimizer.step(0.5)
    plain.step(0.5)
    assert torch.equal(flat(module), flat(other))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "adam-then-sgd"])
def test_a_state_goes_on_bit_for_bit(name: str, layout: Any, conv) -> None:
    recipe = Recipe(optimizer=name, switch="step:2")
    module = conv().to(memory_format=layout)
    optimizer = Optimizer(module, recipe)
    for seed in range(3):
        if optimizer.due(seed, 0, []):
            optimizer.switch()
        with_gradients(module, seed)
        optimizer.step(1.0)
    other = conv().to(memory_format=layout)
    other.load_state_dict(module.state_dict())
    later = Optimizer(other, recipe)
    state = copy.deepcopy(optimizer.state())
    for held in state["state"].values():
        held.update({key: value.contiguous() for key, value in held.items()})
    later.restore(optimizer.name == "sgd", state)
    assert later.name == optimizer.name
    for one, its in ((module, optimizer), (other, later)):
        with_gradients(one, 9)
        its.step(0.3)
    assert torch.equal(flat(module), flat(other))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], False),
        ([1, 1, 1], False),
        ([1, 1, 1, 1], True),
        ([1, 2, 3, 4], False),
        ([5, 1, 2, 3], True),
        ([5, 1, 2, 5.1], False),
        ([1, 5, 4, 4, 4], True),
        ([-3, -5, -4, -3], True),
    ],
)
def test_a_curve_is_flat_when_none_of_the_last_three_is_better_than_before(scores, expected) -> None:
    assert is_flat(scores) is expected
