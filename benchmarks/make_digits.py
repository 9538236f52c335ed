"""Trains the network that ships as src/trimtab/assets/digits.onnx. Needs PyTorch: python benchmarks/make_digits.py

A residual network, far larger than the task needs (nine convolutions of 128 channels at full resolution,
75.6 million multiply-accumulates a call), so that an engine's own overhead does not hide what is gained.
It sees the items named train and calibrate; no choice is made on any other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

import trimtab.assets
from trimtab.assets import digits

CHANNELS, BLOCKS = 128, 4


class Block(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(x + self.second_norm(self.second(y)))


class DigitsNet(nn.Module):
    """Maps images [N, 1, 8, 8] between 0 and 1 to ten logits."""

    def __init__(self) -> None:
        super().__init__()
        stem = (nn.Conv2d(1, CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU())
        self.body = nn.Sequential(*stem, *(Block(CHANNELS) for _ in range(BLOCKS)))
        self.head = nn.Linear(CHANNELS, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image).mean((2, 3)))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each image by up to 12°, scale it by up to 10 % and move it by up to one pixel."""
    count = len(images)
    angle = (torch.rand(count, generator=generator) - 0.5) * 0.42
    scale = 1 + (torch.rand(count, generator=generator) - 0.5) * 0.2
    shift = (torch.rand(count, 2, generator=generator) - 0.5) * 0.5
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(count, 2, 2)
    rows = turn * scale[:, None, None]
    grid = functional.affine_grid(torch.cat([rows, shift[:, :, None]], 2), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def train(images: Tensor, labels: Tensor, epochs: int, seed: int) -> DigitsNet:
    """Return a network trained with AdamW and one cycle of the learning rate."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = DigitsNet().to(memory_format=torch.channels_last)
    steps = (len(images) + 63) // 64
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=epochs * steps)
    for epoch in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).tensor_split(steps):
            loss = functional.cross_entropy(net(augment(images[rows], generator)), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}: loss {loss.item():.4f}", flush=True)
    return net.eval()


def export(net: DigitsNet, path: Path) -> None:
    """Write the network as one ONNX file with a free batch axis, batch norm folded, without traces of the build."""
    batch = torch.export.Dim("batch")
    example = (torch.zeros(2, 1, 8, 8),)
    program = torch.onnx.export(
        net, example, dynamo=True, input_names=["image"], output_names=["logits"], dynamic_shapes=({0: batch},)
    )
    proto = program.model_proto
    graph = proto.graph
    for owner in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        owner.ClearField("metadata_props")
        owner.ClearField("doc_string")
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def main() -> None:
    """Train, say how good it is, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(trimtab.assets.__file__).with_name("digits.onnx"))
    arguments = parser.parse_args()
    data = digits()
    seen = np.isin(data.split, ("train", "calibrate"))
    images, labels = torch.from_numpy(data.inputs), torch.from_numpy(data.labels)
    net = train(images[seen], labels[seen], arguments.epochs, arguments.seed)
    for name in ("select", "certify"):
        rows = data.split == name
        with torch.inference_mode():
            right = (net(images[rows]).argmax(1) == labels[rows]).float().mean().item()
        print(f"accuracy on {name}: {right:.4f} of {rows.sum()}")
    export(net, arguments.output)
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
