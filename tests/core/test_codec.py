from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.core import codec
from trimtab.core.errors import BadInput
from trimtab.core.values import (
    Comparison,
    Goal,
    Limit,
    Machine,
    Measurement,
    Model,
    NoWorse,
    Ratio,
    Reading,
    Settings,
    Signature,
    Step,
    TensorSpec,
    Trace,
    Trial,
    Variant,
    Workload,
    options,
)

words = st.text(max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | words
choices = st.dictionaries(words, scalars, max_size=3).map(options)
specs = st.builds(
    TensorSpec,
    name=words,
    dtype=words,
    shape=st.lists(st.integers(0, 9) | words, max_size=3).map(tuple),
    role=st.sampled_from(["data", "state", "constant"]),
    fed_by=st.none() | words,
)
signatures = st.builds(
    Signature, inputs=st.lists(specs, max_size=2).map(tuple), outputs=st.lists(specs, max_size=2).map(tuple)
)
paths = st.sampled_from([Path("a.onnx"), Path("/tmp/über/b.xml")])
variants = st.builds(
    Variant,
    model=st.builds(Model, format=words, path=paths, digest=words, signature=signatures),
    settings=st.builds(Settings, runtime=words, threads=st.none() | st.integers(1, 64), extra=choices),
    steps=st.lists(st.builds(Step, technique=words, options=choices), max_size=2).map(tuple),
)
numbers = st.floats(allow_nan=False)
readings = st.builds(
    Reading,
    name=words,
    value=st.none() | numbers,
    low=st.none() | numbers,
    samples=st.integers(1, 99),
    provenance=st.sampled_from(["measured", "counted", "unavailable"]),
    place=st.none() | words,
)
machines = st.builds(
    Machine,
    cpu=words,
    flags=st.lists(words, max_size=2).map(tuple),
    cores=st.integers(1, 99),
    memory_bytes=st.integers(0),
    hypervisor=st.none() | words,
    governor=st.none() | words,
    system=words,
    python=words,
    versions=choices,
)
measurements = st.builds(
    Measurement,
    variant=variants,
    task=words,
    workload=st.builds(Workload, batch=st.integers(1, 99), lengths=st.just((("tokens", 128),))),
    readings=st.lists(readings, max_size=3).map(tuple),
    traces=st.just((Trace(name="t", times=(0.0, 1.0), values=(2.0, math.inf)),)),
    machine=machines,
    time=words,
)


@settings(max_examples=100, deadline=None)
@given(measurements)
def test_what_is_written_is_read(value):
    assert codec.loads(Measurement, codec.dumps(value)) == value


@settings(max_examples=50, deadline=None)
@given(variants)
def test_a_variant_keeps_its_key(value):
    assert codec.loads(Variant, codec.dumps(value, indent=2)).key == value.key


@settings(max_examples=100, deadline=None)
@given(choices)
def test_a_scalar_keeps_its_type(given_options):
    step = Step(technique="t", options=given_options)
    read = codec.loads(Step, codec.dumps(step)).options
    assert [(name, type(value), value) for name, value in read] == [
        (name, type(value), value) for name, value in given_options
    ]


@settings(max_examples=200, deadline=None)
@given(st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)))
def test_any_other_json_is_refused_or_fits_never_crashes(plain):
    for kind in (Goal, Variant, Reading):
        try:
            read = codec.loads(kind, json.dumps(plain))
        except BadInput:
            continue
        assert isinstance(read, kind)


def test_values_within_values_come_back():
    ratio = Ratio(
        reading="latency_p50", variant="a", baseline="b", value=0.5, low=0.4, high=0.6, level=0.95, margin=0.03,
        verdict="faster", blocks=40, processes=5,
    )  # fmt: skip
    proof = NoWorse(
        metric="accuracy", variant="a", baseline="b", max_drop=0.01, error=0.05, method="tango", items=650, groups=650,
        difference=0.0, low=-0.004, high=0.004, better=1, worse=1, flips=2, proven=True,
        harmed=(Reading(name="recall", value=0.9, place="7"),),
    )  # fmt: skip
    trial = Trial(
        name="t", steps=(), settings=Settings(runtime="r"), variant=None, state="kept", reason="", screening=ratio,
        quality=proof, log=Path("log"),
    )  # fmt: skip
    comparison = Comparison(measurements=(), ratios=(ratio,), quality=(proof,), self_test=ratio)
    assert codec.loads(Trial, codec.dumps(trial)) == trial
    assert codec.loads(Comparison, codec.dumps(comparison)) == comparison


