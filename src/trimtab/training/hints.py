"""Hints: what a student's inner maps are to have in common with a teacher's, besides what both answer.

Which layers are compared is found by itself, from one call of each network. Of stacks of layers on sequences those at
the same relative depth are, otherwise the last maps of images of each size that both have; of attention the queries,
keys and values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from trimtab.core.errors import BadInput
from trimtab.core.values import Signature
from trimtab.formats.torch_tracing import (
    FOREIGN_ERRORS,
    caller,
    evaluated,
    first_line,
    import_torch,
    random_inputs,
)

_MOST_HEADS = 12  # relations of few numbers say little, those of many are smoothed out
_TINY = 1e-12
_ROLES = {
    "query": re.compile(r"query|q|wq|to_q|q_proj|q_lin|query_proj"),
    "key": re.compile(r"key|k|wk|to_k|k_proj|k_lin|key_proj"),
    "value": re.compile(r"value|v|wv|to_v|v_proj|v_lin|value_proj"),
    "all": re.compile(r"qkv|wqkv|to_qkv|c_attn|query_key_value|in_proj", re.IGNORECASE),
}
"""What layers that make the queries, keys and values of attention are commonly called; "all" makes the three."""

_THIRDS = {"query": 0, "key": 1, "value": 2}

Compare = Callable[[Any, Any, Any], Any]
"""Returns the loss of a student's map against a teacher's, given a mask of items that are looked at, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A tensor inside a network: the first one that the layer of this name answers, or a third of its last axis."""

    layer: str
    third: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Term:
    """Two spots that are to agree, of the student and of a teacher, and how they are compared."""

    own: Spot
    other: Spot
    compare: Compare


class Watch:
    """Keeps what some layers of a module answered in its last call."""

    def __init__(self, module: Any, layers: Sequence[str]) -> None:
        self._seen: dict[str, Any] = {}
        parts = {name: module.get_submodule(name) for name in dict.fromkeys(layers)}
        self._hooks = [part.register_forward_hook(partial(self._keep, name)) for name, part in parts.items()]

    def _keep(self, name: str, layer: Any, given: Any, result: Any) -> None:
        found = _tensor(result)
        if found is not None:
            self._seen[name] = found

    def at(self, spot: Spot) -> Any:
        """Return the tensor at a spot."""
        found = self._seen[spot.layer]
        return found if spot.third is None else found.chunk(3, -1)[spot.third]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what was answered by name, in the order of the first answers."""
        return {name: tuple(tensor.shape) for name, tensor in self._seen.items()}

    def forget(self) -> None:
        """Free what was answered."""
        self._seen.clear()

    def close(self) -> None:
        """Look no more."""
        self.forget()
        for hook in self._hooks:
            hook.remove()


class Hints:
    """The loss of a student's inner maps against those of its teachers, and the adapters that are trained with it.

    `features` compares maps of activations: the student's, through an adapter of its own that is thrown away in the end
    (Romero et al. 2015), by their squared error in units of the teacher's mean square. `attention` compares where the
    networks look: of transformers the relations among queries, keys and values (Wang et al. 2021, MiniLMv2), of images
    the sums of squared activations (Zagoruyko and Komodakis 2017). `none` compares nothing.
    """

    def __init__(self, kind: str, student: Any, teachers: Sequence[Any], signature: Signature, seed: int = 0) -> None:
        torch = import_torch("distillation")
        self.adapters = torch.nn.ModuleList()
        self._sides: list[tuple[Watch, Watch, Sequence[Term]]] = []
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            for teacher in teachers if kind != "none" else ():
                terms = list(self._terms(kind, student, teacher, signature))
                if not terms:
                    raise BadInput(f"hints={kind} finds nothing that both networks have in common: {_WANTED[kind]}")
                own, other = (
                    Watch(student, [t.own.layer for t in terms]),
                    Watch(teacher, [t.other.layer for t in terms]),
                )
                self._sides.append((own, other, terms))

    def loss(self, tensors: Mapping[str, Any]) -> Any:
        """Return the mean loss of all pairs in the last calls of the networks on these inputs, 0 without pairs."""
        losses = []
        for own, other, terms in self._sides:
            for term in terms:
                one, two = own.at(term.own).float(), other.at(term.other).float()
                losses.append(term.compare(one, two, _mask(tensors, one)))
        for _, other, _ in self._sides:
            other.forget()
        return sum(losses) / len(losses) if losses else 0.0

    def pairs(self) -> list[tuple[str, str]]:
        """Return the names of the layers that are compared, of the student and of a teacher."""
        return [(term.own.layer, term.other.layer) for _, _, terms in self._sides for term in terms]

    def close(self) -> None:
        """Leave the networks as they were."""
        for own, other, _ in self._sides:
            own.close()
            other.close()

    def _terms(self, kind: str, student: Any, teacher: Any, signature: Signature) -> Iterator[Term]:
        own, other = (_shapes(module, signature) for module in (student, teacher))
        looks = list(_attention(own, other)) if kind == "attention" else []
        for spot, theirs, heads in looks:
            yield Term(own=spot, other=theirs, compare=partial(relation_loss, heads))
        if looks:
            return
        for one, two in _maps(student, own, teacher, other, sequences=kind == "features"):
            compare: Compare = attention_loss
            if kind == "features":
                self.adapters.append(_adapter(own[one], other[two]))
                compare = partial(feature_loss, self.adapters[-1])
            yield Term(own=Spot(layer=one), other=Spot(layer=two), compare=compare)


