from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.core import plugins
from trimtab.core.machine import machine
from trimtab.core.protocols import Opening
from trimtab.core.values import Settings, Step, Variant
from trimtab.serving.bundle import write_bundle
from trimtab.testing.networks import PERCEPTRON, Network
from trimtab.testing.samples import source, task


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., Variant]:
    """Write a tiny network as a model of a format and return it as a variant."""

    def make(settings: Settings, network: Network = PERCEPTRON, format_name: str = "onnx") -> Variant:
        folder = tmp_path / "given"
        folder.mkdir(exist_ok=True)
        if format_name == "onnx":
            text = str(folder / f"{network.name}.onnx")
            Path(text).write_bytes(network.graph(0).SerializeToString())
        else:
            text = source(format_name, folder)
        model = plugins.make("formats", format_name).open(text, Opening(folder=folder / "opened"))
        return Variant(model=model, settings=settings, steps=(Step(technique="simplify"),))

    return make


@pytest.fixture
def bundle(given: Callable[..., Variant], tmp_path: Path) -> Callable[..., Path]:
    """Write the bundle of a tiny network; `of_task` replaces parts of its task."""

    def make(settings: Settings | None = None, *arguments: object, **of_task: object) -> Path:
        variant = given(settings or Settings(runtime="onnxruntime", threads=1), *arguments)
        items = replace(task(PERCEPTRON, tmp_path / "data"), **of_task)  # type: ignore[arg-type] # named by the tests
        folder = tmp_path / "bundle"
        write_bundle(folder, variant, items, measurement=None, certificate=None, machine=machine(), version="1.2.3")
        return folder

    return make
