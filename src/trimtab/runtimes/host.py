"""What lives in a worker process: one engine, and the loop that times it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core import plugins
from trimtab.core.errors import BadInput
from trimtab.core.process import peak_bytes
from trimtab.core.protocols import Arrays, Engine, Runtime
from trimtab.core.values import Signature, TensorSpec, Variant


def ready(variant: Variant) -> Engine:
    """Return the engine of a variant, with its state fed back when the model has one."""
    runtime: Runtime = plugins.make("runtimes", variant.settings.runtime)
    if reason := runtime.refuses(variant):
        raise BadInput(f"{variant.settings.runtime} can't run this model: {reason}")
    engine = runtime.load(variant)
    return Stateful(engine, variant.model.signature) if variant.model.signature.states else engine


class Stateful:
    """Runs a stateful model over whole sequences, its state zero at the start of each call.

    Data inputs have one axis more than the model asks for: (batch, time, …). The outputs are those of the last step.
    Inputs without the time axis are one step.
    """

    def __init__(self, engine: Engine, signature: Signature) -> None:
        self._engine = engine
        self._data = signature.data_inputs
        self._states = signature.states

    def __call__(self, inputs: Arrays, /) -> dict[str, NDArray[Any]]:
        """Return the outputs of the last step."""
        sequences = {spec.name for spec in self._data if inputs[spec.name].ndim == len(spec.shape) + 1}
        lengths = {inputs[name].shape[1] for name in sequences}
        if len(lengths) > 1:
            raise BadInput(f"the input sequences differ in length: {sorted(lengths)}")
        batch = len(inputs[self._data[0].name])
        state = {spec.name: _zeros(spec, batch) for spec in self._states}
        outputs: dict[str, NDArray[Any]] = {}
        for step in range(lengths.pop() if lengths else 1):
            now = {
                name: np.ascontiguousarray(value[:, step]) if name in sequences else value
                for name, value in inputs.items()
            }
            outputs = self._engine({**now, **state})
            state = {spec.name: outputs[spec.fed_by] for spec in self._states if spec.fed_by}
        return outputs


def _zeros(spec: TensorSpec, batch: int) -> NDArray[Any]:
    return np.zeros([size if isinstance(size, int) else batch for size in spec.shape], dtype=spec.dtype)


class EngineHost:
    """The object in the worker process of a session."""

    def __init__(self, variant: Variant) -> None:
        self._before = peak_bytes()
        start = time.perf_counter()
        self._engine = ready(variant)
        self._load_s = time.perf_counter() - start
        self._first_call_s: float | None = None
        self._inputs: dict[str, NDArray[Any]] = {}

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return copies of the outputs for one batch."""
        start = time.perf_counter()
        outputs = self._engine(inputs)
        if self._first_call_s is None:
            self._first_call_s = time.perf_counter() - start
        return outputs

    def take(self, inputs: dict[str, NDArray[Any]]) -> None:
        """Keep the inputs that the next calls of `time` use."""
        self._inputs = inputs

    def time(self, calls: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return wall-clock and processor nanoseconds of each call."""
        if self._first_call_s is None:
            self.run(self._inputs)
        return timed(lambda: self._engine(self._inputs), calls)

    def info(self) -> dict[str, float]:
        """Return load and first-call seconds and peak memory in bytes, before loading and by now."""
        return {
            "load_s": self._load_s,
            "first_call_s": self._first_call_s if self._first_call_s is not None else float("nan"),
            "peak_memory_bytes": float(peak_bytes()),
            "empty_memory_bytes": float(self._before),
        }


def timed(call: Callable[[], object], calls: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Time each of `calls` calls: wall-clock and processor nanoseconds (of all threads of this process)."""
    wall = np.empty(calls, dtype=np.int64)
    cpu = np.empty(calls, dtype=np.int64)
    clock, processor = time.perf_counter_ns, time.process_time_ns
    for index in range(calls):
        cpu_start = processor()
        start = clock()
        call()
        wall[index] = clock() - start
        cpu[index] = processor() - cpu_start
    return wall, cpu