_WANTED = {
    "features": "maps of images of one size, or stacks of layers on sequences of one length; leave hints out",
    "attention": "layers called query, key and value, or maps of images of one size; leave hints out",
}


def feature_loss(adapter: Any, own: Any, other: Any, mask: Any = None) -> Any:
    """Return the squared error of adapted maps [items, channels, …] or [items, tokens, channels], 1 for zeros."""
    error, size = (adapter(own) - other).square(), other.square()
    if mask is not None:
        error, size = error[mask], size[mask]
    return error.mean() / size.mean().clamp(min=_TINY)


def attention_loss(own: Any, other: Any, mask: Any = None) -> Any:
    """Return the mean squared distance of maps of attention [items, channels, height, width], each of length 1."""
    normalize = import_torch("distillation").nn.functional.normalize
    one, two = (normalize(each.square().mean(1).flatten(1)) for each in (own, other))
    return (one - two).square().sum(1).mean()


def relation_loss(heads: int, own: Any, other: Any, mask: Any = None) -> Any:
    """Return the Kullback-Leibler divergence of two relations among vectors [items, tokens, channels].

    A relation is the softmax of the scaled products of all pairs of tokens, for each of some parts of the channels; the
    widths of both may differ. Tokens that the mask [items, tokens] leaves out are neither asked nor answered.
    """
    losses = import_torch("distillation").nn.functional
    one, two = (_relation(each, heads, mask) for each in (own, other))
    rows = losses.kl_div(one, two, reduction="none", log_target=True).sum(-1).mean(1)
    return rows.mean() if mask is None else rows[mask].mean()


def _relation(vectors: Any, heads: int, mask: Any) -> Any:
    """Return the logarithm of a relation, [items, heads, tokens, tokens]; what is left out is very small in both."""
    parts = vectors.unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = parts @ parts.transpose(2, 3) / parts.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], -1e4)
    return scores.log_softmax(-1)


def _mask(tensors: Mapping[str, Any], found: Any) -> Any:
    """Return the input that says which tokens are looked at, as true and false; None where there is none."""
    given = (each for name, each in tensors.items() if "mask" in name and each.shape == found.shape[:2])
    mask = next(given, None)
    return None if mask is None or found.ndim != 3 else mask.bool()


def _tensor(result: Any) -> Any:
    """Return what a layer answers, the first of several tensors, or None."""
    first = result[0] if isinstance(result, tuple | list) and result else result
    return first if isinstance(first, import_torch("distillation").Tensor) else None


