from __future__ import annotations

import pytest

from trimtab.core.hints import OPENVINO_PRECISIONS, openvino_hints
from trimtab.core.values import Settings


def test_what_is_not_set_is_left_to_the_engine():
    assert openvino_hints(Settings(runtime="openvino")) == {"PERFORMANCE_HINT": "LATENCY"}


def test_everything_that_is_set_is_said_in_the_engines_words():
    settings = Settings(runtime="openvino", precision="bf16", threads=3, streams=2)
    assert openvino_hints(settings) == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": 3,
        "NUM_STREAMS": 2,
    }


@pytest.mark.parametrize("precision", OPENVINO_PRECISIONS)
def test_the_engine_knows_every_hint(precision):
    """OpenVINO itself is the reference: it refuses properties and values that it doesn't have."""
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    for name, value in openvino_hints(Settings(runtime="openvino", precision=precision, threads=1, streams=1)).items():
        core.set_property("CPU", {name: value})
        assert core.get_property("CPU", name) is not None
