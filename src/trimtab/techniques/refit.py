"""Gives what is left of a changed network other weights, so that it answers as it did before: nothing is trained.

A layer that lost inputs misses what they added, and a chain of thinner layers is not quite the layer whose place it
took. Layer by layer, in the order in which they run, weights are fitted to what the layer of the whole network answers,
by least squares over some items (He, Zhang and Sun, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV
2017). Each is fed by the layers before it as they are now, so what those are off by is made up for as well. A ridge
pulls towards the weights that are there.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trimtab.core.protocols import Arrays, Context
from trimtab.core.values import Signature, Variant
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, caller, import_torch
from trimtab.techniques.int8 import feeds

_ROWS = 24  # of inputs for each weight of an output: fewer fit the items, not what they are examples of
_RIDGE = 1e-2  # of the mean square of an input: also where inputs say the same, one answer is best
_ITEMS = 300

Targets = Mapping[str, tuple[str, Any]]
"""By the name of a layer to refit: the layer of the whole network whose answers it should give, and which of its
outputs stayed (None: all of them)."""


def refit(whole: Any, changed: Any, targets: Targets, variant: Variant, context: Context) -> int:
    """Refit layers of a module in place on the calibration items, and return how many got other weights.

    Without such items, or where the module is fed its own states, it stays as it is.
    """
    if context.task.split("calibrate") is None or variant.model.signature.states:
        return 0
    return refitted(whole, changed, targets, variant.model.signature, feeds(variant, context.task, _ITEMS))


def refitted(whole: Any, changed: Any, targets: Targets, signature: Signature, feeds: Iterable[Arrays]) -> int:
    """Refit layers of a changed module in place, and return how many of them got other weights.

    Args:
        whole: the module before it was changed.
        changed: what was made of it.
        targets: which layers to refit, and to what (see `narrowed` and `chained`).
        signature: how both are called.
        feeds: the items, as inputs by name.
    """
    torch = import_torch("refitting")
    items = [{name: torch.tensor(array) for name, array in feed.items()} for feed in feeds]
    layers = {name: changed.get_submodule(name) for name in targets}
    layers = {name: layer for name, layer in layers.items() if _fits(torch, layer)}
    if not items or not layers:
        return 0
    given = {name: torch.cat([each[name] for each in items]) for name in items[0]}
    wanted: dict[str, Any] = {}
    done: list[str] = []

    def remember(name: str) -> Callable[..., None]:
        def after(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
            kept = targets[name][1]
            wanted.setdefault(name, output if kept is None else output[_at(torch, layer, kept)])

        return after

    def fit(name: str) -> Callable[..., None]:
        def before(layer: Any, inputs: tuple[Any, ...]) -> None:
            if name in wanted and _solve(torch, layer, inputs[0], wanted.pop(name)):
                done.append(name)

        return before

    with torch.no_grad():
        first = [whole.get_submodule(targets[name][0]).register_forward_hook(remember(name)) for name in layers]
        second = [layer.register_forward_pre_hook(fit(name)) for name, layer in layers.items()]
        try:
            caller(whole.eval(), signature)(given)
            caller(changed.eval(), signature)(given)
        finally:
            for hook in itertools.chain(first, second):
                hook.remove()
    return len(done)


def narrowed(whole: Any, pruned: Any, kept: Mapping[str, Any]) -> Targets:
    """Return the layers that lost inputs, given which of their outputs stayed (see `survivors`)."""
    torch = import_torch("refitting")
    found = {}
    for name, layer in pruned.named_modules():
        if isinstance(layer, _kinds(torch)) and name in kept:
            before = whole.get_submodule(name)
            if layer.weight.shape[1] < before.weight.shape[1]:
                found[name] = (name, kept[name])
    return found


def chained(changed: Any, names: Iterable[str]) -> Targets:
    """Return the last layers of the chains that stand in the places of some layers."""
    torch, found = import_torch("refitting"), {}
    for name in names:
        parts = [
            part for part, layer in changed.get_submodule(name).named_modules() if isinstance(layer, _kinds(torch))
        ]
        if parts:
            found[f"{name}.{parts[-1]}" if parts[-1] else name] = (name, None)
    return found


def survivors(module: Any, prune: Callable[[Any], Any]) -> dict[str, Any]:
    """Return which outputs of each convolution and linear layer a way of pruning leaves, by the layers' names.

    A copy whose every weight is the number of its output is pruned instead; None of it is kept where that fails.
    """
    torch = import_torch("refitting")
    marked = copy.deepcopy(module)
    with torch.no_grad():
        for layer in marked.modules():
            if isinstance(layer, _kinds(torch)):
                numbers = torch.arange(len(layer.weight), dtype=layer.weight.dtype)
                layer.weight.copy_(numbers.reshape(-1, *[1] * (layer.weight.ndim - 1)))
    left = prune(marked)
    if left is None:
        return {}
    return {
        name: layer.weight.detach().flatten(1)[:, 0].round().long()
        for name, layer in left.named_modules()
        if isinstance(layer, _kinds(torch))
    }


def _kinds(torch: Any) -> tuple[Any, ...]:
    return (torch.nn.Conv2d, torch.nn.Linear)


def _fits(torch: Any, layer: Any) -> bool:
    """Say whether a layer can be fitted: ungrouped, padded with zeros."""
    if getattr(layer, "groups", 1) != 1:
        return False
    return isinstance(layer, torch.nn.Linear) or (not isinstance(layer.padding, str) and layer.padding_mode == "zeros")


def _at(torch: Any, layer: Any, kept: Any) -> tuple[Any, ...]:
    """Return what picks the outputs that stayed of a layer's answer: channels of images, the last axis of rows."""
    return (slice(None), kept) if isinstance(layer, torch.nn.Conv2d) else (..., kept)


