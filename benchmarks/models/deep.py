"""A perceptron that is mostly weights: equal layers, one after the other."""

from __future__ import annotations

from torch import nn


def build(width: int = 2048, layers: int = 32) -> nn.Module:
    """Return the network: 537 MB of weights."""
    return nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(layers)))
