"""Sessions with known truth: they answer by a function and take exactly as long as they are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from trimtab.core.protocols import Array, Arrays, Samples
from trimtab.core.values import Variant


class FakeSession:
    """Answers by a function, and takes per call exactly as long as another one says; sleeps never.

    Args:
        variant: What it pretends to run.
        answer: From the inputs of a call to its outputs.
        call_ns: From the number of a timed call and its items to its nanoseconds.
        cores: Processor time over wall-clock time.
    """

    def __init__(
        self,
        variant: Variant,
        answer: Callable[[Arrays], dict[str, Array]],
        call_ns: Callable[[int, int], int] = lambda number, items: 1_000_000,
        cores: float = 2.0,
    ) -> None:
        self.variant = variant
        self.batches: list[int] = []
        self.timed: list[int] = []
        self.closed = False
        self._answer, self._call_ns, self._cores = answer, call_ns, cores
        self._done = 0

    def run(self, inputs: Arrays, timeout_s: float | None = None) -> dict[str, Array]:
        """Answer, and remember how many items were asked."""
        self.batches.append(_items(inputs))
        return self._answer(inputs)

    def time(self, inputs: Arrays, calls: int, timeout_s: float | None = None) -> Samples:
        """Return the times of the next calls without making them."""
        items = _items(inputs)
        self.timed.append(items)
        wall = np.array([self._call_ns(self._done + number, items) for number in range(calls)], dtype=np.int64)
        self._done += calls
        return Samples(wall, (wall * self._cores).astype(np.int64))

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True


class FakeProcessSession(FakeSession):
    """A fake session that tells how it started, opens others like it, which it remembers, and can stand still."""

    paused = False

    told: Mapping[str, float] = {
        "load_s": 0.25,
        "first_call_s": 0.5,
        "peak_memory_bytes": 9e7,
        "empty_memory_bytes": 3e7,
    }
    opened: tuple[FakeProcessSession, ...] = ()

    def info(self) -> Mapping[str, float]:
        """Return what it is told to tell."""
        return self.told

    def time(self, inputs: Arrays, calls: int, timeout_s: float | None = None) -> Samples:
        """Go on, and return the times of the next calls without making them."""
        self.paused = False
        return super().time(inputs, calls, timeout_s)

    def pause(self) -> None:
        """Remember that it stands still."""
        self.paused = True

    def fresh(self) -> FakeProcessSession:
        """Return another one that answers and takes time alike."""
        other = FakeProcessSession(self.variant, self._answer, self._call_ns, self._cores)
        self.opened = (*self.opened, other)
        return other


def _items(inputs: Arrays) -> int:
    return len(next(iter(inputs.values())))
