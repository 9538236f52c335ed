from __future__ import annotations

import math
import time

import numpy as np
import psutil
import pytest

from trimtab.core.errors import BadInput, WorkerCrashed, WorkerTimeout
from trimtab.core.process import Limits
from trimtab.core.protocols import Informed, Renewable
from trimtab.core.values import Settings
from trimtab.runtimes.host import EngineHost, timed
from trimtab.runtimes.session import open_session
from trimtab.testing.networks import PERCEPTRON

ORT = Settings(runtime="onnxruntime", threads=1)
INPUTS = PERCEPTRON.inputs(3, 0)


def test_answers_and_times_in_a_process_that_starts_at_the_first_use(perceptron, tmp_path):
    with open_session(perceptron(ORT), tmp_path / "logs" / "one.log") as session:
        assert not session.log.exists()
        assert np.allclose(session.run(INPUTS)["scores"], PERCEPTRON.answer(INPUTS)["scores"], atol=1e-5)
        samples = session.time(INPUTS, 7)
        assert session.log.exists()
    assert samples.wall_ns.shape == samples.cpu_ns.shape == (7,)
    assert (samples.wall_ns > 0).all()


def test_tells_how_its_process_started(perceptron):
    with open_session(perceptron(ORT)) as session:
        assert isinstance(session, Informed)
        before = session.info()
        assert before["load_s"] > 0
        assert math.isnan(before["first_call_s"])
        session.run(INPUTS)
        after = session.info()
    assert 0 < after["first_call_s"] < 60
    assert after["peak_memory_bytes"] >= after["empty_memory_bytes"] > 1e6


def test_the_first_call_is_not_among_the_timed_ones(perceptron):
    with open_session(perceptron(ORT)) as session:
        session.time(INPUTS, 1)
        assert session.info()["first_call_s"] > 0


def test_inputs_that_are_timed_again_are_sent_once(perceptron, monkeypatch):
    with open_session(perceptron(ORT)) as session:
        sent = []
        real = session._process.call
        monkeypatch.setattr(
            session._process, "call", lambda method, *a, **k: sent.append(method) or real(method, *a, **k)
        )
        session.time(INPUTS, 1)
        session.time(INPUTS, 1)
        session.time(dict(INPUTS), 1)
    assert sent == ["take", "time", "time", "take", "time"]


def test_a_fresh_session_is_another_process_of_the_same_variant(perceptron):
    with open_session(perceptron(ORT)) as session:
        assert isinstance(session, Renewable)
        session.run(INPUTS)
        with session.fresh() as other:
            assert other.variant == session.variant
            assert np.array_equal(other.run(INPUTS)["scores"], session.run(INPUTS)["scores"])
            assert other.log != session.log


def test_closing_ends_the_process_and_closing_twice_does_no_harm(perceptron):
    session = open_session(perceptron(ORT))
    session.run(INPUTS)
    pid = session._process.pid
    session.close()
    session.close()
    assert pid is not None
    assert not psutil.pid_exists(pid)
    with pytest.raises(WorkerCrashed):
        session.run(INPUTS)


def test_a_limit_ends_a_start_that_takes_too_long(perceptron):
    start = time.monotonic()
    with open_session(perceptron(ORT), limits=Limits(start_s=0.01)) as session, pytest.raises(WorkerTimeout):
        session.run(INPUTS)
    assert time.monotonic() - start < 10


def test_wrong_inputs_are_one_line_and_the_session_lives_on(perceptron):
    with open_session(perceptron(ORT)) as session:
        with pytest.raises(WorkerCrashed, match=r"InvalidArgument: .*Unexpected input data type") as raised:
            session.run({"x": INPUTS["x"].astype(np.int64)})
        assert "\n" not in str(raised.value)
        assert session.run(INPUTS)["scores"].shape == (3, 4)


def test_what_the_runtime_refuses_comes_back_as_it_was_said(perceptron):
    with (
        open_session(perceptron(Settings(runtime="onnxruntime", device="cuda"))) as session,
        pytest.raises(BadInput, match="device 'cuda' is not supported"),
    ):
        session.run(INPUTS)


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
