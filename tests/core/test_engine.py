from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from trimtab.core import plugins
from trimtab.core.engine import Stateful, ready, unsupported
from trimtab.core.errors import BadInput
from trimtab.core.protocols import Arrays
from trimtab.core.values import Model, Settings, Signature, TensorSpec, Variant, options


def spec(name: str, *shape: int | str, **more: Any) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape, **more)


DECAYING = Signature(
    inputs=(spec("x", "n", 1), spec("scale", "n"), spec("h_in", 1, "n", 1, role="state", fed_by="h_out")),
    outputs=(spec("y", "n", 1), spec("h_out", 1, "n", 1, role="state")),
)


def decaying(inputs: Arrays) -> dict[str, Any]:
    """Return h = h / 2 + x, and y = h · scale: the order of the steps matters."""
    assert inputs["x"].flags["C_CONTIGUOUS"]
    h = inputs["h_in"] / 2 + inputs["x"][None]
    return {"y": h[0] * inputs["scale"][:, None], "h_out": h}


def given(*steps: float, items: int = 2) -> dict[str, Any]:
    x = np.array(steps, np.float32)[None, :, None] * np.arange(1, items + 1, dtype=np.float32)[:, None, None]
    return {"x": x, "scale": np.ones(items, np.float32)}


class FakeRuntime:
    name = "fake"
    refusal: str | None = None

    def refuses(self, variant: Variant) -> str | None:
        return self.refusal

    def load(self, variant: Variant) -> Any:
        return decaying


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    made = FakeRuntime()
    monkeypatch.setattr(plugins, "make", lambda group, name: made)
    return made


def variant(signature: Signature) -> Variant:
    model = Model(format="fake", path=Path("fake"), digest="0", signature=signature)
    return Variant(model=model, settings=Settings(runtime="fake"))


def test_the_state_of_a_step_feeds_the_next_one_and_the_last_outputs_are_returned():
    engine = Stateful(decaying, DECAYING)
    assert engine(given(4, 2, 1))["y"].ravel().tolist() == [3.0, 6.0]
    assert engine(given(1, 2, 4))["y"].ravel().tolist() == [5.25, 10.5]


def test_every_call_starts_from_a_state_of_zeros():
    engine = Stateful(decaying, DECAYING)
    first = engine(given(4, 2, 1))["y"]
    engine(given(9, 9))
    assert np.array_equal(engine(given(4, 2, 1))["y"], first)


def test_an_input_without_the_axis_of_time_is_one_step_or_goes_to_every_step():
    engine = Stateful(decaying, DECAYING)
    one = {"x": np.array([[4.0]], np.float32), "scale": np.array([10.0], np.float32)}
    assert engine(one)["y"].tolist() == [[40.0]]
    assert engine(given(4, 2, items=1) | {"scale": np.array([10.0], np.float32)})["y"].tolist() == [[40.0]]


def test_the_inputs_given_are_left_alone():
    inputs = given(4, 2, 1)
    before = {name: value.copy() for name, value in inputs.items()}
    Stateful(decaying, DECAYING)(inputs)
    assert list(inputs) == list(before)
    assert all(np.array_equal(inputs[name], before[name]) for name in before)


def test_sequences_of_different_lengths_are_refused():
    two = Signature(inputs=(*DECAYING.inputs, spec("z", "n", 1)), outputs=DECAYING.outputs)
    inputs = given(4, 2, 1) | {"z": np.zeros((2, 2, 1), np.float32)}
    with pytest.raises(BadInput, match=r"sequences differ in length: \[2, 3\]"):
        Stateful(decaying, two)(inputs)


def test_a_sequence_without_steps_is_refused():
    with pytest.raises(BadInput, match="sequence without steps"):
        Stateful(decaying, DECAYING)({"x": np.zeros((2, 0, 1), np.float32), "scale": np.ones(2, np.float32)})


def test_a_model_without_state_is_run_as_its_runtime_made_it(runtime):
    plain = Signature(inputs=DECAYING.inputs[:2], outputs=DECAYING.outputs[:1])
    assert ready(variant(plain)) is decaying
    assert isinstance(ready(variant(DECAYING)), Stateful)


def test_what_the_runtime_refuses_is_said_with_its_reason(runtime):
    runtime.refusal = "it is the wrong day"
    with pytest.raises(BadInput, match="fake can't run this model: it is the wrong day"):
        ready(variant(DECAYING))


def test_an_input_that_is_missing_is_named_with_those_that_were_given():
    with pytest.raises(BadInput, match=r"also needs the inputs scale; given were: x$"):
        Stateful(decaying, DECAYING)({"x": given(4)["x"]})


@settings(max_examples=40, deadline=None)
@hypothesis.given(st.lists(st.floats(-8, 8, width=16), min_size=1, max_size=9), st.integers(1, 4))
def test_a_whole_sequence_is_the_sum_of_its_steps_each_halved_once_for_every_step_after_it(steps, items):
    halvings = 0.5 ** np.arange(len(steps))[::-1]
    expected = np.dot(steps, halvings) * np.arange(1, items + 1)
    found = Stateful(decaying, DECAYING)(given(*steps, items=items))["y"]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-4)


def test_a_sequence_in_two_parts_is_not_the_whole_because_the_state_begins_anew():
    engine = Stateful(decaying, DECAYING)
    whole = engine(given(4, 2, 1))["y"]
    engine(given(4))
    assert not np.array_equal(engine(given(2, 1))["y"], whole)


