"""Puts lighter layers in the place of heavy ones, which begin as what is nearest to the old weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from trimtab.core.errors import BadInput, NothingToGain
from trimtab.core.protocols import Choices, Context, Range
from trimtab.core.values import Signature, Step, Task, Variant
from trimtab.formats.torch import save_changed
from trimtab.formats.torch_tracing import caller, evaluated, import_torch, load_live, random_inputs
from trimtab.techniques.chains import chain_of, moving_like, put, replaceable, replacements, weight_of
from trimtab.techniques.int8 import SEPARATOR, kept, options_of
from trimtab.techniques.refit import chained, refit
from trimtab.techniques.structure import refusal

KINDS = ("separable", "grouped", "bottleneck")

Lighter = tuple[Any, float]
"""The layers in the place of one, and the share of its squared weights that they keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitute:
    """Replaces a share (`amount`) of the products of a PyTorch module by cheaper ones; nothing is trained.

    `kind` separable makes of a convolution a depthwise and a pointwise one, grouped one in `groups` groups, and
    bottleneck of a linear layer two with `narrow` times its smaller side between them. Each begins as the nearest to
    the old weights that it can be. Of the layers that would save multiply-accumulates those that keep most of their
    squared weights are replaced first, until they make up the share. Layers named in `keep` (separated by |) stay, as
    do those whose weights others share and those that the module fails without. Where there are calibration items,
    `refit` fits the last layer of what came in a layer's place to what that answered (least squares).
    """

    amount: Annotated[float, Range(0.1, 1.0, 0.05)] = 0.5
    kind: Annotated[str, Choices(*KINDS)] = "separable"
    groups: int = 4
    narrow: float = 0.25
    keep: str = ""
    refit: bool = True

    name = "substitute"
    order = 10
    needs_training = True
    tidy = True

    def __post_init__(self) -> None:
        for name, value in (("amount", self.amount), ("narrow", self.narrow)):
            if not 0 < value <= 1:
                raise BadInput(f"{name}={value:g} is no share; type one above 0 and up to 1, such as 0.5")
        if self.groups < 2:
            raise BadInput(f"groups={self.groups} makes nothing lighter; type 2 or more")

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what no factory builds, and unknown kinds."""
        if self.kind not in KINDS:
            return f"there is no kind of lighter layers {self.kind!r}: choose separable, grouped or bottleneck"
        return refusal(variant, self.name)

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the variant with lighter layers.

        Raises:
            NothingToGain: No layer would take fewer multiply-accumulates.
            Refused: The module fails with every one of the new layers.
        """
        module, signature = load_live(variant.model), variant.model.signature
        lighter = dict(self._lighter(module))
        if not lighter:
            raise NothingToGain(f"no layer would take fewer multiply-accumulates as a {self.kind} one")
        macs = products({name: module.get_submodule(name) for name in lighter}, module, signature)
        chosen = first_share(macs, {name: share for name, (_, share) in lighter.items()}, self.amount)
        made, sound = put({name: lighter[name][0] for name in chosen}, module, signature)
        if self.refit:
            refit(module, made, chained(made, sound), variant, context)
        names = {*kept(self.keep), *chosen} - set(sound)
        step = Step(
            technique=self.name, options=options_of(self, keep=SEPARATOR.join(sorted(names))), seed=context.seed
        )
        return variant.after(save_changed(variant.model, made, context.folder), step)

    def changes(self, before: Variant, after: Variant) -> tuple[str, ...]:
        """Return which layers were replaced, by what."""
        return replacements(load_live(before.model), load_live(after.model))

    def _lighter(self, module: Any) -> Iterator[tuple[str, Lighter]]:
        """Yield the name of each layer that would save multiply-accumulates, with what could stand in its place."""
        nn = import_torch("lighter layers").nn
        for name, layer in replaceable(module, kept(self.keep)):
            found = None
            if self.kind == "bottleneck" and type(layer) is nn.Linear:
                found = bottleneck(layer, self.narrow)
            elif self.kind != "bottleneck" and type(layer) is nn.Conv2d and layer.groups == 1:
                wide = math.prod(layer.kernel_size) > 1
                found = grouped(layer, self.groups) if self.kind == "grouped" else separable(layer) if wide else None
            if found is not None:
                yield name, found


