"""What the peers share that train: items and time, a plain loop by somebody's recipe, and an export to ONNX.

PyTorch's own operations only; nothing here is of trimtab.
"""

from __future__ import annotations

import argparse
import copy
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import record
from torch import Tensor, nn
from torch.nn import functional

sys.path.append(str(Path(__file__).parents[1]))
import networks

BATCH = 128
_TRIED = 20  # steps that tell how long an epoch takes

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From outputs, labels and the numbers of the items to what is to be made small."""


class Lesson:
    """Items to learn on and to choose by, prepared; the network with its weights; and until when to learn."""

    def __init__(self, about: str, *flags: tuple[str, type, object]) -> None:
        parser = argparse.ArgumentParser(description=about)
        parser.add_argument("--model", required=True, help="file.py:function below benchmarks/models")
        parser.add_argument("--weights", type=Path, required=True)
        parser.add_argument("--calibration", type=Path, help="not needed")
        parser.add_argument("--train", type=Path, required=True, help=".npz: train, select, and their labels")
        parser.add_argument("--seconds", type=float, required=True)
        parser.add_argument("--output", type=Path, required=True, help="a folder")
        for flag, kind, usual in flags:
            parser.add_argument(flag, type=kind, default=usual)
        self.given = parser.parse_args()
        self.given.output.mkdir(parents=True, exist_ok=True)
        print("$", shlex.join(["python", *sys.argv]), flush=True)
        self.end = time.monotonic() + self.given.seconds
        torch.manual_seed(0)
        self.factory = Path(self.given.model).name
        self.model = networks.build(self.factory, networks.read_safetensors(self.given.weights))
        with np.load(self.given.train) as held:
            self.items, self.chosen = (torch.from_numpy(held[name]) for name in ("train", "select"))
            self.labels, self.right = (
                torch.from_numpy(held[f"{name}_labels"].astype(np.int64)) for name in ("train", "select")
            )

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()

    def accuracy(self, model: nn.Module) -> float:
        """Return the accuracy on the items to choose by."""
        return float((outputs(model, self.chosen).argmax(1) == self.right).float().mean())

    def train(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        epochs: int,
        schedule: Callable[[int], torch.optim.lr_scheduler.LRScheduler],
        loss: Loss = lambda answers, labels, rows: functional.cross_entropy(answers, labels),
        *,
        shift: int = 0,
    ) -> int:
        """Train by a recipe, in fewer epochs where the time is too short for all; keep the best; return the epochs.

        Args:
            model: trained in place.
            optimizer: of its weights.
            epochs: as many as the recipe has.
            schedule: from the number of epochs to how the learning rate falls, stepped once an epoch.
            loss: what is made small.
            shift: pixels by which images are shifted at random (padded with what is there at the border).
        """
        state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        epoch_s = self._epoch(model, optimizer, loss, shift, _TRIED) / _TRIED * (len(self.items) / BATCH)
        model.load_state_dict(state[0])
        optimizer.load_state_dict(state[1])
        epochs = max(1, min(epochs, int(0.9 * self.left() / epoch_s)))
        print(f"an epoch takes about {epoch_s:.1f} s: {epochs} epochs", flush=True)
        falling, best, kept = schedule(epochs), self.accuracy(model), copy.deepcopy(model.state_dict())
        for epoch in range(epochs):
            self._epoch(model, optimizer, loss, shift, None)
            falling.step()
            found = self.accuracy(model)
            print(f"epoch {epoch + 1}: {100 * found:.2f} %", flush=True)
            if found > best or epoch == 0:
                best, kept = found, copy.deepcopy(model.state_dict())
            if self.left() < 1.2 * epoch_s:
                break
        model.load_state_dict(kept)
        return epochs

    def _epoch(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, shift: int, most: int | None
    ) -> float:
        start = time.monotonic()
        model.train()
        for number, rows in enumerate(torch.randperm(len(self.items)).split(BATCH)):
            if number == most:
                break
            optimizer.zero_grad()
            loss(model(shifted(self.items[rows], shift)), self.labels[rows], rows).backward()
            optimizer.step()
        model.eval()
        return time.monotonic() - start

    def export(self, model: nn.Module) -> None:
        """Write the network as ONNX for any number of items, and the record of it."""
        path = self.given.output / "model.onnx"
        code = networks.code_of(self.factory)
        (name,) = code.example_inputs
        torch.onnx.export(
            model.eval(), (self.chosen[:2],), path, input_names=[name], output_names=list(code.output_names),
            dynamic_axes={name: {0: "N"}, code.output_names[0]: {0: "N"}}, dynamo=False, opset_version=17,
        )  # fmt: skip
        record(self.given.output, path, {"runtime": "onnxruntime"})


def shifted(images: Tensor, most: int) -> Tensor:
    """Return images, each shifted by up to so many pixels (random cropping of padded images)."""
    if not most:
        return images
    padded = functional.pad(images, (most,) * 4, mode="replicate")
    size, made = images.shape[2], torch.empty_like(images)
    places = torch.randint(0, 2 * most + 1, (len(images), 2)).tolist()
    for number, (top, left) in enumerate(places):
        made[number] = padded[number, :, top : top + size, left : left + images.shape[3]]
    return made


@torch.inference_mode()
def outputs(model: nn.Module, images: Tensor) -> Tensor:
    """Return the outputs of a network in evaluation mode."""
    model.eval()
    return torch.cat([model(part) for part in images.split(500)]).clone()
