"""Every technique that is found keeps the laws of a technique."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from trimtab.core.protocols import Opening
from trimtab.core.values import Settings, Variant, options
from trimtab.testing import Network, Sample, TechniqueSuite, suites

_OPTIONS = {
    "factorize": options(energy=0.5),
    "substitute": options(kind="bottleneck"),
    "fine-tune": options(batch=8, epochs=1),
    "qat": options(batch=8, epochs=1),
    "sparsify": options(batch=8, epochs=1),
}
"""Random weights have no structure that a low rank would keep: factors save products only where much is lost."""

_STACK = """
import torch
from torch import nn

class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()) for _ in range(6)))
        self.head = nn.Linear(64, 4)

    def forward(self, image):
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))

def make():
    torch.manual_seed(0)
    return Stack()

example_inputs = {"image": torch.zeros(1, 3, 16, 16)}
output_names = ("scores",)
"""
"""A classifier of images that is heavier than light students, a stack of equal layers."""


def _images(items: int, seed: int) -> dict[str, Any]:
    return {"image": np.random.default_rng(seed).normal(size=(items, 3, 16, 16)).astype(np.float32)}


@cache
def _stack() -> Sample:
    from trimtab.formats.torch import TorchFormat

    folder = Path(mkdtemp(prefix="trimtab-stack-"))
    (folder / "stack.py").write_text(_STACK)
    model = TorchFormat().open(f"{folder / 'stack.py'}:make", Opening(folder=folder / "opened"))
    network = Network(
        name="stack",
        inputs=_images,
        answer=lambda given: {"scores": given["image"].mean(axis=(2, 3)) @ np.eye(3, 4)},
        graph=lambda seed: None,  # type: ignore[arg-type,return-value] # it is no ONNX model
    )
    return Sample(network=network, variant=Variant(model=model, settings=Settings(runtime="torch", threads=1)))


def _stacked(self: TechniqueSuite) -> Sequence[Sample]:
    """Return a network that has what these techniques look for."""
    return [_stack()]


for _name, _suite in suites("techniques", TechniqueSuite).items():
    _suite.options = _OPTIONS.get(_suite.plugin.name, ())
    if _suite.plugin.name in ("student", "drop-layers"):
        _suite.samples = _stacked
    globals()[_name] = _suite
