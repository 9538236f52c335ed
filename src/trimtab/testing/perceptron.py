"""The perceptron of the samples as a PyTorch factory; its file is copied, with another seed, by `samples.source`."""

from __future__ import annotations

from typing import Any

import numpy as np

from trimtab.core.protocols import Array
from trimtab.testing.networks import weights

SEED = 0

output_names = ("scores",)


def example_inputs() -> dict[str, Array]:
    """Return one call's inputs."""
    return {"x": np.zeros((1, 16), np.float32)}


def make(seed: int = SEED) -> Any:
    """Return the module with its weights."""
    from trimtab.formats.torch_tracing import import_torch

    torch = import_torch("a sample in PyTorch's format")
    base: Any = torch.nn.Module
    given = {name: torch.from_numpy(value) for name, value in weights("perceptron", seed).items()}

    class Perceptron(base):  # type: ignore[misc] # torch is imported here, not at the top
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(16, 32), torch.nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            return self.second(torch.relu(self.first(x)))

    module = Perceptron()
    with torch.no_grad():
        for layer, number in ((module.first, "1"), (module.second, "2")):
            layer.weight.copy_(given[f"w{number}"].T)
            layer.bias.copy_(given[f"b{number}"])
    return module
