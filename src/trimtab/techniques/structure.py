"""What the techniques share that change the layers of a PyTorch module: does it run, and which change breaks it?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from trimtab.core.errors import BadInput
from trimtab.core.values import Signature, Variant
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, describe

T = TypeVar("T")
Answers = list[tuple[str, str, tuple[int | str, ...]]]


def refusal(variant: Variant, name: str) -> str | None:
    """Return why the technique of that name can't change the layers of a variant, or None."""
    if variant.model.format == "torch":
        return None
    return f"{name} changes PyTorch modules that a factory builds (format torch), this one is {variant.model.format}"


def answers(module: Any, signature: Signature) -> Answers | None:
    """Return name, type and shape of every output, run at two sizes of each free dimension; None where that fails."""
    try:
        found = describe(module, signature.inputs, [spec.name for spec in signature.outputs])
    except (*FOREIGN_ERRORS, BadInput):
        return None
    return [(spec.name, spec.dtype, spec.shape) for spec in found.outputs]


def harmless(changes: Sequence[T], works: Callable[[Sequence[T]], bool]) -> list[T]:
    """Return changes with which a module works: all of them or, where it fails, those of both halves.

    So a few that break it are found among many with few trials. Halves that work alone and not together leave one of
    them.
    """
    if not changes or works(changes):
        return list(changes)
    if len(changes) == 1:
        return []
    middle = len(changes) // 2
    one, other = harmless(changes[:middle], works), harmless(changes[middle:], works)
    both = [*one, *other]
    return both if works(both) else one or other


def tied(module: Any) -> set[int]:
    """Return the ids of the parameters that several layers share, or one layer that stands in several places."""
    counts = Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))
    return {key for key, count in counts.items() if count > 1}
