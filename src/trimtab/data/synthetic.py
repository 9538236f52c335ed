"""Makes inputs that a model accepts when there is no data: good enough to time it, never to judge it."""

from __future__ import annotations

import numpy as np

from trimtab.core.protocols import Array
from trimtab.core.values import Signature, TensorSpec, Workload
from trimtab.data.table import numbers_only

_IMAGE_SIDE = 224
_SEQUENCE = 128
_SMALL = 10


def inputs(signature: Signature, workload: Workload, seed: int = 0) -> dict[str, Array]:
    """Return random inputs by name: normal floats, whole numbers below 10, masks of ones, positions in order."""
    numbers_only(signature)
    rng = np.random.default_rng(seed)
    sizes = shapes(signature, workload)
    return {spec.name: _one(spec, sizes[spec.name], rng) for spec in signature.data_inputs}


def shapes(signature: Signature, workload: Workload) -> dict[str, tuple[int, ...]]:
    """Return the shape of every data input by name.

    What the workload leaves free is 224 in images [batch, channels, height, width] and 128 elsewhere.
    """
    bound = workload.shapes(signature)
    return {
        spec.name: tuple(size if isinstance(size, int) else _usual(spec) for size in bound[spec.name])
        for spec in signature.data_inputs
    }


def _usual(spec: TensorSpec) -> int:
    return _IMAGE_SIDE if len(spec.shape) == 4 else _SEQUENCE


def _one(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    dtype, name = np.dtype(spec.dtype), spec.name.lower()
    if "mask" in name:
        return np.ones(shape, dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if "position" in name and shape:
        return np.ascontiguousarray(np.broadcast_to(np.arange(shape[-1]), shape).astype(dtype))
    if "type" in name or "segment" in name:
        return np.zeros(shape, dtype)
    return rng.integers(0, 256 if dtype == np.uint8 else _SMALL, shape).astype(dtype)
