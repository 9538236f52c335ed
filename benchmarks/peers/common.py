"""What the peers share: their command line, the calibration inputs, and the record of what they made."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Feed = dict[str, NDArray[Any]]


def arguments(about: str, *flags: str) -> argparse.Namespace:
    """Parse the command line of a peer and print it, so that it can be run alone."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--model", required=True, help="an ONNX file; for PyTorch's peers file.py:function")
    parser.add_argument("--weights", type=Path, help="safetensors for file.py:function")
    parser.add_argument("--calibration", type=Path, required=True, help=".npz with prepared inputs by name")
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    print("$", shlex.join(["python", *sys.argv]), flush=True)
    return given


def feeds(calibration: Path, items: int = 300) -> Iterator[Feed]:
    """Yield the calibration inputs one item at a time."""
    with np.load(calibration) as held:
        arrays = dict(held)
    for row in range(min(items, len(next(iter(arrays.values()))))):
        yield {name: array[row : row + 1] for name, array in arrays.items()}


def prepare_onnx(model: str, prepared: Path) -> None:
    """Pre-process a model as ONNX Runtime's documentation asks before it quantizes.

    Where symbolic shape inference fails it is left out, the option that the documentation has for that.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    try:
        quant_pre_process(model, prepared)
    except Exception as error:  # noqa: BLE001  it raises nothing narrower
        print(f"{error}: again with skip_symbolic_shape=True")
        quant_pre_process(model, prepared, skip_symbolic_shape=True)


def record(output: Path, model: str | Path, settings: dict[str, Any], **more: Any) -> None:
    """Write `peer.json`: the model to open, how it runs (fields of Settings), what the environment needs."""
    held = {"model": str(model), "settings": settings, **more}
    (output / "peer.json").write_text(json.dumps(held, default=str, indent=1) + "\n")
    print(f"{output / 'peer.json'}: {json.dumps(held, default=str)}")
