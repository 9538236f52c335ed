"""What lives in a worker process, looked at without one."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Settings
from trimtab.runtimes.host import EngineHost, timed
from trimtab.testing.networks import PERCEPTRON

ORT = Settings(runtime="onnxruntime", threads=1)
INPUTS = PERCEPTRON.inputs(3, 0)


def test_the_timed_loop_measures_wall_clock_and_processor_apart():
    wall, cpu = timed(lambda: time.sleep(0.005), 4)
    assert (wall >= 5_000_000).all()
    assert (cpu < wall / 2).all(), "sleeping takes no processor time"

    def spin() -> None:
        end = time.process_time_ns() + 3_000_000
        while time.process_time_ns() < end:
            pass

    wall, cpu = timed(spin, 3)
    assert (cpu >= 3_000_000).all()


def test_a_host_calls_the_engine_that_it_was_made_for(perceptron):
    host = EngineHost(perceptron(ORT))
    host.take(INPUTS)
    wall, cpu = host.time(3)
    assert (len(wall), len(cpu)) == (3, 3)
    assert host.info()["first_call_s"] > 0
    assert np.allclose(host.run(INPUTS)["scores"], PERCEPTRON.answer(INPUTS)["scores"], atol=1e-5)


def test_every_call_is_made_once_and_in_order():
    made = []
    wall, cpu = timed(lambda: made.append(len(made)), 5)
    assert made == [0, 1, 2, 3, 4]
    assert wall.dtype == cpu.dtype == np.int64
    assert (cpu >= 0).all()


def test_no_calls_take_no_time_and_are_no_error():
    wall, cpu = timed(lambda: pytest.fail("nobody asked for it"), 0)
    assert (wall.shape, cpu.shape) == ((0,), (0,))


def test_a_slow_call_is_slow_at_its_own_place():
    pauses = iter((0.0, 0.02, 0.0))
    wall, _ = timed(lambda: time.sleep(next(pauses)), 3)
    assert wall.argmax() == 1
    assert wall[1] >= 20_000_000


def test_a_failing_call_ends_the_timing_with_its_own_error():
    with pytest.raises(ZeroDivisionError):
        timed(lambda: 1 / 0, 3)


def test_the_first_call_is_known_once_it_was_made_and_stays(perceptron):
    host = EngineHost(perceptron(ORT))
    assert math.isnan(host.info()["first_call_s"])
    host.run(INPUTS)
    first = host.info()["first_call_s"]
    host.run(INPUTS)
    assert host.info()["first_call_s"] == first > 0


def test_memory_and_load_are_told_from_the_start(perceptron):
    told = EngineHost(perceptron(ORT)).info()
    assert told["load_s"] > 0
    assert told["peak_memory_bytes"] >= told["empty_memory_bytes"] > 1e6


def test_the_precision_is_told_by_engines_that_choose_one_and_unknown_of_others(perceptron):
    assert EngineHost(perceptron(ORT)).info()["precision"] is None
    pytest.importorskip("openvino")
    for precision in ("fp32", "bf16"):
        settings = Settings(runtime="openvino", threads=1, precision=precision)
        assert EngineHost(perceptron(settings)).info()["precision"] in (precision, "fp32")


def test_what_the_runtime_refuses_is_never_opened(perceptron):
    with pytest.raises(BadInput, match="onnxruntime can't run this model: device 'cuda'"):
        EngineHost(perceptron(Settings(runtime="onnxruntime", device="cuda")))
