"""The memory of one training step: which bytes are held after each of its phases, and what each measure saves.

Tensors are counted exactly, by the memory that they lie in: two that share it count once. What a backward pass keeps is
what autograd saves (`torch.autograd.graph.saved_tensors_hooks`). Beside it stands the resident memory of a process of
its own, in which libraries have buffers that no tensor owns.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.core.errors import BadInput, TrimtabError
from trimtab.core.process import Process, peak_bytes
from trimtab.core.values import Machine, Model, Task
from trimtab.data.batches import labels as labels_of
from trimtab.formats.torch_tracing import import_torch, load_live
from trimtab.training.loader import Loader
from trimtab.training.losses import Loss
from trimtab.training.network import Network, tensors_of, told
from trimtab.training.optimizers import Optimizer
from trimtab.training.recipe import Recipe

_STEPS = 3  # the optimizer's state is made in the first
_LABELS = "the labels"  # among the tensors of a batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Bytes of tensors that are held when a part of a step has ended.

    `parameters` are weights and buffers, `optimizer` its state and the moving average of the weights, `activations`
    what is saved for the backward pass and lies in none of the others.
    """

    name: str
    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The bytes of all of them."""
        return self.parameters + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMemory:
    """What one step holds under one recipe, in bytes.

    `peak` is the most in tensors at one moment, the batch and what lives for a moment only among them. `resident` is
    how far steps like this raise the peak resident memory of a process above that before the network was loaded. Where
    the step can't be taken, `reason` says why and there are no phases.
    """

    name: str
    phases: tuple[Phase, ...] = ()
    peak: int | None = None
    resident: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a step holds as the recipe has it, first, and with one measure changed in each of the others."""

    items: int
    steps: tuple[StepMemory, ...]
    machine: Machine
    time: str
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A recipe under a name; `kept` leaves gradients of zero in memory (`zero_grad(set_to_none=False)`)."""

    name: str
    recipe: Recipe
    kept: bool = False


def measures(recipe: Recipe) -> tuple[Measure, ...]:
    """Return the recipe and the same with one measure changed at a time: taken, or left out where it has it already."""
    asked = replace(recipe, compile=False)  # a compiler decides anew for every recipe what it keeps
    parts = next((parts for parts in (4, 3, 2) if asked.batch % parts == 0), 1) if asked.accumulate == 1 else 1
    narrow = "fp32" if asked.precision == "bf16" else "bf16"
    changed = [
        (f"{'without ' * asked.checkpointing}activation checkpointing",
         replace(asked, checkpointing=not asked.checkpointing)),
        ("fp32 instead of bf16" if asked.precision == "bf16" else "bf16 autocast", replace(asked, precision=narrow)),
        (f"a batch in {parts} parts" if parts > 1 else "a batch in one part", replace(asked, accumulate=parts)),
    ]  # fmt: skip
    listed = [Measure(name=name, recipe=other) for name, other in changed if other != asked]
    kept = Measure(name="gradients zeroed, not freed", recipe=asked, kept=True)
    return (Measure(name="as asked", recipe=asked), *listed, kept)


def step_memory(model: Model, task: Task, measure: Measure) -> StepMemory:
    """Return what a step of a recipe holds, read in a process of its own."""
    with Process("trimtab.training.memory:Steps", model, task, measure) as process:
        try:
            resident: int = process.call("resident")
            phases, peak = process.call("counted")
        except TrimtabError as error:
            return StepMemory(name=measure.name, reason=str(error))
    return StepMemory(name=measure.name, phases=phases, peak=peak, resident=resident)


class Steps:
    """Takes steps on the first batch of the train split, in the process that it lives in.

    They are steps of `fit` without augmentation, a teacher and the L1 penalty.
    """

    def __init__(self, model: Model, task: Task, measure: Measure) -> None:
        train = task.split("train")
        if train is None:
            raise BadInput("there are no items to train on: give them with --train, or name some of the data train")
        recipe = replace(measure.recipe, distill=0.0, augment="none", l1=0.0)
        batch = next(Loader(task, train, recipe.batch, recipe.seed).epoch(0), None)
        if batch is None or batch.labels is None:
            raise BadInput("a step needs a batch of items with labels; give more items, or labels")
        self._torch, self._recipe, self._kept = import_torch("training"), recipe, measure.kept
        _warmed(self._torch, recipe)
        before = peak_bytes()
        self._network = Network(load_live(model), model.signature, task, recipe)
        self._network.module.train()
        self._loss = Loss(task, recipe, labels_of(train))
        self._optimizer = Optimizer(self._network.module, recipe)
        self._batch = tensors_of({**batch.feed, _LABELS: np.ascontiguousarray(batch.labels)})
        for _ in range(_STEPS):
            for _ in self._step():
                pass
        self._resident = max(0, peak_bytes() - before)

    def resident(self) -> int:
        """Return by how many bytes the steps raised the peak resident memory above that before the network."""
        return self._resident

    def counted(self) -> tuple[tuple[Phase, ...], int]:
        """Return the phases of one more step, and the most bytes of tensors at one moment of it."""
        saved: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

        def keep(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            saved[storage._cdata] = storage
            return tensor.detach()  # not itself: an output saved by its own operation would never be freed

        alive = _alive([*self._batch.values(), *(tensor for held in self._owners() for tensor in held)])
        phases = {"before": self._phase("before", saved)}
        with alive, self._torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            for name in self._step():  # of parts of a batch the last one counts
                phases[name] = self._phase(name, saved)
        return tuple(phases.values()), alive.peak

    def _step(self) -> Iterator[str]:
        """Take a step of the optimizer, and yield the name of each phase as it ends."""
        parts = {name: tensor.tensor_split(self._recipe.accumulate) for name, tensor in self._batch.items()}
        for number in range(self._recipe.accumulate):
            part = {name: pieces[number] for name, pieces in parts.items()}
            labels = part.pop(_LABELS)
            loss = self._loss(self._network.answer(part), labels) / self._recipe.accumulate
            yield "forward"
            with told("the network can't be trained"):
                loss.backward()
            del loss
            yield "backward"
        self._optimizer.step(1.0)
        self._network.average()
        yield "optimizer step"
        if self._kept:
            self._network.module.zero_grad(set_to_none=False)
        else:
            self._optimizer.clear()
        yield "zero_grad"

    def _owners(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Return the tensors of parameters and buffers, of gradients, and of the optimizer."""
        weights = list(self._network.module.parameters())
        state = [each for held in self._optimizer.state()["state"].values() for each in held.values()]
        mean = list(self._network.state().get("mean", {}).values())
        return (
            [*weights, *self._network.module.buffers()],
            [weight.grad for weight in weights if weight.grad is not None],
            [tensor for tensor in (*state, *mean) if isinstance(tensor, self._torch.Tensor)],
        )

    def _phase(self, name: str, saved: Mapping[int, Any]) -> Phase:
        counted = {tensor.untyped_storage()._cdata for tensor in self._batch.values()}
        held = [_bytes((tensor.untyped_storage() for tensor in tensors), counted) for tensors in self._owners()]
        activations = _bytes(saved.values(), counted)
        return Phase(name=name, parameters=held[0], gradients=held[1], optimizer=held[2], activations=activations)


