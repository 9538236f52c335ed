"""The embedded default: the digits network that ships with trimtab, optimized on this machine."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from trimtab.assets import MAX_DROP, digits
from trimtab.core import words
from trimtab.core.errors import BadInput
from trimtab.core.files import write_bytes
from trimtab.core.values import Goal
from trimtab.workbench.optimize import Effort, Job

SECONDS = 60.0


def demo_job(output: Path, seconds: float = SECONDS) -> Job:
    """Return the job of the demo: digits, the fastest variant within a drop that its items can prove."""
    return Job(
        model=digits().model,
        data="trimtab.assets:items",
        goal=Goal(max_drop=words.drop(MAX_DROP)),
        output=output,
        effort=Effort(seconds=seconds),
        command="trimtab demo",
    )


def save_digits(folder: Path) -> tuple[Path, Path]:
    """Write the demo's model and data where a user can play with them; return both paths.

    Raises `BadInput` where another file of that name is there.
    """
    found, packed = digits(), io.BytesIO()
    np.savez_compressed(packed, inputs=found.inputs, labels=found.labels, split=found.split)
    model, data = folder / "digits.onnx", folder / "digits.npz"
    contents = {model: found.model.read_bytes(), data: packed.getvalue()}
    for path, content in contents.items():
        if path.exists() and path.read_bytes() != content:
            raise BadInput(f"{path} is there already and is another file; choose another folder for --save")
    for path, content in contents.items():
        write_bytes(path, content)
    return model, data
