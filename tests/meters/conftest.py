from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab import testing
from trimtab.core.protocols import Array, Arrays
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


class FakeSession(testing.FakeSession):
    """One that answers with its input when it is told nothing else."""

    def __init__(self, variant: Variant, answer: Callable[[Arrays], dict[str, Array]] = identity, **more: Any) -> None:
        super().__init__(variant, answer, **more)


class FakeProcessSession(FakeSession, testing.FakeProcessSession):
    """The same, in a process."""


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
