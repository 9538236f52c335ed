"""What settings are called by an engine: said once, for the runtime and for the code that bundles carry."""

from __future__ import annotations

from trimtab.core.values import Settings

OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}

STATIC_ENGINES = 8
"""How many shapes a model with static shapes is kept compiled for."""


def openvino_hints(settings: Settings) -> dict[str, str | int]:
    """Return the properties that OpenVINO compiles a model with; what is None is left to it."""
    found: dict[str, str | int | None] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": OPENVINO_PRECISIONS[settings.precision] if settings.precision else None,
        "INFERENCE_NUM_THREADS": settings.threads,
        "NUM_STREAMS": settings.streams,
    }
    return {name: value for name, value in found.items() if value is not None}
