"""The embedded default: the digits network that ships with trimtab, optimized on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trimtab.assets import MAX_DROP, digits
from trimtab.core import words
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
    """Write the demo's model and data where a user can play with them; return both paths."""
    found = digits()
    folder.mkdir(parents=True, exist_ok=True)
    model, data = folder / "digits.onnx", folder / "digits.npz"
    model.write_bytes(found.model.read_bytes())
    np.savez_compressed(data, inputs=found.inputs, labels=found.labels, split=found.split)
    return model, data
