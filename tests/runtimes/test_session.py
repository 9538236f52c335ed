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


def test_an_error_bears_the_key_of_the_variant_whose_session_it_was(perceptron):
    with open_session(perceptron(ORT)) as session:
        for call in (lambda: session.run({}), lambda: session.time({}, 1)):
            with pytest.raises((BadInput, WorkerCrashed)) as raised:
                call()
            assert raised.value.variant == session.variant.key
    assert BadInput("of no session").variant is None


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
        pytest.raises(BadInput, match="device 'cuda' is not offered"),
    ):
        session.run(INPUTS)


def test_a_variant_that_can_not_be_opened_says_so_again_without_a_second_process(perceptron):
    variant = perceptron(ORT)
    variant.model.path.write_bytes(b"no model")
    with open_session(variant) as session:
        for _ in range(2):
            with pytest.raises(BadInput, match="onnxruntime can't run this model"):
                session.run(INPUTS)
        assert session._process.pid is None


def test_two_sessions_answer_at_the_same_time_without_mixing(perceptron):
    variant = perceptron(ORT)
    with open_session(variant) as one, open_session(variant) as other:
        for seed in range(5):
            first, second = PERCEPTRON.inputs(2, seed), PERCEPTRON.inputs(4, seed + 100)
            answers = one.run(first)["scores"], other.run(second)["scores"]
            np.testing.assert_allclose(answers[0], PERCEPTRON.answer(first)["scores"], atol=1e-5)
            np.testing.assert_allclose(answers[1], PERCEPTRON.answer(second)["scores"], atol=1e-5)


def test_a_batch_without_items_has_an_answer_without_items(perceptron):
    with open_session(perceptron(ORT)) as session:
        assert session.run(PERCEPTRON.inputs(0, 0))["scores"].shape == (0, 4)


def test_the_first_inputs_may_have_another_size_than_the_next(perceptron):
    with open_session(perceptron(ORT)) as session:
        assert [len(session.run(PERCEPTRON.inputs(items, 0))["scores"]) for items in (1, 5, 2)] == [1, 5, 2]
        assert len(session.time(PERCEPTRON.inputs(7, 0), 2).wall_ns) == 2
