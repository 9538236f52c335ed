"""ResNet-50 v1.5 as transformers configures it, for speed only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

example_inputs = {"image": torch.zeros(1, 3, 224, 224)}
output_names = ("logits",)


class ResNet50(nn.Module):
    """Maps images [N, 3, 224, 224] to 1,000 logits."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import ResNetConfig, ResNetForImageClassification

        self.net = ResNetForImageClassification(ResNetConfig(num_labels=1000))

    def forward(self, image: Tensor) -> Tensor:
        return self.net(pixel_values=image).logits


BRANCH = 0.3


def build() -> nn.Module:
    """Return the network with random weights (seed 0).

    The last norm of every residual branch is scaled down: at 1, a random network turns 1 % of noise on the image into
    17 % on the output, so that rounding to bf16 alone is 11 % off, and no engine could answer within 5 %.
    """
    torch.manual_seed(0)
    net = ResNet50()
    for name, module in net.named_modules():
        if name.endswith("layer.2.normalization"):
            nn.init.constant_(module.weight, BRANCH)
    return net