def _warmed(torch: Any, recipe: Recipe) -> None:
    """Take a step with a tiny network: what libraries load or set up at their first one is nobody's memory."""
    layers = torch.nn
    net = layers.Sequential(layers.Conv2d(1, 1, 3), layers.BatchNorm2d(1), layers.Flatten(), layers.Linear(1, 1))
    optimizer = Optimizer(net, recipe)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            given = torch.zeros(2, 1, 3, 3, requires_grad=True)
            torch.utils.checkpoint.checkpoint(net, given, use_reentrant=False).float().sum().backward()
        optimizer.step(1.0)


def _bytes(storages: Iterable[Any], counted: set[int]) -> int:
    """Return the bytes of the storages that have not been counted yet, and take them among those that have."""
    fresh = {storage._cdata: storage.nbytes() for storage in storages if storage._cdata not in counted}
    counted.update(fresh)
    return sum(fresh.values())


def _alive(tensors: Iterable[Any]) -> Any:
    """Return a mode of PyTorch that adds up the bytes of these tensors and of all that are made in it, while they live.

    `peak` is the most at one moment.
    """
    torch = import_torch("training")
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map_only

    class Alive(TorchDispatchMode):  # type: ignore[misc] # mypy does not follow torch
        def __init__(self) -> None:
            super().__init__()
            self._sizes: dict[int, int] = {}
            self._total = self.peak = 0

        def seen(self, tensor: Any) -> None:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                self._total += storage.nbytes()
                self.peak = max(self.peak, self._total)
                weakref.finalize(storage, self._gone, storage._cdata)

        def _gone(self, key: int) -> None:
            self._total -= self._sizes.pop(key)

        def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = call(*args, **(kwargs or {}))
            tree_map_only(torch.Tensor, self.seen, made)
            return made

    mode = Alive()
    for tensor in tensors:
        mode.seen(tensor)
    return mode
