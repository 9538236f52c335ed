"""Makes a variant ready to run in this process, and runs stateful models over whole sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core import plugins
from trimtab.core.errors import BadInput
from trimtab.core.protocols import Arrays, Engine, Runtime
from trimtab.core.values import Settings, Signature, Variant


def ready(variant: Variant) -> Engine:
    """Return the engine of a variant, with its state fed back when the model has one."""
    runtime: Runtime = plugins.make("runtimes", variant.settings.runtime)
    if reason := runtime.refuses(variant):
        raise BadInput(f"{variant.settings.runtime} can't run this model: {reason}")
    engine = runtime.load(variant)
    return Stateful(engine, variant.model.signature) if variant.model.signature.states else engine


def unsupported(settings: Settings, *known: str) -> str | None:
    """Say in words what is asked for beyond the settings that a runtime on the CPU knows, or None.

    A setting that is silently left out would be a label that lies; what is at its default asks for nothing.
    """
    if settings.device != "cpu":
        return f"device {settings.device!r} is not offered yet, only 'cpu'"
    held = [(field.name, getattr(settings, field.name), field.default) for field in fields(settings)]
    asked = [(name, value) for name, value, default in held if name not in ("runtime", "extra") and value != default]
    strange = [f"{name}={value}" for name, value in (*asked, *settings.extra) if name not in known]
    if not strange:
        return None
    return f"{settings.runtime} has no setting {strange[0]}; its settings are: {', '.join(known) or 'none at all'}"


def misfit(inputs: Arrays, signature: Signature) -> str | None:
    """Say in words how the inputs of one call differ from what a model takes, or None.

    A stateful model takes its sequences with one axis more.
    """
    specs = {spec.name: spec for spec in signature.data_inputs}
    if missing := [name for name in specs if name not in inputs]:
        return f"the model also needs the inputs {', '.join(missing)}; given were: {', '.join(inputs) or 'none'}"
    if strange := [name for name in inputs if name not in specs]:
        return f"the model has no input {', '.join(strange)}; its inputs are: {', '.join(specs)}"
    for name, spec in specs.items():
        given = np.asarray(inputs[name])
        step = given.shape[:1] + given.shape[2:] if signature.states else given.shape
        if given.dtype != spec.dtype or not (_fits(given.shape, spec.shape) or _fits(step, spec.shape)):
            return (
                f"the input {name} is {given.dtype} {_words(given.shape)}, the model takes "
                f"{spec.dtype} {_words(spec.shape)}"
            )
    return None


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    pairs = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(size == want or isinstance(want, str) for size, want in pairs)


def _words(shape: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, shape))})"


class Stateful:
    """Runs a stateful model over whole sequences, its state zero, and a cache empty, at the start of each call.

    Data inputs have one axis more than the model asks for: (batch, time, …). The outputs are those of the last step.
    Inputs without the time axis are one step.
    """

    def __init__(self, engine: Engine, signature: Signature) -> None:
        self._engine = engine
        self.precision = getattr(engine, "precision", None)
        self._signature = signature
        self._data = signature.data_inputs
        self._states = signature.states
        self._ends = _ends(signature)
        self._growing = _growing(signature, self._ends)

    def __call__(self, inputs: Arrays, /) -> dict[str, NDArray[Any]]:
        """Return the outputs of the last step."""
        if any(spec.name not in inputs for spec in self._data):
            raise BadInput(misfit(inputs, self._signature))
        sequences = {spec.name for spec in self._data if inputs[spec.name].ndim == len(spec.shape) + 1}
        lengths = {inputs[name].shape[1] for name in sequences}
        if len(lengths) > 1:
            raise BadInput(f"the input sequences differ in length: {sorted(lengths)}")
        steps = lengths.pop() if lengths else 1
        if steps == 0:
            raise BadInput("a sequence without steps has no answer: give at least one step")
        if steps > 1 and self._growing:
            raise BadInput(
                f"the input {self._growing[0]} is as long as the cache, so it grows with every step and can't be fed "
                "step by step: give whole items, without an axis of time"
            )
        state = self._beginning({name: value[:, 0] if name in sequences else value for name, value in inputs.items()})
        outputs: dict[str, NDArray[Any]] = {}
        for step in range(steps):
            now = {
                name: np.ascontiguousarray(value[:, step]) if name in sequences else value
                for name, value in inputs.items()
            }
            outputs = self._engine({**now, **state})
            state = {spec.name: outputs[spec.fed_by] for spec in self._states if spec.fed_by}
        return outputs

    def _beginning(self, step: Arrays) -> dict[str, NDArray[Any]]:
        """Return the zeros that the first step starts from."""
        first = self._data[0]
        pairs = (pair for spec in self._data for pair in zip(spec.shape, step[spec.name].shape, strict=False))
        named = {name: size for name, size in pairs if isinstance(name, str) and name != "?"}
        unnamed = {spec.name for spec in self._states if not named.keys() & set(first.shape[:1]) & set(spec.shape)}
        batch = len(step[first.name])
        sizes = {
            spec.name: _sizes(spec.shape, self._ends[spec.name], named, batch if spec.name in unnamed else None)
            for spec in self._states
        }
        return {spec.name: np.zeros(sizes[spec.name], spec.dtype) for spec in self._states}


def _sizes(
    shape: Sequence[int | str], after: Sequence[int | str], named: Mapping[str, int], batch: int | None
) -> list[int]:
    """Return the sizes of a state before the first step, by its shape before and after a step.

    A free dimension is what the data have under its name. When none bears the name of the batch, `batch` is given: it
    is one of the first two that a step leaves as it is. All others grow, as those of a cache do, and begin at 0.
    """
    sizes = [named.get(size, size) if isinstance(size, str) else size for size in shape]
    stays = (axis for axis, size in enumerate(sizes[:2]) if isinstance(size, str) and size == after[axis])
    if batch is not None and (axis := next(stays, None)) is not None:
        sizes[axis] = batch
    return [size if isinstance(size, int) else 0 for size in sizes]


def _ends(signature: Signature) -> dict[str, tuple[int | str, ...]]:
    """Return the shape of each state after a step; where that is not known, it stays as it is."""
    outputs = {spec.name: spec.shape for spec in signature.outputs}
    ends = {spec.name: outputs.get(spec.fed_by or "", ()) for spec in signature.states}
    return {
        spec.name: ends[spec.name] if len(ends[spec.name]) == len(spec.shape) else spec.shape
        for spec in signature.states
    }


def _growing(signature: Signature, ends: Mapping[str, Sequence[int | str]]) -> tuple[str, ...]:
    """Return the data inputs, such as a mask, that must be as long as a cache is after a step."""
    grown = {
        after
        for spec in signature.states
        for size, after in zip(spec.shape, ends[spec.name], strict=True)
        if isinstance(after, str) and after not in (size, "?")
    }
    return tuple(spec.name for spec in signature.data_inputs if grown.intersection(spec.shape[1:]))