def separable(layer: Any) -> Lighter | None:
    """Return a depthwise and a pointwise convolution in the place of one, None where they would not save products.

    Every input channel gets the kernel, and a weight for each output, whose product is nearest to its own kernels: the
    first singular vectors of the matrix [outputs, places of the kernel] of that channel.
    """
    nn, weight = import_torch("lighter layers").nn, weight_of(layer)
    makes, takes, *sides = weight.shape
    if takes * math.prod(sides) + takes * makes >= weight.size:
        return None
    left, values, right = np.linalg.svd(weight.transpose(1, 0, 2, 3).reshape(takes, makes, -1), full_matrices=False)
    spread = np.sqrt(values[:, :1])  # half on either side keeps both factors of one size
    depthwise = (spread * right[:, 0]).reshape(takes, 1, *sides)
    pointwise = (spread * left[:, :, 0]).T.reshape(makes, takes, 1, 1)
    over = moving_like(layer, takes, takes, bias=False, groups=takes)
    across = nn.Conv2d(takes, makes, 1, bias=layer.bias is not None)
    share = float(np.sum(values[:, 0] ** 2) / max(np.sum(values**2), np.finfo(np.float64).tiny))
    return chain_of(layer, (over, depthwise), (across, pointwise)), share


def grouped(layer: Any, groups: int) -> Lighter | None:
    """Return a convolution in groups in the place of one, with the weights on its diagonal; None where none fits."""
    weight = weight_of(layer)
    makes, takes = weight.shape[:2]
    if makes % groups or takes % groups:
        return None
    blocks = weight.reshape(groups, makes // groups, groups, takes // groups, *weight.shape[2:])
    diagonal = np.concatenate([blocks[number, :, number] for number in range(groups)])
    share = float(np.sum(diagonal**2) / max(np.sum(weight**2), np.finfo(np.float64).tiny))
    made = moving_like(layer, takes, makes, bias=layer.bias is not None, groups=groups)
    return chain_of(layer, (made, diagonal)), share


def bottleneck(layer: Any, narrow: float) -> Lighter | None:
    """Return two linear layers with fewer numbers between them in the place of one; None where they would not save."""
    nn, weight = import_torch("lighter layers").nn, weight_of(layer)
    makes, takes = weight.shape
    rank = max(1, round(narrow * min(makes, takes)))
    if rank * (makes + takes) >= weight.size:
        return None
    left, values, right = np.linalg.svd(weight, full_matrices=False)
    spread = np.sqrt(values[:rank])
    first, second = nn.Linear(takes, rank, bias=False), nn.Linear(rank, makes, bias=layer.bias is not None)
    share = float(np.sum(values[:rank] ** 2) / max(np.sum(values**2), np.finfo(np.float64).tiny))
    return chain_of(layer, (first, spread[:, None] * right[:rank]), (second, left[:, :rank] * spread)), share


def products(layers: Mapping[str, Any], module: Any, signature: Signature) -> dict[str, int]:
    """Return the multiply-accumulates of layers by name in one call of a module; 0 of one that is not called."""
    torch = import_torch("lighter layers")
    found = dict.fromkeys(layers, 0)

    def counting(name: str) -> Any:
        def count(layer: Any, given: Any, result: Any) -> None:
            found[name] += result.numel() // layer.weight.shape[0] * layer.weight.numel()

        return count

    hooks = [layer.register_forward_hook(counting(name)) for name, layer in layers.items()]
    try:
        with evaluated(module), torch.no_grad():
            caller(module, signature)(random_inputs(signature.inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def first_share(macs: Mapping[str, int], shares: Mapping[str, float], amount: float) -> list[str]:
    """Return the layers that keep most of their weights, as many as it takes to make up that share of all products."""
    wanted, done = amount * sum(macs.values()), 0
    chosen: list[str] = []
    for name in sorted(macs, key=lambda name: -shares[name]):
        if chosen and done >= wanted:
            break
        chosen.append(name)
        done += macs[name]
    return chosen
