"""Which inputs of a model carry state from call to call: named by the user, or found by what people call them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from trimtab.core.errors import BadInput
from trimtab.core.values import Signature, TensorSpec

States = Sequence[tuple[str, str]]
"""Pairs of a state input and the output that feeds it at the next call."""


def with_states(given: Signature, states: States) -> Signature:
    """Return a signature in which these inputs are fed by these outputs.

    Raises:
        BadInput: A pair names what is not there or does not fit, or two pairs share an end.
    """
    inputs = {spec.name: spec for spec in given.inputs}
    outputs = {spec.name: spec for spec in given.outputs}
    for source, end in states:
        if source not in inputs or end not in outputs:
            known = f"inputs {', '.join(inputs)}; outputs {', '.join(outputs)}"
            raise BadInput(f"the state {source!r} ← {end!r} is not in the model, which has {known}")
        if not _fits(inputs[source], outputs[end]):
            raise BadInput(
                f"the state {source!r} ({_text(inputs[source])}) can't be fed with {end!r} ({_text(outputs[end])}): "
                "shape and dtype must agree"
            )
    feeds = dict(states)
    ends = set(feeds.values())
    if not len(states) == len(feeds) == len(ends):
        raise BadInput("an input or output is named in two states; name each once")
    return Signature(
        inputs=tuple(
            replace(spec, role="state", fed_by=feeds[spec.name]) if spec.name in feeds else spec
            for spec in given.inputs
        ),
        outputs=tuple(replace(spec, role="state") if spec.name in ends else spec for spec in given.outputs),
    )


def _text(spec: TensorSpec) -> str:
    return f"{spec.dtype} {list(spec.shape)}"


def _fits(source: TensorSpec, end: TensorSpec) -> bool:
    """Say whether an output can be fed to an input; a free dimension may take any size (a cache grows)."""
    if source.dtype != end.dtype:
        return False
    if end.shape == ("?",):
        return True
    return len(source.shape) == len(end.shape) and all(
        a == b or b == "?" or isinstance(a, str) for a, b in zip(source.shape, end.shape, strict=True)
    )


_CACHES = (
    (re.compile(r"^past_key_values\b(.*)$"), ("present{0}", "present_key_values{0}")),
    (re.compile(r"^past(_.+|\..+)$"), ("present{0}",)),
    (re.compile(r"^cache(_.+|\..+)$"), ("new_cache{0}", "cache{0}_out")),
)
_CELLS = (
    (re.compile(r"^(h|c)_?0?$"), ("{0}n", "{0}_n", "{0}_out", "{0}t", "{0}_t")),
    (re.compile(r"^(state|hidden|cell)s?$"), ("{0}N", "{0}_out", "{0}n", "new_{0}", "{0}_n", "{0}s_out")),
    (re.compile(r"^(.+)_in$"), ("{0}_out",)),
    (re.compile(r"^in_(.*(?:state|hidden|cache|mem).*)$"), ("out_{0}",)),
    (
        re.compile(r"^(?:input|prev|old)_(.*(?:state|hidden|cache|mem).*)$"),
        ("output_{0}", "next_{0}", "new_{0}", "{0}"),
    ),
)


def find_states(given: Signature) -> States:
    """Return the pairs that by their names, shapes and dtypes carry state; none when that would leave no data.

    Caches of attention (past → present) may grow; every other state must have one shape on both sides.
    """
    outputs = {spec.name: spec for spec in given.outputs}
    found: list[tuple[str, str]] = []
    for spec in given.inputs:
        taken = {end for _, end in found}
        for conventions, grows in ((_CACHES, True), (_CELLS, False)):
            ends = (outputs[name] for name in _partners(spec.name, conventions) if name in outputs)
            match = next((end for end in ends if end.name not in taken and _alike(spec, end, grows)), None)
            if match is not None:
                found.append((spec.name, match.name))
                break
    leaves_data = len(found) < len(given.inputs) and len(found) < len(given.outputs)
    return tuple(found) if leaves_data else ()


def _partners(name: str, conventions: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]) -> list[str]:
    return [form.format(match[1]) for pattern, forms in conventions if (match := pattern.match(name)) for form in forms]


def _alike(source: TensorSpec, end: TensorSpec, grows: bool) -> bool:
    return _fits(source, end) if grows else (source.dtype, source.shape) == (end.dtype, end.shape)
