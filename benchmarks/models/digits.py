"""The network of src/trimtab/assets/digits.onnx in PyTorch, batch norm folded, with the very same weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

example_inputs = {"image": torch.zeros(1, 1, 8, 8)}
output_names = ("logits",)


class Block(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(functional.relu(self.first(x))))


class DigitsNet(nn.Module):
    """Maps images [N, 1, 8, 8] between 0 and 1 to ten logits."""

    def __init__(self, channels: int = 128, blocks: int = 4) -> None:
        super().__init__()
        stem = (nn.Conv2d(1, channels, 3, padding=1), nn.Identity(), nn.ReLU())
        self.body = nn.Sequential(*stem, *(Block(channels) for _ in range(blocks)))
        self.head = nn.Linear(channels, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image).mean((2, 3)))


def build() -> nn.Module:
    """Return the network with the weights that ship with trimtab."""
    import onnx
    from onnx import numpy_helper

    from trimtab.assets import digits

    module = DigitsNet()
    held = {item.name: numpy_helper.to_array(item) for item in onnx.load(digits().model).graph.initializer}
    named = {name.replace(".weight_bias", ".bias"): torch.tensor(array) for name, array in held.items() if "." in name}
    module.load_state_dict(named)
    return module
