"""The meters on a real engine in a real worker process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core.values import Reading, Settings, Split, Task, Trace, Variant, Workload
from trimtab.formats.onnx import save
from trimtab.meters.end_to_end import EndToEndMeter
from trimtab.meters.latency import LatencyMeter
from trimtab.meters.memory import MemoryMeter
from trimtab.meters.predict import predict
from trimtab.meters.quality import QualityMeter
from trimtab.meters.throughput import ThroughputMeter
from trimtab.runtimes.session import ProcessSession, open_session

WEIGHTS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
ITEMS = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
LABELS = np.where(np.arange(50) < 40, (ITEMS @ WEIGHTS).argmax(axis=1), 0)


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Variant:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = save(proto, tmp_path_factory.mktemp("model") / "linear.onnx")
    return Variant(model=model, settings=Settings(runtime="onnxruntime", threads=1))


@pytest.fixture(scope="module")
def session(variant: Variant) -> Iterator[ProcessSession]:
    with open_session(variant) as opened:
        yield opened


@pytest.fixture
def task(split: Callable[..., Split]) -> Task:
    return Task(splits=(split(ITEMS, LABELS),))


def readings(found: Any) -> dict[tuple[str, str | None], Reading]:
    return {(item.name, item.place): item for item in found if isinstance(item, Reading)}


def test_answers_are_those_of_numpy_at_any_batch(session: ProcessSession, task: Task) -> None:
    for batch in (1, 7, 64):
        found = predict(session, task, task.splits[0], Workload(batch=batch))
        assert found == pytest.approx(ITEMS @ WEIGHTS, rel=1e-5, abs=1e-5)


def test_quality_counts_what_is_right(session: ProcessSession, variant: Variant, task: Task) -> None:
    found = readings(QualityMeter().read(session, variant, task, Workload(batch=16)))
    assert found["accuracy", None].value == np.mean((ITEMS @ WEIGHTS).argmax(axis=1) == LABELS)


def test_latency_and_cold_start_are_read(session: ProcessSession, variant: Variant, task: Task) -> None:
    found = LatencyMeter(calls=100).read(session, variant, task, Workload())
    read = readings(found)
    for name in ("latency_mean", "latency_p50", "latency_p90", "cpu_use", "load_time", "first_call"):
        value = read[name, None].value
        assert value is not None
        assert value > 0
    assert read["latency_p99", None].scope == "n too small: 100 of 662"
    (trace,) = [item for item in found if isinstance(item, Trace)]
    assert len(trace.values) == 100


def test_throughput_grows_over_batches(session: ProcessSession, variant: Variant, task: Task) -> None:
    found = readings(ThroughputMeter(largest=4, seconds=2).read(session, variant, task, Workload(batch=2)))
    assert {place for _, place in found} >= {None, "batch=1", "batch=2"}
    assert found["throughput", None].value == found["throughput", "batch=2"].value


def test_memory_is_that_of_another_process(session: ProcessSession, variant: Variant, task: Task) -> None:
    (peak,) = MemoryMeter().read(session, variant, task, Workload())
    assert isinstance(peak, Reading)
    assert peak.value is not None
    assert 5e6 < peak.value < 4e9


def test_end_to_end_is_read(session: ProcessSession, variant: Variant, task: Task) -> None:
    (found,) = EndToEndMeter(calls=20).read(session, variant, task, Workload())
    assert isinstance(found, Reading)
    assert found.value is not None
    assert found.value > 0
