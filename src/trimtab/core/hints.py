"""What settings are called by an engine: said once, for the runtime and for the code that bundles carry."""

from __future__ import annotations

from trimtab.core.values import Settings

OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}

STATIC_ENGINES = 8
"""How many shapes a model with static shapes is kept compiled for."""


SPARSE_WEIGHTS = "sparse_weights"
"""The extra setting of OpenVINO: from which share of zeros on it keeps the weights of a matrix product packed."""


def openvino_hints(settings: Settings) -> dict[str, str | int | float]:
    """Return the properties that OpenVINO compiles a model with; what is None is left to it."""
    sparse = dict(settings.extra).get(SPARSE_WEIGHTS)
    found: dict[str, str | int | float | None] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": OPENVINO_PRECISIONS[settings.precision] if settings.precision else None,
        "INFERENCE_NUM_THREADS": settings.threads,
        "NUM_STREAMS": settings.streams,
        "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": float(sparse) if sparse is not None else None,
    }
    return {name: value for name, value in found.items() if value is not None}
