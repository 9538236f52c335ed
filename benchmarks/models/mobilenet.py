"""MobileNetV2-1.0 (Sandler et al. 2018) under torchvision's names, with a linear head on its 1,000 logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

example_inputs = {"image": torch.zeros(1, 3, 224, 224)}
output_names = ("logits",)

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and stride of each stage."""


def conv_norm(inside: int, outside: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return convolution, batch norm and ReLU6."""
    conv = nn.Conv2d(inside, outside, size, stride, (size - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; with a shortcut where shapes agree."""

    def __init__(self, inside: int, outside: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inside * expand
        self.shortcut = stride == 1 and inside == outside
        layers: list[nn.Module] = [conv_norm(inside, wide, 1)] if expand != 1 else []
        layers += [conv_norm(wide, wide, 3, stride, groups=wide), nn.Conv2d(wide, outside, 1, bias=False)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """Maps images [N, 3, 224, 224] to 1,000 logits, or through a linear head to fewer classes."""

    def __init__(self, classes: int | None) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(3, 32, 3, 2)]
        inside = 32
        for expand, outside, count, stride in STAGES:
            for index in range(count):
                layers.append(InvertedResidual(inside, outside, stride if index == 0 else 1, expand))
                inside = outside
        self.features = nn.Sequential(*layers, conv_norm(inside, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))
        self.head = nn.Identity() if classes is None else nn.Linear(1000, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.classifier(self.features(image).mean((2, 3))))


def build(classes: int | None = 10) -> nn.Module:
    """Return the network, ready for its weights."""
    return MobileNetV2(classes)
