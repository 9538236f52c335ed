"""PyTorch modules for the benchmarks: built, given weights, run, fitted with a head, exported. Needs trimtab[torch]."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

MODELS = Path(__file__).parent / "models"
Tensors = Mapping[str, torch.Tensor]
Arrays = Mapping[str, NDArray[Any]]


def code_of(factory: str) -> Any:
    """Return the Python module of a factory such as `mnist.py:build`."""
    path = MODELS / factory.partition(":")[0]
    name = f"benchmark_model_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def build(factory: str, weights: Tensors | None = None, **arguments: Any) -> nn.Module:
    """Return the factory's module in evaluation mode, with all of its weights when any are given."""
    module = getattr(code_of(factory), factory.partition(":")[2])(**arguments)
    if weights is not None:
        module.load_state_dict(weights)
    return module.eval()


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict of a PyTorch checkpoint, without running any code in it."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    return next((content[key] for key in ("model_state_dict", "state_dict") if key in content), content)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file by name."""
    from safetensors.torch import load_file

    return load_file(path)


@torch.inference_mode()
def forward(module: nn.Module, inputs: Arrays) -> NDArray[np.float32]:
    """Return the module's output for all rows, computed in batches of 16."""
    rows = len(next(iter(inputs.values())))
    parts = [
        module(**{name: torch.from_numpy(np.ascontiguousarray(array[i : i + 16])) for name, array in inputs.items()})
        for i in range(0, rows, 16)
    ]
    return torch.cat(parts).numpy()


def linear_head(features: NDArray[np.float32], labels: NDArray[Any]) -> dict[str, torch.Tensor]:
    """Return weight and bias of a multinomial logistic regression on the features, their scaling folded in.

    Features that are dead (MiniLM has three at about 1e-32) get no weight: scaled up they would look like the others,
    and folding that in would make weights of 1e30, which no type but float32 can hold.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    alive = scaler.scale_ > 1e-6 * scaler.scale_.max()
    fitted = LogisticRegression(C=0.01, max_iter=2000).fit(scaler.transform(features) * alive, labels)
    weight = fitted.coef_ * alive / scaler.scale_
    bias = fitted.intercept_ - weight @ scaler.mean_
    return {"head.weight": torch.tensor(weight).float(), "head.bias": torch.tensor(bias).float()}


def train_words(inputs: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> nn.Module:
    """Return the network of `models/words.py`, trained for eight epochs with AdamW."""
    torch.manual_seed(seed)
    module = build("words.py:build").train()
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels).float()[:, None]
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    for _ in range(8):
        for rows in torch.randperm(len(x)).split(64):
            loss = nn.functional.binary_cross_entropy(module(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module.eval()


@torch.no_grad()
def set_statistics(module: nn.Module, images: NDArray[np.float32]) -> None:
    """Set every batch norm's statistics from images: with its defaults a random net answers the same to everything."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # a plain average over the batches
    module.train()
    for batch in torch.from_numpy(images).split(16):
        module(batch)
    module.eval()


def export(module: nn.Module, factory: str, folder: Path) -> tuple[Path, Path]:
    """Write `model.onnx` (free batch, and whatever else the factory's module frees) and `weights.safetensors`."""
    from safetensors.torch import save_file

    code = code_of(factory)
    weights = folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, weights)
    free = getattr(code, "dynamic_axes", {name: {0: "batch"} for name in code.example_inputs})
    # Two rows, because torch.export takes a size of one for a fixed one.
    example = {name: torch.cat([tensor, tensor]) for name, tensor in code.example_inputs.items()}
    names = {"input_names": list(example), "output_names": list(code.output_names)}
    program = torch.onnx.export(module, (), kwargs=example, dynamo=True, dynamic_shapes=free, verbose=False, **names)
    program.save(folder / "model.onnx", external_data=False)
    return folder / "model.onnx", weights
