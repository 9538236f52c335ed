"""Unstructured and N:M pruning: single weights become zero while the network is trained, and stay so."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

import numpy as np

from trimtab.core.errors import BadInput, NothingToGain
from trimtab.core.protocols import Array, Choices, Context
from trimtab.core.values import Step, Task, Variant, content_digest
from trimtab.data.labels import answer_spec
from trimtab.formats.huggingface import save_trained
from trimtab.formats.torch import save_changed
from trimtab.formats.torch_tracing import caller, evaluated, import_torch, load_live
from trimtab.techniques import learning
from trimtab.techniques.int8 import feeds, kept, options_of
from trimtab.training.recipe import Recipe

IMPORTANCES = ("magnitude", "fisher")
SCOPES = ("global", "uniform")
_PATTERN = re.compile(r"([1-9]\d*):([1-9]\d*)")
_PULSES = 10  # how often weights are taken away on the way to the amount
_RAMP = 0.5  # the share of the epochs after which all are away; the rest is to recover
_LEAST = 0.02  # of every layer stays, whatever a global ranking says
_ITEMS = 64  # whose gradients make the Fisher information


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparsify:
    """Makes a share (`amount`) of the weights of convolutions and linear layers zero, step by step while training.

    The architecture stays: the model is smaller once it is compressed, and faster only where an engine makes use of
    zeros. The share grows by the cubic schedule of Zhu and Gupta (2017) over the first half of the epochs. `importance`
    is magnitude, or fisher: what the loss grows by without a weight, to second order, by the diagonal of the Fisher
    information (optimal brain damage, LeCun 1990). `scope` takes what matters least wherever it is (global), or the
    same share of every layer (uniform). `pattern` n:m keeps n of m neighbouring inputs instead ("2:4"), none any of
    them. Layers named in `keep` (separated by |) stay as they are. The other options are those of `trimtab train`; in
    distillation the original teaches.
    """

    amount: Annotated[float, Choices(0.5, 0.8, 0.9)] = 0.8
    pattern: str = "none"
    importance: str = "magnitude"
    scope: str = "global"
    epochs: int = 4
    batch: int = 64
    optimizer: str = "adam"
    lr: float = 1e-3
    schedule: str = "cosine"
    augment: str = "none"
    distill: float = 0.5
    temperature: float = 4.0
    keep: str = ""

    name = "sparsify"
    order = 9
    learns = True
    saves = "bytes_compressed"

    def __post_init__(self) -> None:
        if not 0 < self.amount < 1:
            raise BadInput(f"amount={self.amount:g} is no share of the weights; type one between 0 and 1, such as 0.8")
        _shape(self.pattern)

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what can't be trained, an unknown importance or scope, and missing data."""
        for option, known in (("importance", IMPORTANCES), ("scope", SCOPES)):
            if getattr(self, option) not in known:
                return f"there is no {option} {getattr(self, option)!r}: choose one of {', '.join(known)}"
        if reason := learning.refusal(variant, task, self.name):
            return reason
        if self.importance == "fisher" and task.split("calibrate") is None:
            return "fisher importance needs calibration data: give --data, or take magnitude"
        return None

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the variant with the weights of the epoch that did best with all its zeros.

        Raises:
            Refused: no epoch ended within the time after the last weight was taken.
            NothingToGain: there is no weight to take.
        """
        module = load_live(variant.model)
        masks = Masks(module, self, lambda: fisher(module, variant, context.task, context.seed))
        recipe = self._recipe(context)
        start = content_digest(variant.model.digest, self.name, options_of(self))
        learning.learn(module, variant.model.signature, recipe, context, start, hold=masks.hold)
        masks.leave()
        done = replace(self, distill=recipe.distill)
        step = Step(technique=self.name, options=options_of(done), seed=context.seed)
        save = save_trained if variant.model.format == "huggingface" else save_changed
        return variant.after(save(variant.model, module, context.folder), step)

    def changes(self, before: Variant, after: Variant) -> tuple[str, ...]:
        """Return how many weights of each layer are zero now, and what that is good for."""
        found = prunable(load_live(after.model))
        zeros = {name: int((weight == 0).sum()) for name, weight in found.items()}
        total = sum(weight.numel() for weight in found.values())
        share = sum(zeros.values()) / max(total, 1)
        lines = (f"{name}: {zeros[name]:,} of {weight.numel():,} weights are zero" for name, weight in found.items())
        return (
            f"{share:.1%} of {total:,} weights are zero: fewer bytes once they are compressed, "
            "and no less time unless the engine makes use of zeros",
            *lines,
        )

    def _recipe(self, context: Context) -> Recipe:
        known = {field.name for field in fields(Recipe)}
        given = {name: value for name, value in asdict(self).items() if name in known}
        return Recipe(**{**given, "distill": learning.share(self.distill, context)}, seed=context.seed)


class Masks:
    """Which weights of a module may be other than zero, kept beside them so that a checkpoint holds them too.

    Args:
        module: gets a buffer for each mask until `leave`.
        asked: how many weights go, and which.
        information: tells the Fisher information of every weight by name.
    """

    def __init__(self, module: Any, asked: Sparsify, information: Any) -> None:
        self._torch = import_torch("pruning")
        self._module, self._asked, self._information = module, asked, information
        self._pattern = _shape(asked.pattern)
        whole = prunable(module)
        if unknown := sorted(set(kept(asked.keep)) - set(whole)):
            raise BadInput(f"the module has no layer named {unknown[0]!r} to keep; its layers are: {', '.join(whole)}")
        self._weights = {
            name: each for name, each in whole.items() if name not in kept(asked.keep) and self._fits(each)
        }
        if not self._weights:
            raise NothingToGain(
                f"no convolution and no linear layer has weights to take by the pattern {asked.pattern}"
            )
        for number, weight in enumerate(self._weights.values()):
            module.register_buffer(f"_mask_{number}", self._torch.ones_like(weight, dtype=self._torch.bool))
        module.register_buffer("_pulse", self._torch.zeros((), dtype=self._torch.int64))

    def hold(self, epochs: float) -> bool:
        """Take more weights where that is due after so many epochs, keep all that were taken at zero."""
        due = min(int(epochs / (_RAMP * self._asked.epochs) * _PULSES + 1e-9), _PULSES)
        if due > int(self._module._pulse):
            self._module._pulse.fill_(due)
            self._take(share_at(due / _PULSES))
        with self._torch.no_grad():
            for mask, weight in zip(self._masks(), self._weights.values(), strict=True):
                weight.mul_(mask)
        return due == _PULSES

    def leave(self) -> None:
        """Leave the module without its masks."""
        for number in range(len(self._weights)):
            delattr(self._module, f"_mask_{number}")
        del self._module._pulse

    def _masks(self) -> list[Any]:
        return [getattr(self._module, f"_mask_{number}") for number in range(len(self._weights))]

    def _fits(self, weight: Any) -> bool:
        return self._pattern is None or weight.shape[1] % self._pattern[1] == 0

    def _take(self, share: float) -> None:
        """Let go of what matters least, at that share of the way to the amount."""
        importances = [value.numpy() for value in self._importances()]
        if self._pattern is not None:
            keep, group = self._pattern
            left = max(keep, math.ceil(group - share * (group - keep) - 1e-9))
            found = [in_groups(each, left, group) for each in importances]
        else:
            found = largest(importances, 1.0 - share * self._asked.amount, self._asked.scope)
        for mask, stays in zip(self._masks(), found, strict=True):
            mask.copy_(self._torch.from_numpy(stays) & mask)

    def _importances(self) -> list[Any]:
        """Return how much each weight matters: its magnitude, or w²F/2; less than anything where it is gone."""
        weights = self._weights
        if self._asked.importance == "fisher":
            known: Mapping[str, Any] = self._information()
            found = [weight.detach() ** 2 * known[name] / 2 for name, weight in weights.items()]
        else:
            found = [weight.detach().abs() for weight in weights.values()]
        return [value.masked_fill(~mask, -1.0) for value, mask in zip(found, self._masks(), strict=True)]


def share_at(progress: float) -> float:
    """Return which share of the weights to take is taken at a share of the way (Zhu and Gupta 2017, equation 1)."""
    return 1.0 - (1.0 - progress) ** 3


def largest(importances: Sequence[Array], share: float, scope: str) -> list[Array]:
    """Return which weights stay, a share of each layer (uniform) or of all; a fiftieth of each layer always does."""
    if scope == "uniform":
        return [_top(each, share) for each in importances]
    safe = [np.where(_top(each, _LEAST), np.inf, each) for each in importances]
    stays = _top(np.concatenate([each.reshape(-1) for each in safe]), share)
    edges = np.cumsum([each.size for each in importances])[:-1]
    return [part.reshape(each.shape) for part, each in zip(np.split(stays, edges), importances, strict=True)]


def in_groups(importance: Array, left: int, group: int) -> Array:
    """Return which weights stay when of each `group` of neighbouring inputs (axis 1) the `left` most important do."""
    moved = np.moveaxis(importance, 1, -1)
    parts = moved.reshape(*moved.shape[:-1], -1, group)
    order = np.argsort(np.argsort(-parts, axis=-1, kind="stable"), axis=-1, kind="stable")
    return np.moveaxis((order < left).reshape(moved.shape), -1, 1)


def _top(importance: Array, share: float) -> Array:
    """Return which of the values are among the most important ones, that share of all and at least one."""
    count = max(1, round(share * importance.size))
    found = np.zeros(importance.size, dtype=bool)
    found[np.argsort(-importance, axis=None, kind="stable")[:count]] = True
    return found.reshape(importance.shape)


def prunable(module: Any) -> dict[str, Any]:
    """Return the weights of convolutions and linear layers by the name of their layer; shared ones once."""
    layers = import_torch("pruning").nn
    kinds = (layers.Linear, layers.modules.conv._ConvNd)
    named = ((name, layer.weight) for name, layer in module.named_modules() if isinstance(layer, kinds))
    seen: dict[int, str] = {}
    return {name: weight for name, weight in named if seen.setdefault(id(weight), name) == name}


def fisher(module: Any, variant: Variant, task: Task, seed: int) -> dict[str, Any]:
    """Return the diagonal of the Fisher information of every weight, by the name of its layer.

    That is the mean square of the gradients of log p(y | x) with y drawn from what the network answers to calibration
    items x; numbers are taken to have a normal error of variance 1.
    """
    torch, weights, signature = import_torch("pruning"), prunable(module), variant.model.signature
    call, output = caller(module, signature), answer_spec(signature, task.output).name
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    draw, count = torch.Generator().manual_seed(seed), 0
    with evaluated(module):
        for feed in feeds(variant, task, _ITEMS):
            flat = call({name: torch.tensor(array) for name, array in feed.items()})[output].float().flatten(1)
            loss = _drawn_loss(torch, flat, task, draw)
            for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
                total[name] += gradient**2
            count += 1
    return {name: value / count for name, value in total.items()}


def _drawn_loss(torch: Any, answers: Any, task: Task, draw: Any) -> Any:
    """Return −log p of an answer drawn from those of the network, answers [items, outputs]."""
    losses, known = torch.nn.functional, answers.detach()
    if task.kind not in ("classification", "binary"):
        return losses.mse_loss(answers, known + torch.randn(known.shape, generator=draw), reduction="sum") / 2
    if answers.shape[1] > 1:
        return losses.cross_entropy(
            answers, torch.multinomial(known.softmax(1), 1, generator=draw)[:, 0], reduction="sum"
        )
    wanted = torch.bernoulli(known.sigmoid(), generator=draw)
    return losses.binary_cross_entropy_with_logits(answers, wanted, reduction="sum")


def _shape(pattern: str) -> tuple[int, int] | None:
    """Return n and m of a pattern n:m, None for "none"."""
    if pattern == "none":
        return None
    match = _PATTERN.fullmatch(pattern)
    if match is None or int(match[1]) >= int(match[2]):
        raise BadInput(f'pattern={pattern!r} is not understood; type "2:4", "1:4" or the like, or "none"')
    return int(match[1]), int(match[2])
