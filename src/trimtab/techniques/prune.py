"""Structured pruning: removes whole channels, neurons and attention heads, so that the network is really smaller."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from trimtab.core.errors import BadInput, NothingToGain, Refused
from trimtab.core.files import make_folder
from trimtab.core.protocols import Array, Choices, Context, Range
from trimtab.core.values import Step, Task, Variant
from trimtab.data.batches import labels as labels_of
from trimtab.data.labels import answer_spec
from trimtab.formats.torch import save_changed
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, caller, import_torch, load_live
from trimtab.techniques.channels import ChannelGraph, Cut, Group, channel_counts, head_counts, importance_of
from trimtab.techniques.int8 import SEPARATOR, feeds, kept, options_of
from trimtab.techniques.refit import narrowed, refit, survivors
from trimtab.techniques.structure import answers, harmless, refusal
from trimtab.training.losses import Loss
from trimtab.training.recipe import Recipe

IMPORTANCES = ("l1", "l2", "taylor", "bn-scale", "lamp")
SCOPES = ("uniform", "global")
ROUNDINGS = (1, 8, 16)
"""The multiples to which the channels that stay may be rounded: none, and what vector registers hold."""

_MOST = 0.9  # of one group: a global ranking would otherwise remove some layers as a whole
_ITEMS = 256  # that taylor importance looks at

Ranked = tuple[Group, Array]
"""A group with the importance of each of its units."""

Plan = tuple[int, list[Cut]]
"""What to remove, and the multiple that it was rounded to."""

Build = Callable[[Sequence[Cut]], Any]
"""Returns a copy of the module without some channels, None where that doesn't work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """Removes a share (`amount`) of the channels of a PyTorch module, the least important first, and trains nothing.

    `importance` is l1, l2, taylor (needs labelled calibration items), bn-scale or lamp. `scope` removes the share from
    every group of coupled layers (uniform), or wherever it matters least (global, at most nine tenths of a group).
    What stays of each group is rounded to a multiple of `round_to`; None takes, of 1, 8 and 16, the one with the least
    time per channel that stays, as measured. Of attention whole heads go, and of the layers between their widths; what
    attention reads and writes is as wide as before unless `width` is true. Layers named in `keep` (separated by |) keep
    their channels, as do those that give the outputs, and those that the module fails without. Where there are
    calibration items, `refit` fits what is left of each layer to what the whole one answers (least squares).
    """

    amount: Annotated[float, Range(0.1, 0.95, 0.01)] = 0.5
    importance: str = "l2"
    scope: Annotated[str, Choices("uniform", "global")] = "uniform"
    round_to: Annotated[int | None, Choices(*ROUNDINGS)] = None
    width: bool = False
    keep: str = ""
    refit: bool = True

    name = "prune"
    order = 6
    needs_training = True
    tidy = True

    def __post_init__(self) -> None:
        if not 0 < self.amount < 1:
            raise BadInput(f"amount={self.amount:g} is no share of the channels; type one between 0 and 1, such as 0.5")
        if self.round_to is not None and self.round_to < 1:
            raise BadInput(f"round_to={self.round_to} is no multiple; type 8, 16 …, or none to have it measured")

    @property
    def needs_target(self) -> bool:
        """Whether it times while it makes: then only the machine may make it that the goal is about."""
        return self.round_to is None

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what no factory builds, an unknown importance or scope, and taylor importance without labels."""
        if self.importance not in IMPORTANCES:
            return f"there is no importance {self.importance!r}: choose one of {', '.join(IMPORTANCES)}"
        if self.scope not in SCOPES:
            return f"there is no scope {self.scope!r}: choose uniform or global"
        reason = refusal(variant, self.name)
        if reason is not None or self.importance != "taylor":
            return reason
        split = task.split("calibrate")
        if split is None or split.labels is None:
            return "taylor importance needs labelled calibration data: give --data with labels, or choose l2"
        if variant.model.signature.states:
            return "taylor importance can't feed a model with states: choose l2"
        return None

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the variant with fewer channels.

        Raises:
            Refused: The module can't be traced, none of its channels may go, or what is left can't be kept.
            NothingToGain: No group has as many channels as to lose that share of them.
        """
        module = load_live(variant.model)
        build = builder(module, variant)
        ranked = self._ranked(copy.deepcopy(module), variant, context.task)
        cuts = self._cuts(ranked, self.round_to or 1)
        sound = harmless(cuts, lambda some: build(some) is not None)
        broken = [cut.group for cut in cuts if cut not in sound]
        if cuts and not sound:
            raise Refused("this module fails without some channels of any layer: its code counts on their numbers")
        round_to, cuts = self._rounded([each for each in ranked if each[0] not in broken], build, variant, context)
        if not cuts:
            raise NothingToGain("no layer is wide enough to lose that share of its channels: give a larger amount")
        made = build(cuts)
        if made is None:
            raise Refused("this module fails without these channels: name some of its layers in keep")
        if self.refit:
            stayed = survivors(module, lambda marked: builder(marked, variant)(cuts))
            refit(module, made, narrowed(module, made, stayed), variant, context)
        names = {*kept(self.keep), *(name for group in broken for name in group.layers)}
        chosen = options_of(self, round_to=round_to, keep=SEPARATOR.join(sorted(names)))
        step = Step(technique=self.name, options=chosen, seed=context.seed)
        return variant.after(save_changed(variant.model, made, context.folder), step)

    def changes(self, before: Variant, after: Variant) -> tuple[str, ...]:
        """Return how many channels and heads each layer has now, and why the others kept theirs."""
        asked = dict(after.steps[-1].options)
        old, new = load_live(before.model), load_live(after.model)
        then, now = channel_counts(old), channel_counts(new)
        heads = _fewer(head_counts(old), head_counts(new), "heads")
        _, reasons = ChannelGraph(old, before.model.signature).groups(bool(asked.get("width", False)))
        named = dict.fromkeys(kept(str(asked.get("keep", ""))), "it was asked for, or the module fails without them")
        whole = [name for name in then if then[name] == now.get(name)]
        why = {name: {**named, **reasons}.get(name, "all its channels are needed") for name in whole}
        return (*_fewer(then, now, "channels"), *heads, *(f"kept {name}: {reason}" for name, reason in why.items()))

    def _ranked(self, module: Any, variant: Variant, task: Task) -> list[Ranked]:
        """Return the groups that may be pruned with the importance of their units."""
        asked = set(kept(self.keep))
        if unknown := asked - {name for name, _ in module.named_modules()}:
            listed = ", ".join(list(channel_counts(module))[:10])
            raise BadInput(f"the module has no layer named {min(unknown)!r} to keep; its layers are: {listed}")
        if self.importance == "taylor":
            learn_gradients(module, variant, task)
        graph = ChannelGraph(module, variant.model.signature)
        groups, reasons = graph.groups(self.width)
        groups = [group for group in groups if not asked & set(group.layers)]
        if not groups:
            told = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:3])
            raise Refused(f"none of this module's channels may be pruned ({told or 'all are to be kept'})")
        importance = importance_of(self.importance)
        scored = [(group, graph.scores(group, importance)) for group in groups]
        ranked = [(group, scores) for group, scores in scored if scores is not None]
        if not ranked:
            raise Refused(
                f"the layers that may be pruned have nothing for {self.importance} importance to read: take l2"
            )
        return ranked

    def _cuts(self, ranked: Sequence[Ranked], round_to: int) -> list[Cut]:
        """Return what to remove of each group, the least important units first."""
        counts = [len(scores) for _, scores in ranked]
        wanted = [count * (1 - self.amount) for count in counts]
        if self.scope == "global":
            wanted = left_globally(ranked, self.amount)
        found = []
        for (group, scores), count, left in zip(ranked, counts, wanted, strict=True):
            multiple = round_to // math.gcd(round_to, group.units.shape[1])
            removed = np.argsort(scores, kind="stable")[: count - rounded(count, left, multiple)]
            if len(removed):
                found.append(Cut(group=group, removed=tuple(int(unit) for unit in removed)))
        return found

    def _rounded(self, ranked: Sequence[Ranked], build: Build, variant: Variant, context: Context) -> Plan:
        """Return the plan with the multiple that was asked for, or the one that proves fastest per channel left."""
        plans: dict[object, Plan] = {}
        for multiple in ROUNDINGS if self.round_to is None else (self.round_to,):
            cuts = self._cuts(ranked, multiple)
            if cuts:
                what = tuple((cut.group.root, cut.group.inputs, cut.removed) for cut in cuts)
                plans.setdefault(what, (multiple, cuts))
        if len(plans) < 2:
            return next(iter(plans.values()), (self.round_to or 1, []))
        channels = sum(group.units.size for group, _ in ranked)
        return fastest(list(plans.values()), channels, build, variant, context)


def builder(module: Any, variant: Variant) -> Build:
    """Return a function that removes channels from copies of a module and checks the shapes of the outputs."""
    signature = variant.model.signature
    before = answers(copy.deepcopy(module), signature)

    def build(cuts: Sequence[Cut]) -> Any:
        made = copy.deepcopy(module)
        graph = ChannelGraph(made, signature)
        try:
            for cut in cuts:
                graph.remove(cut)
        except FOREIGN_ERRORS:  # whatever torch-pruning stumbles over
            return None
        found = answers(made, signature)
        return made if found is not None and found == before else None

    return build


def fastest(plans: Sequence[Plan], channels: int, build: Build, variant: Variant, context: Context) -> Plan:
    """Return the plan whose variant takes the least time per channel that stays, of those that can be timed in time.

    Roundings keep different numbers of channels: time alone would choose the one that keeps fewest.
    """
    costs: dict[int, float] = {}
    longest = 0.0
    with tempfile.TemporaryDirectory(dir=make_folder(context.folder)) as scratch:
        for number, (multiple, cuts) in enumerate(plans):
            start = time.monotonic()
            if costs and start + longest > context.deadline:
                break
            made = build(cuts)
            if made is None:
                continue
            model = save_changed(variant.model, made, Path(scratch) / str(multiple))
            left = channels - sum(cut.group.units[list(cut.removed)].size for cut in cuts)
            costs[number] = context.time(replace(variant, model=model)) / left
            longest = max(longest, time.monotonic() - start)
    return plans[min(costs, key=lambda number: costs[number], default=0)]


def rounded(count: int, wanted: float, multiple: int) -> int:
    """Return how many of `count` units stay: the multiple nearest to what is wanted, at least one unit.

    Where that would be none or all of them, half of the multiple is taken, and so on.
    """
    while multiple > 1:
        found = int(wanted / multiple + 0.5) * multiple
        if 0 < found < count:
            return found
        multiple //= 2
    return min(max(int(wanted + 0.5), 1), count)


def left_globally(ranked: Sequence[Ranked], amount: float) -> list[float]:
    """Return how many units of each group stay when the least important of all groups go, a share of all channels."""
    scores = np.concatenate([scores for _, scores in ranked])
    owners = np.repeat(np.arange(len(ranked)), [len(scores) for _, scores in ranked])
    sizes = [group.units.shape[1] for group, _ in ranked]
    counts = [len(scores) for _, scores in ranked]
    left, budget = list(counts), amount * sum(group.units.size for group, _ in ranked)
    for owner in owners[np.argsort(scores, kind="stable")]:
        if sizes[owner] <= budget and left[owner] - 1 >= (1 - _MOST) * counts[owner]:
            left[owner] -= 1
            budget -= sizes[owner]
    return [float(count) for count in left]


def learn_gradients(module: Any, variant: Variant, task: Task) -> None:
    """Leave in every parameter the gradient of the loss over some labelled calibration items."""
    torch, split = import_torch("pruning"), task.split("calibrate")
    labels = None if split is None else labels_of(split)
    loss = Loss(task, Recipe(), labels)
    call, output = caller(module, variant.model.signature), answer_spec(variant.model.signature, task.output).name
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    done = 0
    for feed in feeds(variant, task, _ITEMS):
        count = len(next(iter(feed.values())))
        found = call({name: torch.tensor(array) for name, array in feed.items()})[output]
        rows = torch.tensor(np.asarray(labels)[done : done + count])
        (loss(found, rows) * count).backward()
        done += count
    for parameter in module.parameters():
        if parameter.grad is None and parameter.requires_grad:  # nothing that the answer depends on
            parameter.grad = torch.zeros_like(parameter)


def _fewer(then: dict[str, int], now: dict[str, int], what: str) -> tuple[str, ...]:
    fewer = (name for name, count in then.items() if now.get(name, count) < count)
    return tuple(f"{name}: {then[name]} → {now[name]} {what}" for name in fewer)
