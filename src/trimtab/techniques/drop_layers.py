"""Drops some of the equal layers that a network is a stack of: half of a transformer's, for instance."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from trimtab.core.errors import BadInput, NothingToGain, Refused
from trimtab.core.protocols import Context, Range
from trimtab.core.values import Signature, Step, Task, Variant
from trimtab.formats.torch import save_changed
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, caller, evaluated, import_torch, load_live, random_inputs
from trimtab.techniques.int8 import SEPARATOR, kept, options_of
from trimtab.techniques.structure import answers, harmless, refusal

WHICH = ("spread", "first")

Run = tuple[str, tuple[str, ...]]
"""The name of a list of layers, and the names in it of some that stand one behind the other and are alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropLayers:
    """Drops a share (`amount`) of the layers of every stack of equal ones; the others keep their weights.

    A stack is a row of members of a ModuleList or Sequential that are built alike and give as much as they take.
    `which` layers stay: spread evenly from the first to the last (as in DistilBERT, Sanh et al. 2019), or the first
    ones. At least one stays. Stacks named in `keep` (separated by |) stay whole, as do those that the module fails
    without.
    """

    amount: Annotated[float, Range(0.1, 0.9, 0.05)] = 0.5
    which: str = "spread"
    keep: str = ""

    name = "drop-layers"
    order = 9
    needs_training = True
    tidy = True

    def __post_init__(self) -> None:
        if not 0 < self.amount < 1:
            raise BadInput(f"amount={self.amount:g} is no share of the layers; type one between 0 and 1, such as 0.5")

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what no factory builds, and unknown choices."""
        if self.which not in WHICH:
            return f"there is no choice {self.which!r} of layers: choose spread or first"
        return refusal(variant, self.name)

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the variant with fewer layers.

        Raises:
            NothingToGain: No stack has as many layers as to lose that share of them.
            Refused: The module fails without any of them.
        """
        module, signature = load_live(variant.model), variant.model.signature
        asked = set(kept(self.keep))
        if unknown := asked - {name for name, _ in module.named_modules()}:
            raise BadInput(f"the module has no stack of layers named {min(unknown)!r} to keep")
        drops = [
            (name, gone)
            for name, members in stacks(module, signature)
            if name not in asked and (gone := self._dropped(members))
        ]
        if not drops:
            raise NothingToGain("no stack has as many equal layers as to lose that share of them: give a larger amount")
        before = answers(copy.deepcopy(module), signature)

        def works(some: Sequence[Run]) -> bool:
            found = answers(_without(module, some), signature)
            return found is not None and found == before

        sound = harmless(drops, works)
        if not sound:
            raise Refused("this module fails without any of its layers: its code counts on their number")
        names = {*asked, *(name for name, _ in drops)} - {name for name, _ in sound}
        chosen = options_of(self, keep=SEPARATOR.join(sorted(names)))
        step = Step(technique=self.name, options=chosen, seed=context.seed)
        return variant.after(save_changed(variant.model, _without(module, sound), context.folder), step)

    def changes(self, before: Variant, after: Variant) -> tuple[str, ...]:
        """Return how many layers each list had and has."""
        left = dict(_lists(load_live(after.model)))
        counts = ((name, len(part), len(left.get(name, part))) for name, part in _lists(load_live(before.model)))
        return tuple(f"{name}: {then} → {now} layers" for name, then, now in counts if now < then)

    def _dropped(self, members: tuple[str, ...]) -> tuple[str, ...]:
        stay = staying(len(members), self.amount, self.which)
        return tuple(name for place, name in enumerate(members) if place not in stay)


def staying(count: int, amount: float, which: str) -> tuple[int, ...]:
    """Return the places of the layers of a stack that stay when a share of them goes."""
    left = max(1, int(count * (1 - amount) + 0.5))
    if which == "first" or left == 1:
        return tuple(range(left))
    return tuple(int(place * (count - 1) / (left - 1) + 0.5) for place in range(left))


def stacks(module: Any, signature: Signature) -> list[Run]:
    """Return the rows of two and more members of a list that are built alike and give what they take.

    Of lists inside each other the outer one is taken where it holds such a row.
    """
    members = [layer for _, part in _lists(module) for layer in part]
    steady = _steady(module, members, signature)
    found: list[Run] = []
    for name, part in _lists(module):
        if any(not above or name.startswith(f"{above}.") for above, _ in found):
            continue
        plans = ((each, _plan(layer) if id(layer) in steady else id(layer)) for each, layer in part.named_children())
        rows = (tuple(each for each, _ in row) for _, row in itertools.groupby(plans, key=lambda pair: pair[1]))
        found += [(name, row) for row in rows if len(row) > 1]
    return found


def _lists(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield every ModuleList and Sequential with its name, the outer ones first."""
    nn = import_torch("dropping layers").nn
    return ((name, part) for name, part in module.named_modules() if type(part) in (nn.ModuleList, nn.Sequential))


def _plan(layer: Any) -> tuple[Any, ...]:
    """Return what tells whether two layers are built alike: kinds, settings and shapes, by name."""
    parts = ((name, type(part).__qualname__, part.extra_repr()) for name, part in layer.named_modules())
    tensors = ((name, tuple(tensor.shape)) for name, tensor in layer.state_dict().items())
    return (*parts, *tensors)


def _steady(module: Any, members: Sequence[Any], signature: Signature) -> set[int]:
    """Return the ids of the members that answer in the shape of their first input, in a call of the module."""
    torch = import_torch("dropping layers")
    found: set[int] = set()
    moved: set[int] = set()

    def watch(layer: Any, given: Any, named: Any, result: Any) -> None:
        first = next((x for x in (*given, *named.values()) if isinstance(x, torch.Tensor)), None)
        answer = result[0] if isinstance(result, tuple) and result else result
        same = first is not None and isinstance(answer, torch.Tensor) and answer.shape == first.shape
        same = same and any(True for _ in layer.parameters())
        (found if same else moved).add(id(layer))

    hooks = [layer.register_forward_hook(watch, with_kwargs=True) for layer in members]
    try:
        with evaluated(module), torch.no_grad():
            caller(module, signature)(random_inputs(signature.inputs))
    except FOREIGN_ERRORS as error:
        raise Refused(f"the module can't run on inputs of its own signature: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return found - moved


def _without(module: Any, drops: Sequence[Run]) -> Any:
    """Return a copy of a module without some members of its lists; those of a ModuleList are counted anew."""
    nn, made = import_torch("dropping layers").nn, copy.deepcopy(module)
    for name, gone in drops:
        part = made.get_submodule(name)
        for each in reversed(gone):
            if type(part) is nn.ModuleList:
                del part[int(each)]
            else:
                delattr(part, each)
    return made
