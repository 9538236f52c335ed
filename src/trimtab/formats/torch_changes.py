"""A module that was changed after its factory built it, as what can be written down: edits, weights, shared names.

What can't be told by structure and weights (a hook, a function, a private attribute) is found by asking the module that
was rebuilt from them: it has to give the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.core.errors import BadInput, Refused
from trimtab.core.values import Signature
from trimtab.formats.torch_structure import Edit, difference, restructure
from trimtab.formats.torch_tracing import (
    FOREIGN_ERRORS,
    caller,
    evaluated,
    first_line,
    import_torch,
    random_inputs,
)
from trimtab.formats.torch_weights import Aliases, fill, share, unshared

_TOLERANCE = 1e-3
"""By how much of its largest magnitude an output may differ: the layout of the weights in memory moves roundings."""


def changes(built: Any, module: Any, signature: Signature) -> tuple[tuple[Edit, ...], dict[str, Any], Aliases]:
    """Return what makes the changed module of the one that its factory builds: edits, tensors, shared names.

    Args:
        built: The module as the factory builds it; it is changed on the way.
        module: The changed module; it stays as it is.
        signature: What both are called with and answer.

    Raises:
        Refused: The module can't be rebuilt, or it doesn't answer as the signature says; the message says why.
    """
    if {id(weight) for weight in built.parameters()} & {id(weight) for weight in module.parameters()}:
        raise Refused("the factory gives the same weights again; let it build a new module at every call")
    edits = difference(built, module)
    tensors, aliases = unshared(module)
    try:
        rebuilt = completed(built, edits, tensors, aliases, "the changed module")
    except BadInput as error:
        raise Refused(f"the changed module can't be rebuilt from what its factory builds: {error}") from error
    _check_answers(module, rebuilt, signature)
    return edits, tensors, aliases


def completed(module: Any, edits: Sequence[Edit], tensors: Mapping[str, Any], aliases: Aliases, source: str) -> Any:
    """Return a factory's module with the edits applied and the weights filled in; `source` is whose weights they are.

    Raises:
        BadInput: Edits or weights don't fit the module.
    """
    module = restructure(module, edits)
    share(module, aliases)
    fill(module, {**tensors, **{name: tensors[kept] for name, kept in aliases if kept in tensors}}, source)
    return module


def _check_answers(module: Any, rebuilt: Any, signature: Signature) -> None:
    """Raise `Refused` where the rebuilt module answers otherwise than the changed one, or that not as it should."""
    torch = import_torch("comparing PyTorch modules")
    device = next((tensor.device for tensor in module.state_dict().values()), torch.device("cpu"))
    given = {name: value.to(device) for name, value in random_inputs(signature.inputs).items()}
    wanted = _answers(module, signature, given, "the changed module")
    found = _answers(rebuilt.to(device), signature, given, "what can be rebuilt of the changed module")
    for spec in signature.outputs:
        one, other = wanted[spec.name], found[spec.name]
        if not _fits(spec.shape, tuple(one.shape)):
            raise Refused(
                f"the changed module answers {spec.name!r} of the shape {list(one.shape)} where the model's is "
                f"{list(spec.shape)}; open it as a model of its own"
            )
        if one.shape != other.shape or not _alike(one.double(), other.double()):
            raise Refused(
                f"the changed module can't be kept: rebuilt from its layers, attributes and weights it answers another "
                f"{spec.name!r}, so a hook, a function or a private attribute was changed besides"
            )


def _answers(live: Any, signature: Signature, given: Mapping[str, Any], what: str) -> dict[str, Any]:
    torch = import_torch("running a PyTorch module")
    try:
        with evaluated(live), torch.no_grad():  # not inference_mode: what a module keeps of a call must serve training
            return caller(live, signature)(given)
    except FOREIGN_ERRORS as error:
        raise Refused(f"{what} can't run on the model's inputs: {first_line(error)}") from error


def _fits(wanted: Sequence[int | str], shape: Sequence[int]) -> bool:
    sizes = zip(wanted, shape, strict=False)
    return len(wanted) == len(shape) and all(isinstance(size, str) or size == found for size, found in sizes)


def _alike(one: Any, other: Any) -> bool:
    largest = float(one.nan_to_num(0.0, 0.0, 0.0).abs().max()) if one.numel() else 0.0
    return bool(one.isclose(other, rtol=0.0, atol=_TOLERANCE * largest + 1e-12, equal_nan=True).all())
