"""Gives a student the weights of a teacher's layers of the same role, wherever they are large enough for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.students.layers import torch_for_students


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Unit:
    """A convolution or linear layer by its name, with the batch normalization behind it, and what it is for."""

    name: str
    layer: Any
    norm: Any
    role: tuple[Any, ...]


def inherit(student: Any, teacher: Any) -> tuple[tuple[str, str], ...]:
    """Copy the teacher's weights into the student, and return the names of the layers that got some with their sources.

    Both are walked in order; a layer may inherit from one of the same kind and kernel with at least as many channels,
    whose first channels it takes, as slimmable networks do (Yu et al. 2019); the first and the last one only from the
    first and the last. Of all assignments that keep the order one is taken in which most layers inherit, and of those
    the one whose layers take the largest shares of their sources, so that equal shapes meet.
    """
    torch = torch_for_students()
    own, others = _units(student), _units(teacher)
    pairs = _aligned([[_worth(one, other, len(own)) for other in others] for one in own])
    with torch.no_grad():
        for i, j in pairs:
            _copy(own[i].layer, others[j].layer)
            if own[i].norm is not None and others[j].norm is not None:
                _copy(own[i].norm, others[j].norm)
    return tuple((own[i].name, others[j].name) for i, j in pairs)


def _units(module: Any) -> list[_Unit]:
    nn = torch_for_students().nn
    leaves = [(name, part) for name, part in module.named_modules() if not list(part.children())]
    places = [place for place, (_, part) in enumerate(leaves) if type(part) in (nn.Conv2d, nn.Linear)]
    found = []
    for place in places:
        name, layer = leaves[place]
        kind: tuple[Any, ...] = ("linear",)
        if type(layer) is nn.Conv2d:
            depthwise = layer.groups > 1 and layer.groups == layer.in_channels
            kind = ("convolution", layer.kernel_size, "depthwise" if depthwise else layer.groups)
        role = (*kind, place == places[0], place == places[-1])
        after = leaves[place + 1][1] if place + 1 < len(leaves) else None
        norm = after if isinstance(after, nn.BatchNorm2d) and after.num_features == len(layer.weight) else None
        found.append(_Unit(name=name, layer=layer, norm=norm, role=role))
    return found


def _worth(one: _Unit, other: _Unit, most: int) -> float:
    """Return what a pair counts: 1 and, less than all pairs do, its share of the source's weights; 0 if it can't be."""
    small, large = one.layer.weight, other.layer.weight
    fits = one.role == other.role and all(a <= b for a, b in zip(small.shape, large.shape, strict=True))
    return float(1 + small.numel() / large.numel() / (most + 1)) if fits else 0.0


def _aligned(worths: list[list[float]]) -> list[tuple[int, int]]:
    """Return the pairs, in order on both sides, whose worths have the largest sum (dynamic programming)."""
    rows, columns = len(worths), len(worths[0]) if worths else 0
    best = np.zeros((rows + 1, columns + 1))
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            best[i, j] = max(best[i + 1, j], best[i, j + 1], best[i + 1, j + 1] + worths[i][j])
    pairs, i, j = [], 0, 0
    while i < rows and j < columns:
        if worths[i][j] and best[i, j] == best[i + 1, j + 1] + worths[i][j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i, j] == best[i + 1, j]:
            i += 1
        else:
            j += 1
    return pairs


def _copy(to: Any, source: Any) -> None:
    """Copy the first channels of every tensor that both have; a count of batches is copied as it is."""
    given = dict(source.state_dict())
    for name, tensor in to.state_dict().items():
        if name in given:
            tensor.copy_(given[name][tuple(slice(size) for size in tensor.shape)])
