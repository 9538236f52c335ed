from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.core.protocols import Informed, Renewable, Session
from trimtab.core.values import Model, Settings, Signature, Variant
from trimtab.testing import PERCEPTRON, FakeProcessSession, FakeSession

MODEL = Model(format="onnx", path=Path("m.onnx"), digest="", signature=Signature(inputs=(), outputs=()))
VARIANT = Variant(model=MODEL, settings=Settings(runtime="onnxruntime"))
INPUTS = PERCEPTRON.inputs(3, 0)


def session(**given) -> FakeSession:
    return FakeSession(VARIANT, PERCEPTRON.answer, **given)


def test_has_every_method_of_a_session():
    made = session()
    wanted = [name for name in vars(Session) if not name.startswith("_")]
    assert {"run", "time", "close"} <= set(wanted)
    assert all(callable(getattr(made, name)) for name in wanted)
    assert made.variant is VARIANT


def test_answers_by_its_function_and_remembers_how_many_were_asked():
    made = session()
    np.testing.assert_array_equal(made.run(INPUTS)["scores"], PERCEPTRON.answer(INPUTS)["scores"])
    made.run(PERCEPTRON.inputs(8, 0))
    assert made.batches == [3, 8]


def test_takes_exactly_as_long_as_it_is_told_counting_calls_over_all_timings():
    made = session(call_ns=lambda number, items: 1000 * number + items)
    assert made.time(INPUTS, 2).wall_ns.tolist() == [3, 1003]
    assert made.time(PERCEPTRON.inputs(5, 0), 3).wall_ns.tolist() == [2005, 3005, 4005]
    assert made.timed == [3, 5]
    assert made.batches == [], "timing asks for no answer"


@pytest.mark.parametrize("cores", [0.5, 1.0, 4.0])
def test_processor_time_is_wall_clock_times_its_cores(cores):
    samples_of_three = session(cores=cores).time(INPUTS, 3)
    np.testing.assert_array_equal(samples_of_three.cpu_ns, samples_of_three.wall_ns * cores)
    assert samples_of_three.wall_ns.dtype == samples_of_three.cpu_ns.dtype == np.int64


def test_being_closed_is_remembered_and_may_happen_twice():
    made = session()
    assert not made.closed
    made.close()
    made.close()
    assert made.closed


def test_a_bare_one_tells_nothing_of_its_start_and_the_other_does():
    assert not isinstance(session(), Informed)
    made = FakeProcessSession(VARIANT, PERCEPTRON.answer)
    assert isinstance(made, Informed)
    assert made.info()["peak_memory_bytes"] > made.info()["empty_memory_bytes"] > 0


def test_a_fresh_one_is_alike_remembered_and_closed_on_its_own():
    made = FakeProcessSession(VARIANT, PERCEPTRON.answer, call_ns=lambda number, items: 7 + number, cores=3.0)
    assert isinstance(made, Renewable)
    made.time(INPUTS, 4)
    fresh = made.fresh()
    assert made.opened == (fresh,)
    assert fresh.time(INPUTS, 2).wall_ns.tolist() == [7, 8], "its calls are counted from the start"
    assert fresh.time(INPUTS, 1).cpu_ns.tolist() == [27]
    fresh.close()
    assert (fresh.closed, made.closed) == (True, False)
    made.fresh()
    assert len(made.opened) == 2
    assert FakeProcessSession(VARIANT, PERCEPTRON.answer).opened == ()
