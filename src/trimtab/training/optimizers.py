"""Optimizers by name, and the switch from Adam to SGD in the middle of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.core.errors import BadInput
from trimtab.formats.torch_tracing import import_torch
from trimtab.training.group import ALONE, Group
from trimtab.training.recipe import LEARNING_RATES, Recipe
from trimtab.training.shards import all_whole, placed

_FLAT_EPOCHS = 3
"""The validation curve is flat when none of the last three epochs was better than the best before them."""


class Optimizer:
    """An optimizer with its learning rate, and the one that takes its place where the recipe switches."""

    def __init__(self, module: Any, recipe: Recipe, numbers: Mapping[str, int] | None = None) -> None:
        """Make the optimizer of a module, or of a stage: then `numbers` says which its weights are in the whole."""
        self._module, self._recipe = module, recipe
        self._numbers = [number if numbers is None else numbers[name] for name, number in numbers_of(module).items()]
        self.name = "adam" if recipe.optimizer == "adam-then-sgd" else recipe.optimizer
        self._inner = make_optimizer(module, self.name, recipe)

    @property
    def rate(self) -> float:
        """The highest learning rate of the optimizer that is at work."""
        given = self._recipe.sgd_lr if self.name != self._recipe.optimizer and self.name == "sgd" else self._recipe.lr
        return LEARNING_RATES[self.name] if given is None else given

    def step(self, share: float) -> None:
        """Change the weights by their gradients, at that share of the learning rate."""
        for group in self._inner.param_groups:
            group["lr"] = self.rate * share
        self._inner.step()

    def clear(self) -> None:
        """Free the gradients."""
        self._inner.zero_grad(set_to_none=True)

    def due(self, steps: int, epochs: int, scores: Sequence[float]) -> bool:
        """Say whether SGD takes over now, after so many steps and whole epochs with these validation scores."""
        if self._recipe.optimizer != "adam-then-sgd" or self.name == "sgd":
            return False
        at = self._recipe.switches_at
        if at is None:
            return is_flat(scores)
        return (steps if at[0] == "step" else epochs) >= at[1]

    def switch(self) -> None:
        """Let SGD take over; it starts with nothing of Adam's state (Keskar and Socher 2017)."""
        self.name = "sgd"
        self._inner = make_optimizer(self._module, self.name, self._recipe)

    def state(self, group: Group = ALONE) -> dict[str, Any]:
        """Return its state_dict, whole, to the first of the processes that hold parts of it."""
        state: dict[str, Any] = self._inner.state_dict()
        held = {f"{self._numbers[i]}/{name}": x for i, each in state["state"].items() for name, x in each.items()}
        found: dict[int, dict[str, Any]] = {}
        for key, tensor in all_whole(held, group).items():
            number, _, name = key.partition("/")
            found.setdefault(int(number), {})[name] = tensor
        return {**state, "state": found}

    def restore(self, switched: bool, state: Mapping[str, Any]) -> None:
        """Go on from a state_dict, of SGD where it has taken over."""
        if switched and self.name != "sgd":
            self.switch()
        held = {i: state["state"][number] for i, number in enumerate(self._numbers) if number in state["state"]}
        self._inner.load_state_dict({"state": held, "param_groups": self._inner.state_dict()["param_groups"]})
        for weight, kept in self._inner.state.items():
            for name, each in kept.items():
                if each.shape == weight.shape:  # laid out in memory as it was, or the last bits may differ
                    kept[name] = placed(each, weight)


def is_flat(scores: Sequence[float]) -> bool:
    """Say whether none of the last three scores (higher is better) is above the best one before them."""
    before, last = scores[:-_FLAT_EPOCHS], scores[-_FLAT_EPOCHS:]
    return bool(before) and max(last) <= max(before)


def make_optimizer(module: Any, name: str, recipe: Recipe) -> Any:
    """Return the optimizer of torch.optim for the trainable weights of a module."""
    optim = import_torch("training").optim
    groups = [
        {"params": decayed(module), "weight_decay": recipe.weight_decay},
        {"params": undecayed(module), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise BadInput("the network has no weights that could be trained (none requires a gradient); give another one")
    rate = LEARNING_RATES[name]
    if name == "sgd":
        return optim.SGD(groups, lr=rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    if name == "rmsprop":
        return optim.RMSprop(groups, lr=rate, momentum=recipe.momentum)
    return {"adam": optim.Adam, "adamw": optim.AdamW}[name](groups, lr=rate)


def numbers_of(module: Any) -> dict[str, int]:
    """Return the number of every trainable weight in the state of its optimizer, by name."""
    known = {id(weight): name for name, weight in module.named_parameters()}
    return {known[id(weight)]: number for number, weight in enumerate((*decayed(module), *undecayed(module)))}


def decayed(module: Any) -> list[Any]:
    """Return the trainable weights that penalties are for: those with at least two axes."""
    return [weight for weight in module.parameters() if weight.requires_grad and weight.ndim >= 2]


def undecayed(module: Any) -> list[Any]:
    """Return the other trainable weights: biases, and the scales of normalization layers."""
    return [weight for weight in module.parameters() if weight.requires_grad and weight.ndim < 2]
