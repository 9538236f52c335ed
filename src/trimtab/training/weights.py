"""Writes a trained module back in the form that it came in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from trimtab.core.files import disk_errors
from trimtab.core.values import Model
from trimtab.formats.huggingface import save_trained as save_huggingface
from trimtab.formats.torch import save_changed

WEIGHTS = "weights.safetensors"


def save_trained(model: Model, module: Any, folder: Path) -> Model:
    """Write what a module has learnt below a folder and return it as a model.

    For a factory that is `weights.safetensors`, which `--weights` takes, and the model's own folder under `model/`; for
    a Hugging Face model a folder of its kind under `model/`.
    """
    if model.format == "huggingface":
        return save_huggingface(model, module, folder / "model")
    made = save_changed(model, module, folder / "model")
    with disk_errors(folder):
        shutil.copyfile(made.path / WEIGHTS, folder / WEIGHTS)
    return made
