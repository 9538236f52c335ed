"""What lives in a worker process: one engine, and the loop that times it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.engine import ready
from trimtab.core.process import peak_bytes
from trimtab.core.values import Variant


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

    def info(self) -> dict[str, Any]:
        """Return what `core.protocols.Informed` asks for."""
        return {
            "load_s": self._load_s,
            "first_call_s": self._first_call_s if self._first_call_s is not None else float("nan"),
            "peak_memory_bytes": float(peak_bytes()),
            "empty_memory_bytes": float(self._before),
            "precision": getattr(self._engine, "precision", None),
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
