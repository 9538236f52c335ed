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
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, caller, first_line, import_torch, named_outputs
from trimtab.training.group import ALONE, Group, raise_if_lost
from trimtab.training.hints import Hints
from trimtab.training.optimizers import numbers_of
from trimtab.training.pipeline import Judge, Pipeline, stage_of
from trimtab.training.recipe import Recipe
from trimtab.training.shards import all_placed, all_whole, divided, linear_pairs, own, sharded

_AT_ONCE = 256  # items a call, where nothing is learnt


class Network:
    """A `torch.nn.Module` that is trained in place, with the moving average of its weights where one is wanted.

    `teachers` are live modules whose calls on the same items come before the hints are asked for. In a group of
    processes each has the network whole, unless the group divides it, and the gradients are averaged over all.
    """

    def __init__(
        self,
        module: Any,
        signature: Signature,
        task: Task,
        recipe: Recipe,
        teachers: Sequence[Any] = (),
        group: Group = ALONE,
    ) -> None:
        self._torch = import_torch("training")
        self.module, self._signature, self._recipe, self._group = module, signature, recipe, group
        self._output = answer_spec(signature, task.output).name
        self._meanwhile = contextlib.ExitStack()
        if recipe.dropout is not None:
            self._meanwhile.enter_context(with_dropout(module, recipe.dropout))
        if group.parallel != "fsdp":  # which moves each part by itself
            module.to(group.device)
        if recipe.channels_last:
            module.to(memory_format=self._torch.channels_last)
        self._mean = moving_average(module, recipe.ema, fused=not group.divided) if recipe.ema else None
        self._hints = Hints(recipe.hints, module, teachers, signature, recipe.seed)
        self._meanwhile.callback(self._hints.close)
        self.numbers = numbers_of(self.trained)
        if recipe.checkpointing and group.parallel == "pipeline":  # the blocks are those of the whole module
            self._meanwhile.enter_context(recomputing(module, compiled=recipe.compile))
        if group.divided:
            self._divide()
            module = self.module
        if recipe.checkpointing and group.parallel != "pipeline":
            self._meanwhile.enter_context(recomputing(module, compiled=recipe.compile))
        compiled = self._torch.compile if recipe.compile else lambda given: given
        with told("the network can't be trained"):
            self._whole = group.replicated(compiled(module))
        self._call = caller(module, signature, lambda given: self._whole)
        self.line = Pipeline(self._whole, group, recipe.accumulate) if group.parallel == "pipeline" else None

    def _divide(self) -> None:
        """Leave each process its part of the network, and of the averaged one."""
        group, mean = self._group, None if self._mean is None else self._mean.module
        modules = [each for each in (self.module, mean) if each is not None]
        if group.parallel != "tensor" and not all(weight.is_contiguous() for weight in self.module.parameters()):
            raise BadInput(f"--parallel {group.parallel} takes tensors of the usual layout: leave channels_last out")
        if group.parallel == "pipeline":
            self.module, *means = (stage_of(each, blocks_of(each), group) for each in modules)
            if self._mean is not None:
                (self._mean.module,) = means
        elif group.parallel == "tensor":
            pairs = linear_pairs(self.module, self._signature, group.size)
            for each in modules:
                divided(each, pairs, group)
        else:
            for each in modules:
                sharded(each, blocks_of(each), group)

    def learn(self, tensors: Mapping[str, Any], wanted: Any, judge: Judge) -> float:
        """Leave the gradients of a batch in this stage of a pipeline, and return the loss."""
        assert self.line is not None
        (given,) = self._laid_out(tensors).values()
        with self._autocast(), told("the network can't be trained in stages"):
            return self.line.learn(given, wanted, lambda outputs, more: judge(self._answer(outputs), more))

    def _answer(self, result: Any) -> Any:
        """Return the output that answers, of what the module returns."""
        return named_outputs(result, [spec.name for spec in self._signature.outputs])[self._output]

    @contextlib.contextmanager
    def exchanging(self, last: bool) -> Iterator[None]:
        """Learn a part of a batch: only after the last one the processes exchange gradients."""
        if hasattr(self.module, "set_requires_gradient_sync"):
            self.module.set_requires_gradient_sync(last)
        apart = not last and hasattr(self._whole, "no_sync")
        with self._whole.no_sync() if apart else contextlib.nullcontext():
            yield

    @property
    def trained(self) -> Any:
        """What is trained: the module, and the adapters of its hints."""
        return self._torch.nn.ModuleList([self.module, self._hints.adapters])

    def hinted(self, tensors: Mapping[str, Any]) -> Any:
        """Return the loss of the hints in the last answer, and in the teachers', to these items."""
        return self._hints.loss(tensors)

    def answer(self, tensors: Mapping[str, Any]) -> Any:
        """Return the output that answers, with its graph for the backward pass; images are laid out as is wanted."""
        with self._autocast(), told("the network fails in training"):
            return self._call(self._laid_out(tensors))[self._output]

    def _laid_out(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self._recipe.channels_last:
            return tensors
        layout = self._torch.channels_last
        return {name: x.contiguous(memory_format=layout) if x.ndim == 4 else x for name, x in tensors.items()}

    def predict(self, task: Task, split: Split) -> Array:
        """Return the answers to all items of a split, by the averaged weights where there are any."""
        judged = self._judged().eval()
        line = None if self.line is None else Pipeline(judged, self._group)
        with self._autocast():
            answers = answers_of(judged, self._signature, task, split, self._group.device, line)
        if hasattr(judged, "reshard"):
            judged.reshard()  # what was put together to run is otherwise kept for a backward pass
        return answers

    def average(self) -> None:
        """Take the weights after a step into their moving average."""
        if self._mean is not None:
            self._mean.update_parameters(self.module)

    def weights(self) -> dict[str, Any]:
        """Return a copy of the weights that `predict` answers by."""
        return {name: value.detach().clone() for name, value in self._judged().state_dict().items()}

    def state(self) -> dict[str, Mapping[str, Any]]:
        """Return the tensors that it takes to go on, whole, by owner; in the first process only."""
        mean = {} if self._mean is None else {"mean": all_whole(self._mean.state_dict(), self._group)}
        module = all_whole(self.module.state_dict(), self._group)
        return {"module": module, "hints": self._hints.adapters.state_dict(), **mean}

    def restore(self, parts: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.module.load_state_dict(self.placed(parts["module"]))
        self._hints.adapters.load_state_dict(parts.get("hints", {}))
        if self._mean is not None:
            self._mean.load_state_dict(all_placed(parts["mean"], self._mean.state_dict()))

    def placed(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """Return whole weights as the module holds them."""
        return all_placed(weights, self.module.state_dict())

    def finite(self) -> bool:
        """Say whether no weight is infinite or not a number, in any process."""
        here = all(bool(own(weight).isfinite().all()) for weight in self.module.parameters())
        return self._group.summed(not here) == (0,)

    def leave(self, weights: Mapping[str, Any]) -> None:
        """Leave the module as it came, in evaluation mode but with these weights, or its own where there are none."""
        self._meanwhile.close()
        if weights:
            self.module.load_state_dict(weights)
        if self._recipe.channels_last:
            self.module.to(memory_format=self._torch.contiguous_format)
        self.module.to("cpu").eval()

    def _judged(self) -> Any:
        return self.module if self._mean is None else self._mean.module

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._recipe.precision == "fp32":
            return contextlib.nullcontext()
        narrow: contextlib.AbstractContextManager[Any] = self._torch.autocast(
            self._group.device.partition(":")[0], dtype=self._torch.bfloat16
        )
        return narrow


def tensors_of(feed: Feed, device: str = "cpu") -> dict[str, Any]:
    """Return arrays as tensors; one that must not be written to is copied, because a tensor could be."""
    torch = import_torch("training")
    arrays = {name: each if each.flags.writeable else each.copy() for name, each in feed.items()}
    return {name: torch.from_numpy(each).to(device) for name, each in arrays.items()}


def seeded(seed: int) -> None:
    """Set the seed of PyTorch's random numbers: of weights that are drawn, of augmentation and of dropout."""
    import_torch("training").manual_seed(seed)


def answers_of(
    module: Any, signature: Signature, task: Task, split: Split, device: str = "cpu", line: Pipeline | None = None
) -> Array:
    """Return the answers of a module on a device, in evaluation mode, to all items of a split, one row per item.

    `line` runs it, where the module is a stage of it.
    """
    torch, name = import_torch("training"), answer_spec(signature, task.output).name
    call = caller(module.eval(), signature, lambda given: line or given)
    with torch.inference_mode():
        feeds = ahead(batches(task, split, _AT_ONCE))
        with told("the network fails in evaluation"):
            return np.concatenate([call(tensors_of(feed, device))[name].float().cpu().numpy() for feed in feeds])


def moving_average(module: Any, decay: float, *, fused: bool = True) -> Any:
    """Return a copy of a module that follows its weights and buffers as an exponential moving average.

    `fused` updates them all at once, which can't be where only some of them are divided among processes.
    """
    averages = import_torch("training").optim.swa_utils
    given = (
        {"multi_avg_fn": averages.get_ema_multi_avg_fn(decay)} if fused else {"avg_fn": averages.get_ema_avg_fn(decay)}
    )
    return averages.AveragedModel(module, **given, use_buffers=True)


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Tell in one line what goes wrong in code that is not ours."""
    try:
        yield
    except FOREIGN_ERRORS as error:
        raise_if_lost(error)
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

    That batch normalization sees a batch twice does not count twice; a compiler sees to that itself.

    Raises:
        BadInput: there is no block.
    """
    torch, outer = import_torch("training"), blocks_of(module)
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


def blocks_of(module: Any) -> list[Any]:
    """Return the members of a module's lists and sequences that have members of their own, the outermost ones."""
    torch = import_torch("training")
    lists = [part for part in module.modules() if isinstance(part, torch.nn.ModuleList | torch.nn.Sequential)]
    blocks = dict.fromkeys(
        block
        for part in lists
        for block in part
        if any(True for _ in block.children()) and not isinstance(block, torch.nn.ModuleList)
    )
    inner = {part for block in blocks for part in block.modules() if part is not block}
    return [block for block in blocks if block not in inner]


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
