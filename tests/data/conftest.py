from collections.abc import Callable
from pathlib import Path

import pytest

from trimtab.core.values import Model, Signature, TensorSpec

ModelMaker = Callable[..., Model]


@pytest.fixture
def make_model() -> ModelMaker:
    """Makes a model that only has a signature, its inputs given as name=(dtype, *shape)."""

    def make(width: int | str | None = 10, output: str = "scores", path: str = "model.onnx", **inputs: tuple) -> Model:
        given = inputs or {"x": ("float32", "N", 4)}
        specs = tuple(
            TensorSpec(name=name, dtype=dtype, shape=shape) for name, (dtype, *shape) in _plain(given).items()
        )
        shape: tuple[int | str, ...] = ("N",) if width is None else ("N", width)
        answer = TensorSpec(name=output, dtype="float32", shape=shape)
        signature = Signature(inputs=specs, outputs=(answer,))
        return Model(format="fake", path=Path(path), digest="fake", signature=signature)

    return make


def _plain(inputs: dict[str, tuple]) -> dict[str, tuple]:
    return {name: (given[0], *given[1:]) for name, given in inputs.items()}
