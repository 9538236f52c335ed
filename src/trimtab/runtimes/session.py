"""The handle to a worker process that holds one engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from trimtab.core.errors import TrimtabError
from trimtab.core.process import Limits, Process
from trimtab.core.protocols import Arrays, Samples
from trimtab.core.values import Variant


class ProcessSession:
    """A session whose engine lives in a process of its own, started at the first use."""

    def __init__(self, variant: Variant, process: Process) -> None:
        self.variant = variant
        self._process = process
        self._taken: Arrays | None = None

    @property
    def log(self) -> Path:
        """Where the worker's output goes."""
        return self._process.log

    def run(self, inputs: Arrays, timeout_s: float | None = None) -> dict[str, NDArray[Any]]:
        """Return the outputs for one batch."""
        outputs: dict[str, NDArray[Any]] = self._call("run", dict(inputs), timeout_s=timeout_s)
        return outputs

    def time(self, inputs: Arrays, calls: int, timeout_s: float | None = None) -> Samples:
        """Time that many calls; the same inputs (the same object) are sent only once."""
        if self._taken is not inputs:
            self._call("take", dict(inputs))
            self._taken = inputs
        wall, cpu = self._call("time", calls, timeout_s=timeout_s)
        return Samples(wall, cpu)

    def info(self) -> dict[str, Any]:
        """Return what `core.protocols.Informed` asks for."""
        told: dict[str, Any] = self._call("info")
        return told

    def fresh(self) -> ProcessSession:
        """Return a session of the same variant in another process, not started yet."""
        return ProcessSession(self.variant, self._process.twin())

    def pause(self) -> None:
        """Stop the process until the next call."""
        self._process.pause()

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _call(self, method: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        """Call the engine's host; what goes wrong there bears the key of the variant."""
        try:
            return self._process.call(method, *arguments, timeout_s=timeout_s)
        except TrimtabError as error:
            error.variant = self.variant.key
            raise

    def __enter__(self) -> ProcessSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_session(variant: Variant, log: Path | None = None, limits: Limits | None = None) -> ProcessSession:
    """Return a session of the variant; its worker process starts at the first use."""
    return ProcessSession(variant, Process("trimtab.runtimes.host:EngineHost", variant, log=log, limits=limits))