def _shapes(module: Any, signature: Signature) -> dict[str, tuple[int, ...]]:
    """Return what each layer of a module answers in one call, by name, in the order of the answers."""
    torch = import_torch("distillation")
    if not isinstance(module, torch.nn.Module):
        raise BadInput("an exported program has no layers to compare with: give the teacher's factory, or no hints")
    watch = Watch(module, [name for name, _ in module.named_modules() if name])
    try:
        with evaluated(module), torch.no_grad():
            caller(module, signature)(random_inputs(signature.inputs))
        return watch.shapes()
    except FOREIGN_ERRORS as error:
        raise BadInput(f"a network can't be looked into: it fails on random inputs ({first_line(error)})") from error
    finally:
        watch.close()


def _maps(
    student: Any,
    own: Mapping[str, tuple[int, ...]],
    teacher: Any,
    other: Mapping[str, tuple[int, ...]],
    *,
    sequences: bool,
) -> list[tuple[str, str]]:
    """Return the names of the layers whose maps are compared: of stacks on sequences, or the last ones of a size."""
    stacks = [_stack(student, own), _stack(teacher, other)] if sequences else [[], []]
    if all(stacks):
        pairs = _by_depth(*stacks)
        return [pair for pair in pairs if own[pair[0]][:2] == other[pair[1]][:2]]
    ends = [_ends(module, shapes) for module, shapes in ((student, own), (teacher, other))]
    return [(name, ends[1][size]) for size, name in ends[0].items() if size in ends[1]]


def _ends(module: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[tuple[int, ...], str]:
    """Return the last layer of each size of maps of images; what is inside a block is its own affair.

    A block is a member of a list of layers: one that makes maps smaller may widen them before.
    """
    nn = import_torch("distillation").nn
    lists = {name for name, part in module.named_modules() if isinstance(part, nn.ModuleList | nn.Sequential)}

    def inside(name: str) -> bool:
        above = name.rpartition(".")[0]
        return bool(above) and (above.rpartition(".")[0] in lists or inside(above))

    maps = {name: shape[2:] for name, shape in shapes.items() if len(shape) == 4 and not inside(name)}
    return {size: name for name, size in maps.items() if size != (1, 1)}


def _stack(module: Any, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the members on sequences of the longest list of parts of a module, each of several layers."""
    nn = import_torch("distillation").nn
    lists = [
        [f"{name}.{child}".removeprefix(".") for child, layer in part.named_children() if any(layer.children())]
        for name, part in module.named_modules()
        if isinstance(part, nn.ModuleList | nn.Sequential)
    ]
    return max(([name for name in row if len(shapes.get(name, ())) == 3] for row in lists), key=len, default=[])


def _by_depth(own: Sequence[Any], other: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return each of the one with that of the other at the same relative depth, the last with the last."""
    return [(each, other[-(-(place + 1) * len(other) // len(own)) - 1]) for place, each in enumerate(own)]


def _attention(
    own: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[Spot, Spot, int]]:
    """Yield the spots of queries, keys and values at one relative depth, with the number of parts to compare in."""
    for role, third in _THIRDS.items():
        ones, twos = (_spots(side, role, third) for side in (own, other))
        for (one, width), (two, breadth) in _by_depth(ones, twos) if ones and twos else ():
            heads = max(count for count in range(1, _MOST_HEADS + 1) if width % count == 0 and breadth % count == 0)
            if own[one.layer][:2] == other[two.layer][:2]:
                yield one, two, heads


def _spots(shapes: Mapping[str, tuple[int, ...]], role: str, third: int) -> list[tuple[Spot, int]]:
    """Return where the queries, keys or values of every attention are, in order, with their widths."""
    found = []
    for name, shape in shapes.items():
        last = name.rpartition(".")[2]
        if len(shape) == 3 and _ROLES[role].fullmatch(last):
            found.append((Spot(layer=name), shape[2]))
        elif len(shape) == 3 and shape[2] % 3 == 0 and _ROLES["all"].fullmatch(last):
            found.append((Spot(layer=name, third=third), shape[2] // 3))
    return found


def _adapter(own: tuple[int, ...], other: tuple[int, ...]) -> Any:
    """Return a layer from the channels of one map to those of another."""
    nn = import_torch("distillation").nn
    return nn.Conv2d(own[1], other[1], 1) if len(own) == 4 else nn.Linear(own[2], other[2])
