from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.protocols import Array, Arrays, Samples
from trimtab.core.values import Model, Settings, Signature, Split, Task, TensorSpec, Variant
from trimtab.data.arrays import save_array


def make_variant(batch: int | str = "N", outputs: tuple[str, ...] = ("scores",)) -> Variant:
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=(batch, 3)),),
        outputs=tuple(TensorSpec(name=name, dtype="float32", shape=(batch, 3)) for name in outputs),
    )
    model = Model(format="fake", path=Path("fake"), digest="0", signature=signature)
    return Variant(model=model, settings=Settings(runtime="fake"))


def identity(inputs: Arrays) -> dict[str, Array]:
    return {"scores": inputs["x"]}


class FakeSession:
    """Answers by a function, and takes per call exactly as long as another one says; sleeps never."""

    def __init__(
        self,
        variant: Variant,
        answer: Callable[[Arrays], dict[str, Array]] = identity,
        call_ns: Callable[[int, int], int] = lambda number, batch: 1_000_000,
        cores: float = 2.0,
    ) -> None:
        self.variant = variant
        self.batches: list[int] = []
        self.timed: list[int] = []
        self.closed = False
        self._answer, self._call_ns, self._cores = answer, call_ns, cores

    def run(self, inputs: Arrays, timeout_s: float | None = None) -> dict[str, Array]:
        self.batches.append(len(inputs["x"]))
        return self._answer(inputs)

    def time(self, inputs: Arrays, calls: int, timeout_s: float | None = None) -> Samples:
        self.timed.append(len(inputs["x"]))
        first = getattr(self, "_done", 0)
        self._done = first + calls
        wall = np.array([self._call_ns(first + number, len(inputs["x"])) for number in range(calls)], dtype=np.int64)
        return Samples(wall, (wall * self._cores).astype(np.int64))

    def close(self) -> None:
        self.closed = True


class FakeProcessSession(FakeSession):
    """A fake session that tells how it started and opens others like it, which it remembers."""

    told: Mapping[str, float] = {
        "load_s": 0.25,
        "first_call_s": 0.5,
        "peak_memory_bytes": 9e7,
        "empty_memory_bytes": 3e7,
    }

    def info(self) -> Mapping[str, float]:
        return self.told

    def fresh(self) -> FakeProcessSession:
        other = FakeProcessSession(self.variant, self._answer, self._call_ns, self._cores)
        self.opened = [*getattr(self, "opened", []), other]
        return other


@pytest.fixture
def split(tmp_path: Path) -> Callable[..., Split]:
    """Return a function that saves arrays as a split."""

    def make(inputs: Array, labels: Array | None = None, groups: Array | None = None, name: str = "select") -> Split:
        def saved(what: str, array: Array) -> object:
            return save_array(what, tmp_path / name / f"{what}.npy", np.asarray(array))

        return Split(
            name=name,
            inputs=(saved("x", inputs),),  # type: ignore[arg-type]
            rows=saved("rows", np.arange(len(inputs))),  # type: ignore[arg-type]
            labels=None if labels is None else saved("labels", labels),  # type: ignore[arg-type]
            groups=None if groups is None else saved("groups", groups),  # type: ignore[arg-type]
        )

    return make


@pytest.fixture
def fakes() -> type:
    """Return the fakes of this folder (tests share no package to import them from)."""

    class Fakes:
        variant = staticmethod(make_variant)
        session = FakeSession
        process = FakeProcessSession

    return Fakes


@pytest.fixture
def timed_task(split: Callable[..., Split]) -> Task:
    """A task of five items without labels."""
    return Task(splits=(split(np.arange(15, dtype=np.float32).reshape(5, 3)),))
