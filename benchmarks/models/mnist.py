"""The MNIST classifier of the package ccexam: two convolutions and two linear layers (421,642 parameters)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

example_inputs = {"image": torch.zeros(1, 1, 28, 28)}
output_names = ("logits",)


class MnistNet(nn.Module):
    """Maps images [N, 1, 28, 28] to ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(self.features(image).flatten(1))


def build() -> nn.Module:
    """Return the classifier, ready for its weights."""
    return MnistNet()
