"""Chains of layers in the place of single ones: how they are made, put into a module, and told."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.core.errors import BadInput, Refused
from trimtab.core.protocols import Array
from trimtab.core.values import Signature
from trimtab.formats.torch_tracing import import_torch
from trimtab.techniques.structure import answers, harmless, tied


def replaceable(module: Any, keep: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the name of each layer whose place another one could take, with the layer, those in `keep` left out.

    Raises:
        BadInput: There is no layer of a name in `keep`.
    """
    shared, asked = tied(module), set(keep)
    if unknown := asked - {name for name, _ in module.named_modules()}:
        raise BadInput(f"the module has no layer named {min(unknown)!r} to keep")
    for name, layer in module.named_modules():
        if name and name not in asked and is_plain(layer, shared):
            yield name, layer


def put(chains: Mapping[str, Any], module: Any, signature: Signature) -> tuple[Any, list[str]]:
    """Return a copy of a module with chains in the places of layers by name, and the names of those it works with.

    Raises:
        Refused: The module fails with every one of the chains.
    """
    before = answers(copy.deepcopy(module), signature)

    def works(names: Sequence[str]) -> bool:
        made = answers(with_chains(module, {name: chains[name] for name in names}), signature)
        return made is not None and made == before

    sound = harmless(list(chains), works)
    if not sound:
        raise Refused("this module fails with any of its layers replaced: its code looks into them")
    return with_chains(module, {name: chains[name] for name in sound}), sound


def replacements(old: Any, new: Any) -> tuple[str, ...]:
    """Return which layers of a module a chain stands for in another one, with the sizes of both."""
    nn = import_torch("replacing layers").nn
    return tuple(
        f"{name}: {size_of(layer)} → {', '.join(map(size_of, new.get_submodule(name)))}"
        for name, layer in old.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and isinstance(new.get_submodule(name), nn.Sequential)
    )


def is_plain(layer: Any, shared: set[int]) -> bool:
    """Say whether a layer is no more than its weights, and no other one has them."""
    own = dict(layer.named_parameters())
    hooked = layer._forward_hooks or layer._forward_pre_hooks  # such as those that compute a weight from others
    return not hooked and not own.keys() - {"weight", "bias"} and not any(id(value) in shared for value in own.values())


def moving_like(layer: Any, takes: int, makes: int, *, bias: bool, groups: int = 1, axis: int | None = None) -> Any:
    """Return a convolution of other channels that moves over its inputs as a layer does, along one axis or both."""

    def along(sizes: Any, rest: int) -> Any:
        return sizes if axis is None else tuple(size if each == axis else rest for each, size in enumerate(sizes))

    return import_torch("replacing layers").nn.Conv2d(
        takes,
        makes,
        along(layer.kernel_size, 1),
        stride=along(layer.stride, 1),
        padding=layer.padding if isinstance(layer.padding, str) else along(layer.padding, 0),
        dilation=along(layer.dilation, 1),
        groups=groups,
        bias=bias,
        padding_mode=layer.padding_mode,
    )


def chain_of(layer: Any, *steps: tuple[Any, Array]) -> Any:
    """Return the layers with their weights as a Sequential; the last one takes the bias of the layer they replace."""
    torch = import_torch("replacing layers")
    with torch.no_grad():
        for step, weight in steps:
            step.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        if layer.bias is not None:
            steps[-1][0].bias.copy_(layer.bias)
    return torch.nn.Sequential(*(step for step, _ in steps)).to(layer.weight.dtype).train(layer.training)


def with_chains(module: Any, chains: Mapping[str, Any]) -> Any:
    """Return a copy of a module with copies of the chains in the places of layers."""
    made = copy.deepcopy(module)
    for name, chain in chains.items():
        parent, _, last = name.rpartition(".")
        setattr(made.get_submodule(parent), last, copy.deepcopy(chain))
    return made


def weight_of(layer: Any) -> Array:
    """Return the weight of a layer as an array of float64."""
    return np.asarray(layer.weight.detach().double().cpu().numpy())


def size_of(layer: Any) -> str:
    """Return the channels that a layer takes and makes, its kernel, and its groups where it has some."""
    shape = tuple(layer.weight.shape)
    kernel = f" {'×'.join(map(str, shape[2:]))}" if len(shape) > 2 else ""
    groups = f" in {layer.groups} groups" if getattr(layer, "groups", 1) > 1 else ""
    return f"{getattr(layer, 'in_features', None) or layer.in_channels}→{shape[0]}{kernel}{groups}"