def test_a_state_begins_as_zeros_of_its_own_shape_and_type():
    seen = {}

    def remember(inputs: Arrays) -> dict[str, Any]:
        seen.update(inputs)
        return {"y": inputs["x"], "count_out": inputs["count_in"] + 1}

    state = TensorSpec(name="count_in", dtype="int64", shape=(2, "n", 3), role="state", fed_by="count_out")
    signature = Signature(inputs=(spec("x", "n", 1), state), outputs=DECAYING.outputs)
    Stateful(remember, signature)({"x": np.zeros((5, 1), np.float32)})
    assert (seen["count_in"].shape, seen["count_in"].dtype) == ((2, 5, 3), np.int64)
    assert not seen["count_in"].any()


def caching(inputs: Arrays) -> dict[str, Any]:
    """Append x to a cache, and answer with the mean over it: a key too many would change the answer."""
    present = np.concatenate([inputs["past_k"], inputs["x"][:, :, None]], axis=2)
    return {"y": present.mean(axis=2), "present_k": present}


def cached(*past: int | str, batch: int | str = "n", more: tuple[TensorSpec, ...] = ()) -> Signature:
    """A cache of that shape, (batch, heads, length), whose length grows by a step."""
    after = (*past[:2], f"{past[2]} + 1" if past[2] != "?" else "?")
    return Signature(
        inputs=(spec("x", batch, 3), *more, spec("past_k", *past, role="state", fed_by="present_k")),
        outputs=(spec("y", batch, 3), spec("present_k", *after, role="state")),
    )


@pytest.mark.parametrize(
    ("signature", "items"),
    [
        (cached("n", 3, "past"), 4),
        (cached("?", 3, "?", batch="?"), 4),
        (cached("other", 3, "past"), 4),
        (cached(1, 3, "past", batch=1), 1),
        (cached(1, 3, "?", batch=1), 1),
    ],
)
def test_a_cache_begins_empty_and_grows_with_every_step(signature, items):
    steps = np.random.default_rng(0).normal(size=(items, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(Stateful(caching, signature)({"x": steps})["y"], steps.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(Stateful(caching, signature)({"x": steps[:, 0]})["y"], steps[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("data", "state", "after", "sizes"),
    [
        (("n", 1, "side"), (2, "n", "side"), (2, "n", "side"), (2, 5, 7)),
        (("n", 1, "side"), (2, "layers", 3), (2, "layers", 3), (2, 5, 3)),
        (("?", 1, "side"), ("?", 3, "side"), ("?", 3, "side"), (5, 3, 7)),
        (("n", 1, "side"), ("n", "kept", 3), ("n", "kept", 3), (5, 0, 3)),
        (("n", 1, "side"), ("other", 3), ("?",), (5, 3)),
    ],
)
def test_a_free_size_of_a_state_is_that_of_the_data_by_name_and_one_is_the_batch(data, state, after, sizes):
    seen = {}

    def remember(inputs: Arrays) -> dict[str, Any]:
        seen.update(inputs)
        return {"y": inputs["x"], "h_out": inputs["h_in"]}

    signature = Signature(
        inputs=(spec("x", *data), spec("h_in", *state, role="state", fed_by="h_out")),
        outputs=(spec("y", *data), spec("h_out", *after, role="state")),
    )
    Stateful(remember, signature)({"x": np.zeros((5, 1, 7), np.float32)})
    assert seen["h_in"].shape == sizes


def test_a_mask_as_long_as_the_cache_can_not_be_fed_step_by_step_but_whole():
    engine = Stateful(caching, cached("n", 3, "past", more=(spec("mask", "n", "past + 1"),)))
    one = {"x": np.ones((2, 3), np.float32), "mask": np.ones((2, 1), np.float32)}
    assert engine(one)["y"].tolist() == [[1, 1, 1]] * 2
    with pytest.raises(BadInput, match=r"the input mask is as long as the cache.*give whole items"):
        engine({"x": np.ones((2, 4, 3), np.float32), "mask": np.ones((2, 4, 1), np.float32)})


def test_what_an_engine_tells_of_its_precision_is_told_of_sequences_too():
    class Bf16:
        precision = "bf16"

        def __call__(self, inputs: Arrays, /) -> dict[str, Any]:
            return decaying(inputs)

    assert Stateful(Bf16(), DECAYING).precision == "bf16"
    assert Stateful(decaying, DECAYING).precision is None


class TestUnsupported:
    DEFAULTS = Settings(runtime="mine")

    def test_defaults_ask_for_nothing_whatever_a_runtime_knows(self):
        assert unsupported(self.DEFAULTS) is None
        assert unsupported(self.DEFAULTS, "threads", "precision") is None

    @pytest.mark.parametrize(
        ("asked", "told"),
        [
            ({"precision": "bf16"}, "mine has no setting precision=bf16; its settings are: threads, turbo"),
            ({"streams": 2}, "mine has no setting streams=2"),
            ({"fusion": False}, "mine has no setting fusion=False"),
            ({"spinning": False}, "mine has no setting spinning=False"),
            ({"replicas": 2}, "mine has no setting replicas=2"),
            ({"extra": options(channels_last=True)}, "mine has no setting channels_last=True"),
            ({"device": "cuda"}, "device 'cuda' is not offered yet, only 'cpu'"),
        ],
    )
    def test_what_is_not_among_them_is_told_with_what_is(self, asked, told):
        assert told in str(unsupported(replace(self.DEFAULTS, **asked), "threads", "turbo"))

    @pytest.mark.parametrize("asked", [{"threads": 4}, {"extra": options(turbo=True)}])
    def test_what_is_among_them_is_let_through(self, asked):
        assert unsupported(replace(self.DEFAULTS, **asked), "threads", "turbo") is None
        assert "none at all" in str(unsupported(replace(self.DEFAULTS, **asked)))
