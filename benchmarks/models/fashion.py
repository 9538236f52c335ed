"""ResNets for Fashion-MNIST: a 3×3 stem without pooling, stages of two-convolution blocks (He et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

example_inputs = {"image": torch.zeros(1, 1, 28, 28)}
output_names = ("logits",)


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm around a shortcut, which a 1×1 convolution fits where shapes differ."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != channels:
            projection = nn.Conv2d(before, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Maps images [N, 1, 28, 28] to ten logits; later stages double the channels and halve the sides."""

    def __init__(self, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        stages, before = [], width
        for number, count in enumerate(blocks):
            channels = width * 2**number
            strides = [1 if number == 0 else 2] + [1] * (count - 1)
            stages.append(
                nn.Sequential(*(self._block(before, channels, stride, i) for i, stride in enumerate(strides)))
            )
            before = channels
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(before, 10)

    @staticmethod
    def _block(before: int, channels: int, stride: int, place: int) -> Block:
        return Block(before if place == 0 else channels, channels, stride)

    def forward(self, image: Tensor) -> Tensor:
        out = functional.relu(self.bn(self.conv(image)))
        return self.head(self.stages(out).mean((2, 3)))


def resnet18() -> nn.Module:
    """Return ResNet-18 of width 32 (2.8 M parameters)."""
    return ResNet(32, (2, 2, 2, 2))


def resnet20() -> nn.Module:
    """Return ResNet-20 of width 16 (0.27 M parameters)."""
    return ResNet(16, (3, 3, 3))


def resnet8() -> nn.Module:
    """Return ResNet-8 of width 16 (0.08 M parameters)."""
    return ResNet(16, (1, 1, 1))
