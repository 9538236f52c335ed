"""What ships with trimtab: a small trained network and the data to judge it, for the demo, the tests and the docs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SPLIT_SIZES = (("train", 647), ("calibrate", 200), ("select", 250), ("certify", 700))
"""Items of each purpose. The network was trained on `train` and `calibrate`, and never on the other two."""

MAX_DROP = "1pt"
"""The drop that the certify items can decide: 700 of them prove it with a power of 80 % while up to 0.7 % of the
answers flip without a loss (Tango's test, summed over the binomial distribution; see tests/assets/test_digits.py)."""


class Digits(NamedTuple):
    """The embedded default: scikit-learn's 1,797 hand-written digits and a network trained on a part of them.

    `inputs` is float32 [1797, 1, 8, 8] between 0 and 1, as the model takes it; `labels` int64 [1797];
    `split` names the purpose of each item.
    """

    model: Path
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    split: NDArray[np.str_]


def digits() -> Digits:
    """Return the embedded digits model and its data, split the same way on every machine."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    inputs = (loaded.images[:, None] / 16).astype(np.float32)
    model = Path(__file__).with_name("digits.onnx")
    return Digits(model, inputs, loaded.target.astype(np.int64), _split(loaded.images))


def items() -> dict[str, NDArray[Any]]:
    """Return the data of `digits` as a task is opened from it: `--data trimtab.assets:items`."""
    found = digits()
    return {"inputs": found.inputs, "labels": found.labels, "split": found.split}


def _split(images: NDArray[np.float64]) -> NDArray[np.str_]:
    """Return the purpose of each image, by the order of the images' SHA-256: no random generator to agree on."""
    digests = [hashlib.sha256(image.astype(np.uint8).tobytes()).digest() for image in images]
    order = sorted(range(len(digests)), key=digests.__getitem__)
    names = np.empty(len(digests), dtype="<U9")
    names[order] = [name for name, size in SPLIT_SIZES for _ in range(size)]
    return names
