"""A module as a fit sees it: how it is laid out, called, averaged and asked for its answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.core.values import Signature, Split, Task
from trimtab.data.batches import Feed, ahead, batches
from trimtab.data.labels import answer_spec
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, caller, first_line, import_torch
from trimtab.training.hints import Hints
from trimtab.training.recipe import Recipe

_AT_ONCE = 256  # items a call, where nothing is learnt


class Network:
    """A `torch.nn.Module` that is trained in place, with the moving average of its weights where one is wanted.

    `teachers` are live modules whose calls on the same items come before the hints are asked for.
    """

    def __init__(
        self, module: Any, signature: Signature, task: Task, recipe: Recipe, teachers: Sequence[Any] = ()
    ) -> None:
        self._torch = import_torch("training")
        self.module, self._signature, self._recipe = module, signature, recipe
        self._output = answer_spec(signature, task.output).name
        self._meanwhile = contextlib.ExitStack()
        if recipe.dropout is not None:
            self._meanwhile.enter_context(with_dropout(module, recipe.dropout))
        if recipe.channels_last:
            module.to(memory_format=self._torch.channels_last)
        self._mean = moving_average(module, recipe.ema) if recipe.ema else None
        self._hints = Hints(recipe.hints, module, teachers, signature, recipe.seed)
        self._meanwhile.callback(self._hints.close)
        if recipe.checkpointing:
            self._meanwhile.enter_context(recomputing(module, compiled=recipe.compile))
        self._call = caller(module, signature, self._torch.compile if recipe.compile else lambda given: given)

    @property
    def trained(self) -> Any:
        """What is trained: the module, and the adapters of its hints."""
        return self._torch.nn.ModuleList([self.module, self._hints.adapters])

    def hinted(self, tensors: Mapping[str, Any]) -> Any:
        """Return the loss of the hints in the last answer, and in the teachers', to these items."""
        return self._hints.loss(tensors)

    def answer(self, tensors: Mapping[str, Any]) -> Any:
        """Return the output that answers, with its graph for the backward pass; images are laid out as is wanted."""
        if self._recipe.channels_last:
            layout = self._torch.channels_last
            tensors = {name: x.contiguous(memory_format=layout) if x.ndim == 4 else x for name, x in tensors.items()}
        with self._autocast(), told("the network fails in training"):
            return self._call(tensors)[self._output]

    def predict(self, task: Task, split: Split) -> Array:
        """Return the answers to all items of a split, by the averaged weights where there are any."""
        with self._autocast():
            return answers_of(self._judged(), self._signature, task, split)

    def average(self) -> None:
        """Take the weights after a step into their moving average."""
        if self._mean is not None:
            self._mean.update_parameters(self.module)

    def weights(self) -> dict[str, Any]:
        """Return a copy of the weights that `predict` answers by."""
        return {name: value.detach().clone() for name, value in self._judged().state_dict().items()}

    def state(self) -> dict[str, Mapping[str, Any]]:
        """Return the tensors that it takes to go on, by owner."""
        mean = {} if self._mean is None else {"mean": self._mean.state_dict()}
        return {"module": self.module.state_dict(), "hints": self._hints.adapters.state_dict(), **mean}

    def restore(self, parts: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.module.load_state_dict(parts["module"])
        self._hints.adapters.load_state_dict(parts.get("hints", {}))
        if self._mean is not None:
            self._mean.load_state_dict(parts["mean"])

    def finite(self) -> bool:
        """Say whether no weight is infinite or not a number."""
        return all(bool(weight.isfinite().all()) for weight in self.module.parameters())

    def leave(self, weights: Mapping[str, Any]) -> None:
        """Leave the module as it came, in evaluation mode but with these weights, or its own where there are none."""
        self._meanwhile.close()
        if weights:
            self.module.load_state_dict(weights)
        if self._recipe.channels_last:
            self.module.to(memory_format=self._torch.contiguous_format)
        self.module.eval()

    def _judged(self) -> Any:
        return self.module if self._mean is None else self._mean.module

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._recipe.precision == "fp32":
            return contextlib.nullcontext()
        narrow: contextlib.AbstractContextManager[Any] = self._torch.autocast("cpu", dtype=self._torch.bfloat16)
        return narrow


def tensors_of(feed: Feed) -> dict[str, Any]:
    """Return arrays as tensors; one that must not be written to is copied, because a tensor could be."""
    torch = import_torch("training")
    return {name: torch.from_numpy(each if each.flags.writeable else each.copy()) for name, each in feed.items()}


def seeded(seed: int) -> None:
    """Set the seed of PyTorch's random numbers: of weights that are drawn, of augmentation and of dropout."""
    import_torch("training").manual_seed(seed)


def answers_of(module: Any, signature: Signature, task: Task, split: Split) -> Array:
    """Return the answers of a module, in evaluation mode, to all items of a split, one row per item."""
    torch, name = import_torch("training"), answer_spec(signature, task.output).name
    call = caller(module.eval(), signature)
    with torch.inference_mode():
        feeds = ahead(batches(task, split, _AT_ONCE))
        with told("the network fails in evaluation"):
            return np.concatenate([call(tensors_of(feed))[name].float().numpy() for feed in feeds])


def moving_average(module: Any, decay: float) -> Any:
    """Return a copy of a module that follows its weights and buffers as an exponential moving average."""
    averages = import_torch("training").optim.swa_utils
    return averages.AveragedModel(module, multi_avg_fn=averages.get_ema_multi_avg_fn(decay), use_buffers=True)


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Tell in one line what goes wrong in code that is not ours."""
    try:
        yield
    except FOREIGN_ERRORS as error:
        raise BadInput(f"{what} ({first_line(error)}); mend the network, or change the recipe") from error


@contextlib.contextmanager
def with_dropout(module: Any, rate: float) -> Iterator[None]:
    """Set the rate of every dropout layer for a time; raise `BadInput` when there is none."""
    kinds = import_torch("training").nn.modules.dropout._DropoutNd
    layers = [(layer, layer.p) for layer in module.modules() if isinstance(layer, kinds)]
    if not layers:
        raise BadInput("the module has no dropout layer whose rate could be set; leave dropout out")
    for layer, _ in layers:
        layer.p = rate
    try:
        yield
    finally:
        for layer, old in layers:
            layer.p = old


@contextlib.contextmanager
def recomputing(module: Any, *, compiled: bool = False) -> Iterator[None]:
    """Let the blocks of a module keep only their inputs and run again in the backward pass (Chen et al. 2016).

    Blocks are the members of its lists and sequences that have members of their own. That batch normalization sees a
    batch twice does not count twice; a compiler sees to that itself.

    Raises:
        BadInput: there is no such block.
    """
    torch = import_torch("training")
    lists = [part for part in module.modules() if isinstance(part, torch.nn.ModuleList | torch.nn.Sequential)]
    blocks = dict.fromkeys(
        block
        for part in lists
        for block in part
        if any(True for _ in block.children()) and not isinstance(block, torch.nn.ModuleList)
    )
    inner = {part for block in blocks for part in block.modules() if part is not block}
    outer = [block for block in blocks if block not in inner]
    if not outer:
        raise BadInput(
            "the module has no blocks (members of a ModuleList or Sequential) to recompute; leave checkpointing out"
        )
    before = [(block, vars(block).get("forward")) for block in outer]
    for block in outer:
        contexts: dict[str, Any] = {} if compiled else {"context_fn": partial(_twice, block)}
        block.forward = _recomputed(torch, block, block.forward, contexts)
    try:
        yield
    finally:
        for block, own in before:
            del block.forward
            if own is not None:
                block.forward = own


def _recomputed(torch: Any, block: Any, forward: Any, contexts: Mapping[str, Any]) -> Any:
    def run(*given: Any, **named: Any) -> Any:
        if not block.training:
            return forward(*given, **named)
        return torch.utils.checkpoint.checkpoint(forward, *given, use_reentrant=False, **contexts, **named)

    return run


def _twice(block: Any) -> tuple[contextlib.AbstractContextManager[Any], contextlib.AbstractContextManager[Any]]:
    """Return in what a block runs the first and the second time."""
    return contextlib.nullcontext(), _uncounted(block)


@contextlib.contextmanager
def _uncounted(block: Any) -> Iterator[None]:
    """Let no batch normalization take a batch into its running statistics."""
    layers = [layer for layer in block.modules() if getattr(layer, "num_batches_tracked", None) is not None]
    before = [(layer, layer.momentum, layer.num_batches_tracked.clone()) for layer in layers]
    for layer in layers:
        layer.momentum = 0.0  # without the statistics less would be kept for the backward pass than the first time
    try:
        yield
    finally:
        for layer, momentum, count in before:
            layer.momentum = momentum
            layer.num_batches_tracked.copy_(count)