def test_infinity_and_the_undefined_are_kept():
    read = codec.loads(Reading, codec.dumps(Reading(name="x", value=math.inf, low=math.nan)))
    assert read.value == math.inf
    assert read.low is not None
    assert math.isnan(read.low)


def test_a_whole_number_where_a_float_belongs_is_one():
    limit = codec.loads(Limit, '{"reading": "bytes", "relation": "<=", "bound": 5}')
    assert isinstance(limit.bound, float)


def test_what_was_left_out_has_its_default():
    assert codec.loads(Goal, "{}") == Goal()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Expecting"),
        ("[]", "expected an object"),
        ('{"bound": 1.0}', "missing"),
        ('{"reading": "r", "relation": "<", "bound": 1.0}', "is none of"),
        ('{"reading": 1, "relation": "<=", "bound": 1.0}', "expected str, got 1"),
        ('{"reading": "r", "relation": "<=", "bound": true}', "expected float, got True"),
        ('{"reading": "r", "relation": "<=", "bound": 1.0, "more": 1, "also": 2}', "Limit has no also, more"),
        ('{"reading": "r", "relation": "<=", "bound": null}', "expected float, got None"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(text, words):
    with pytest.raises(BadInput, match=words) as caught:
        codec.loads(Limit, text)
    assert str(caught.value).startswith("this is not a Limit as trimtab writes it: ")
    assert "\n" not in str(caught.value)


def test_a_pair_has_two_members():
    with pytest.raises(BadInput, match="expected 2 items, got 3"):
        codec.loads(Workload, '{"lengths": [["tokens", 1, 2]]}')


@dataclasses.dataclass(frozen=True)
class Shape:
    kind: Literal["a", "b"]
    inner: Shape | None = None


def test_a_value_may_hold_its_own_kind():
    assert codec.loads(Shape, codec.dumps(Shape("a", Shape("b")))) == Shape("a", Shape("b"))


@dataclasses.dataclass(frozen=True)
class Everything:
    pair: tuple[int, str]
    many: tuple[tuple[str, float], ...]
    either: int | str | None
    place: Path
    inner: Shape | Limit | None = None


def test_every_kind_of_field_comes_back_as_its_own_type():
    value = Everything((1, "größe"), (("a", 1.0), ("b", 2.0)), "7", Path("a b/ü.onnx"), Shape("b"))
    read = codec.loads(Everything, codec.dumps(value))
    assert read == value
    assert isinstance(read.place, Path)
    assert isinstance(read.either, str)
    assert codec.loads(Everything, codec.dumps(dataclasses.replace(value, either=7))).either == 7


def test_of_two_kinds_of_value_the_one_that_fits_is_built():
    limit = Limit(reading="bytes", relation="<=", bound=1.0)
    value = Everything((1, ""), (), None, Path(), limit)
    assert codec.loads(Everything, codec.dumps(value)).inner == limit


@pytest.mark.parametrize(
    "change",
    [{"pair": [1]}, {"pair": [1, 2]}, {"many": [["a"]]}, {"many": "a"}, {"either": 1.5}, {"place": 3}, {"inner": {}}],
    ids=str,
)
def test_a_field_of_another_type_is_refused(change):
    plain = codec.to_plain(Everything((1, ""), (), None, Path()))
    assert codec.loads(Everything, json.dumps(plain)) is not None
    with pytest.raises(BadInput, match="this is not a Everything"):
        codec.loads(Everything, json.dumps(plain | change))


def test_text_is_written_as_people_read_it():
    assert codec.dumps(Reading(name="größe", value=None)).startswith('{"name": "größe", "value": null')
    assert "\n" in codec.dumps(Goal(), indent=1)
