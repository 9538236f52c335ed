from __future__ import annotations

import pytest

from trimtab.core.hints import OPENVINO_PRECISIONS, SPARSE_WEIGHTS, openvino_hints
from trimtab.core.values import Settings, options


def test_what_is_not_set_is_left_to_the_engine():
    assert openvino_hints(Settings(runtime="openvino")) == {"PERFORMANCE_HINT": "LATENCY"}


def test_everything_that_is_set_is_said_in_the_engines_words():
    extra = options({SPARSE_WEIGHTS: 0.5})
    settings = Settings(runtime="openvino", precision="bf16", threads=3, streams=2, extra=extra)
    assert openvino_hints(settings) == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": 3,
        "NUM_STREAMS": 2,
        "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": 0.5,
    }


@pytest.mark.parametrize("precision", OPENVINO_PRECISIONS)
def test_the_engine_knows_every_hint(precision):
    """OpenVINO itself is the reference: it refuses properties and values that it doesn't have."""
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    extra = options({SPARSE_WEIGHTS: 0.5})
    given = Settings(runtime="openvino", precision=precision, threads=1, streams=1, extra=extra)
    for name, value in openvino_hints(given).items():
        core.set_property("CPU", {name: value})
        assert core.get_property("CPU", name) is not None
