"""A small network over hashed words that says how likely an e-mail is spam."""

from __future__ import annotations

import torch
from torch import Tensor, nn

example_inputs = {"words": torch.zeros(1, 2048)}
output_names = ("probability",)


class WordsNet(nn.Module):
    """Maps word counts of unit length [N, 2048] to the probability of the positive class [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2048, 512), nn.ReLU(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 1), nn.Sigmoid()
        )

    def forward(self, words: Tensor) -> Tensor:
        return self.layers(words)


def build() -> nn.Module:
    """Return the network, ready for its weights."""
    return WordsNet()