def _solve(torch: Any, layer: Any, inputs: Any, wanted: Any) -> bool:
    """Fit a layer to the answers wanted, and say whether it got other weights."""
    x, y = _rows(torch, layer, inputs, wanted)
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        return False
    bias = layer.bias is not None
    old = layer.weight.flatten(1).T
    if bias:
        x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        old = torch.cat([old, layer.bias[None]])
    off = y - x @ old
    gram = x.T @ x
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    try:
        change = torch.linalg.solve(gram + ridge, x.T @ off)
    except FOREIGN_ERRORS:
        return False
    if not (off - x @ change).square().mean() < off.square().mean():
        return False
    new = old + change
    if bias:
        layer.bias.copy_(new[-1])
        new = new[:-1]
    layer.weight.copy_(new.T.reshape(layer.weight.shape))
    return True


def _rows(torch: Any, layer: Any, inputs: Any, wanted: Any) -> tuple[Any, Any]:
    """Return inputs [rows, weights of an output] and answers [rows, outputs] of some places, drawn evenly."""
    size = layer.weight[0].numel()
    if isinstance(layer, torch.nn.Linear):
        x, y = inputs.reshape(-1, inputs.shape[-1]), wanted.reshape(-1, wanted.shape[-1])
        chosen = _drawn(torch, len(x), _ROWS * size)
        return x[chosen].float(), y[chosen].float()
    y = wanted.permute(0, 2, 3, 1).reshape(-1, wanted.shape[1])
    places = wanted.shape[2] * wanted.shape[3]
    each = max(1, -(-_ROWS * size // len(inputs)))
    spots = _drawn(torch, places, each)
    patches = torch.nn.functional.unfold(
        inputs, layer.kernel_size, dilation=layer.dilation, padding=layer.padding, stride=layer.stride
    )
    x = patches[:, :, spots].permute(0, 2, 1).reshape(-1, size)
    y = y.reshape(len(inputs), places, -1)[:, spots].reshape(len(x), -1)
    return x.float(), y.float()


def _drawn(torch: Any, count: int, most: int) -> Any:
    """Return the numbers of so many rows, all of them where there are no more: the same ones every time."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most]
