"""Counting multiply-accumulates (MACs), as far as it is the same for every form of a graph.

Convolution, matrix products, attention and recurrent cells count, with padding and the full attention square; biases,
elementwise operators, normalization, softmax, pooling and data movement don't. The non-zero count leaves out the
products with a weight that is zero (for integer weights: at its zero point); packed weights and products of two
activations count as dense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.core.values import Layer, Work

if TYPE_CHECKING:
    from trimtab.core.protocols import Array

MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError)
"""What a node raises whose inputs or attributes are not as its operator says."""

Share = tuple[int, int]
"""How many elements of a weight are not zero, and how many there are; (1, 1) of what is no weight."""


@dataclass(frozen=True, slots=True)
class Part:
    """MACs of one product, what may hold its weight (inputs by number, or nodes), and the input of its zero point."""

    macs: int
    weights: tuple[Any, ...] = ()
    zero: int | None = None


class UnknownError(Exception):
    """The MACs of an operator can't be determined; the message says why."""


def counted(name: str, operator: str, rule: Callable[[], list[Part]], share: Callable[[Part, Any], Share]) -> Layer:
    """Return a layer with the MACs that its rule finds, or uncounted with the reason why it finds none.

    Args:
        name: The layer's name.
        operator: Its operator.
        rule: Returns the products of the layer; may raise `UnknownError`, or one of `MALFORMED`.
        share: Returns the share of one of the weights of a product that is not zero.
    """
    try:
        parts = rule()
        shares = [[share(part, weight) for weight in part.weights] for part in parts]
    except UnknownError as error:
        return uncounted(name, operator, str(error))
    except MALFORMED as error:
        return uncounted(name, operator, f"its inputs or attributes are not as they should be ({error!r})")
    nonzero = sum(
        min((part.macs * kept // size for kept, size in found), default=part.macs)
        for part, found in zip(parts, shares, strict=True)
    )
    return Layer(name=name, operator=operator, macs=sum(part.macs for part in parts), nonzero=nonzero)


def uncounted(name: str, operator: str, reason: str = "there is no rule for this operator") -> Layer:
    """Return a layer that could not be counted, with the reason."""
    return Layer(name=name, operator=operator, macs=None, reason=reason)


def within(outer: str, bodies: Sequence[Work], times: int | None) -> Work:
    """Return the work of a layer with subgraphs: of every turn of its body or, of several branches, of the largest.

    Args:
        outer: The layer's name; it goes before those of the layers inside.
        bodies: The work of each subgraph.
        times: How often they run; None where that is not known.
    """
    largest = max(bodies, key=lambda work: work.macs)
    open_ends = (layer for work in bodies if work is not largest for layer in work.uncounted)
    layers = tuple(_repeated(layer, outer, times) for layer in (*largest.layers, *open_ends))
    return Work(layers=layers, excluded=largest.excluded)


def _repeated(layer: Layer, outer: str, times: int | None) -> Layer:
    layer = replace(layer, name=f"{outer}/{layer.name}")
    if layer.macs is None:
        return layer
    if times is None:
        return uncounted(layer.name, layer.operator, "it is in a loop of unknown length")
    return replace(layer, macs=layer.macs * times, nonzero=(layer.nonzero or 0) * times)


def einsum_macs(equation: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the product of the sizes of all indices, 0 where nothing is summed over.

    Raises:
        UnknownError: There are more than two operands: their order decides.
    """
    terms, arrow, result = equation.replace(" ", "").partition("->")
    operands = terms.split(",")
    if len(operands) > 2:
        raise UnknownError("an Einsum of more than two operands has no single order")
    if len(operands) == 1:
        return 0
    sizes: dict[str, int] = {}
    for operand, shape in zip(operands, shapes, strict=True):
        for index, size in _index_sizes(operand, shape).items():
            if sizes.get(index, 1) == 1:  # of length one, it is broadcast
                sizes[index] = size
    kept = result if arrow else "".join(name for name in terms if terms.count(name) == 1)
    summed = [name for name in sizes if len(name) == 1 and name not in kept]
    return math.prod(sizes.values()) if summed else 0


def _index_sizes(operand: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Return sizes by index; the axes of an ellipsis are named from the right, so that they meet when broadcast."""
    before, dots, after = operand.partition("...")
    hidden = len(shape) - len(before) - len(after) if dots else 0
    names = [*before, *(f"...{place}" for place in range(hidden, 0, -1)), *after]
    return dict(zip(names, shape, strict=True))


def share_kept(content: Array, zero: Array | None) -> Share:
    """Return how many elements of a weight are not zero (not at their zero point), and how many there are."""
    if content.size == 0:
        return (1, 1)
    if content.dtype.kind not in "iuf":
        content = content.astype(np.float32)  # bfloat16 and smaller
    if zero is None or not zero.astype(np.float32).any():
        return int(np.count_nonzero(content)), content.size
    return int(np.count_nonzero(content != _spread(zero.astype(content.dtype), content.shape))), content.size


def _spread(point: Array, shape: tuple[int, ...]) -> Array:
    """Return zero points, one in all or one per channel, in a form that broadcasts against the weight."""
    if point.size == 1:
        return point.reshape(())
    axis = next((axis for axis, size in enumerate(shape) if size == point.size), None)
    if point.ndim == len(shape) or axis is None:
        fits = point.ndim == len(shape) and all(a in (1, b) for a, b in zip(point.shape, shape, strict=True))
        return point if fits else np.zeros((), point.dtype)
    return point.reshape([-1 if at == axis else 1 for at in range(len(shape))])
