from __future__ import annotations

import hashlib
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core import values
from trimtab.core.values import (
    ArrayFile,
    Goal,
    Layer,
    Limit,
    Machine,
    Measurement,
    Model,
    Reading,
    Settings,
    Signature,
    Split,
    Step,
    Task,
    TensorSpec,
    Variant,
    Work,
    Workload,
    content_digest,
    options,
)

NOUNS = [kind for kind in vars(values).values() if isinstance(kind, type) and is_dataclass(kind)]
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)


def spec(name: str, *shape: int | str, **more: Any) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape, **more)


def variant(**settings: Any) -> Variant:
    model = Model(format="onnx", path=Path("a.onnx"), digest="d", signature=Signature(inputs=(), outputs=()))
    return Variant(model=model, settings=Settings(runtime="onnxruntime", **settings))


def array(rows: int, name: str = "x") -> ArrayFile:
    return ArrayFile(name=name, path=Path(f"{name}.npy"), dtype="float32", shape=(rows, 3))


def split(name: str, rows: int = 4, **more: Any) -> Split:
    return Split(name=name, inputs=(array(rows),), rows=array(rows, "rows"), **more)


class TestNouns:
    @pytest.mark.parametrize("kind", NOUNS, ids=lambda kind: kind.__name__)
    def test_none_can_be_changed_and_none_takes_a_number_without_its_name(self, kind):
        assert kind.__dataclass_params__.frozen
        assert "__slots__" in vars(kind)
        assert all(field.kw_only for field in fields(kind))

    def test_writing_to_one_is_an_error(self):
        with pytest.raises(FrozenInstanceError):
            Step(technique="prune").technique = "another"  # type: ignore[misc]

    def test_equal_ones_are_one_key(self):
        assert len({Step(technique="a", options=options(b=1)), Step(technique="a", options=options({"b": 1}))}) == 1


class TestOptions:
    @given(st.dictionaries(st.text(max_size=5), scalars, max_size=5))
    def test_the_order_of_writing_does_not_matter(self, given_options):
        backwards = dict(reversed(given_options.items()))
        assert options(given_options) == options(backwards)
        assert dict(options(given_options)) == given_options

    def test_words_win_over_the_mapping(self):
        assert options({"share": 0.1, "rounds": 2}, share=0.5) == (("rounds", 2), ("share", 0.5))
        assert options() == ()


class TestContentDigest:
    def test_is_half_of_the_sha256_of_the_compact_json(self):
        assert (
            content_digest("a", 1, {"c": None, "b": 2.5})
            == hashlib.sha256(b'["a",1,{"b":2.5,"c":null}]').hexdigest()[:32]
        )

    @given(st.lists(scalars, max_size=4), st.lists(scalars, max_size=4))
    def test_is_one_for_equal_parts_and_another_for_others(self, one, other):
        same = [repr(part) for part in one] == [repr(part) for part in other]
        assert (content_digest(*one) == content_digest(*other)) is same

    def test_parts_do_not_run_into_each_other(self):
        assert content_digest("ab", "c") != content_digest("a", "bc") != content_digest(["a", "bc"])


class TestSignature:
    def test_tells_data_from_state_in_the_order_of_the_model(self):
        given_inputs = (
            spec("h", 1, role="state", fed_by="h2"),
            spec("x", "n", 3),
            spec("scale", 1, role="constant"),
            spec("y", "n"),
        )
        signature = Signature(inputs=given_inputs, outputs=())
        assert [one.name for one in signature.data_inputs] == ["x", "y"]
        assert [one.name for one in signature.states] == ["h"]


class TestSettings:
    @pytest.mark.parametrize(
        ("more", "label"),
        [
            ({}, "ort"),
            ({"threads": 1}, "ort, 1 thread"),
            ({"threads": 4, "streams": 1}, "ort, 4 threads, 1 stream"),
            ({"streams": 2, "precision": "bf16"}, "ort, 2 streams, bf16"),
            ({"spinning": False, "fusion": False}, "ort, no spinning, no fusion"),
            ({"static_shapes": True}, "ort, static shapes"),
            ({"spinning": True, "extra": options(channels_last=True)}, "ort, spinning, channels_last=True"),
        ],
    )
    def test_the_label_names_what_is_not_left_to_the_runtime(self, more, label):
        assert Settings(runtime="ort", **more).label() == label


class TestVariant:
    @pytest.mark.parametrize(
        "change",
        [
            {"model": replace(variant().model, digest="e")},
            {"model": replace(variant().model, format="openvino")},
            {"model": replace(variant().model, signature=Signature(inputs=(spec("x", 1, 3),), outputs=()))},
            {"settings": Settings(runtime="openvino")},
            {"settings": Settings(runtime="onnxruntime", precision="bf16")},
            {"settings": Settings(runtime="onnxruntime", device="gpu")},
            {"steps": (Step(technique="a"),)},
            {"steps": (Step(technique="a", seed=1),)},
            {"steps": (Step(technique="a", options=options(share=0.5)),)},
            {"absorbed": (Step(technique="scale"),)},
        ],
        ids=str,
    )
    def test_the_key_follows_whatever_can_change_an_answer_or_a_time(self, change):
        assert replace(variant(), **change).key != variant().key

    def test_the_key_does_not_follow_the_place_of_the_file(self):
        moved = replace(variant(), model=replace(variant().model, path=Path("/elsewhere/b.onnx")))
        assert moved.key == variant().key

    def test_the_order_of_the_steps_is_part_of_the_key(self):
        one, two = Step(technique="one"), Step(technique="two")
        assert replace(variant(), steps=(one, two)).key != replace(variant(), steps=(two, one)).key

    def test_other_settings_keep_model_and_steps(self):
        touched = variant().after(variant().model, Step(technique="a"))
        moved = touched.on(Settings(runtime="openvino"))
        assert (moved.model, moved.steps) == (touched.model, touched.steps)
        assert moved.settings == Settings(runtime="openvino")

    def test_a_step_is_added_last_and_the_variant_before_it_is_left_alone(self):
        before = variant().after(variant().model, Step(technique="first"))
        after = before.after(replace(before.model, digest="new"), Step(technique="second"))
        assert [step.technique for step in after.steps] == ["first", "second"]
        assert [step.technique for step in before.steps] == ["first"]
        assert (after.model.digest, after.settings) == ("new", before.settings)

    def test_the_label_reads_from_the_first_step_to_the_settings(self):
        assert variant(threads=2).label() == "as given on onnxruntime, 2 threads"
        steps = (Step(technique="no-such-one"), Step(technique="no-such-two", options=options(share=0.5, keep=None)))
        assert replace(variant(), steps=steps).label() == "no-such-one → no-such-two(share=0.5) on onnxruntime"


class TestTask:
    def test_a_split_is_found_by_its_name(self):
        task = Task(splits=(split("select"), split("certify", rows=7)))
        assert len(task.split("certify") or ()) == 7
        assert task.split("train") is None

    def test_is_labelled_when_every_split_is(self):
        labelled, bare = split("select", labels=array(4, "labels")), split("certify")
        assert Task(splits=(labelled,)).labelled
        assert not Task(splits=(labelled, bare)).labelled
        assert not Task().labelled, "without items nothing is labelled"


class TestWorkload:
    @pytest.mark.parametrize(
        ("workload", "shape"),
        [
            (Workload(), {"ids": (1, "length"), "mask": (1, "length")}),
            (Workload(batch=4, lengths=(("length", 128),)), {"ids": (4, 128), "mask": (4, 128)}),
            (Workload(lengths=(("ids:1", 9),)), {"ids": (1, 9), "mask": (1, "length")}),
            (Workload(batch=4, lengths=(("n", 2),)), {"ids": (2, "length"), "mask": (2, "length")}),
        ],
    )
    def test_free_sizes_are_bound_by_name_by_place_or_by_the_batch(self, workload, shape):
        signature = Signature(inputs=(spec("ids", "n", "length"), spec("mask", "n", "length")), outputs=())
        assert workload.shapes(signature) == shape

    def test_what_has_no_name_is_the_batch_in_front_and_free_elsewhere(self):
        signature = Signature(inputs=(spec("x", "?", "?", 3),), outputs=())
        assert Workload(batch=5).shapes(signature) == {"x": (5, "?", 3)}
        assert Workload(lengths=(("x:1", 7), ("x:0", 2))).shapes(signature) == {"x": (2, 7, 3)}

    def test_the_batch_of_a_state_is_known_by_its_name_not_by_its_place(self):
        signature = Signature(inputs=(spec("x", "n", 3), spec("h", 2, "n", 4, role="state")), outputs=())
        assert Workload(batch=6).shapes(signature)["h"] == (2, 6, 4)
        nameless = Signature(inputs=(spec("h", "?", 4, role="state"),), outputs=())
        assert Workload(batch=6).shapes(nameless)["h"] == ("?", 4)

    def test_fixed_sizes_stay_and_a_scalar_has_none(self):
        signature = Signature(inputs=(spec("x", 1, 3), spec("temperature")), outputs=())
        assert Workload(batch=8).shapes(signature) == {"x": (1, 3), "temperature": ()}


class TestWork:
    LAYERS = (
        Layer(name="a", operator="Conv", macs=600, nonzero=150),
        Layer(name="b", operator="Gemm", macs=400, nonzero=400),
        Layer(name="c", operator="Mystery", macs=None, reason="unknown"),
        Layer(name="d", operator="Gemm", macs=0, nonzero=0),
    )

    def test_adds_what_could_be_counted_and_names_what_could_not(self):
        work = Work(layers=self.LAYERS)
        assert (work.macs, work.nonzero, work.coverage) == (1000, 550, 0.75)
        assert [layer.name for layer in work.uncounted] == ["c"]

    def test_nothing_to_count_is_counted_completely(self):
        assert (Work(layers=()).macs, Work(layers=()).coverage) == (0, 1.0)


class TestMeasurement:
    HERE = Machine(
        cpu="c", flags=("avx2",), cores=2, memory_bytes=1, hypervisor=None, governor=None, system="s", python="p",
        versions=options(numpy="2"),
    )  # fmt: skip

    def measurement(self) -> Measurement:
        readings = (
            Reading(name="recall", value=0.9),
            Reading(name="recall", value=0.5, place="größe"),
            Reading(name="macs", value=None, provenance="unavailable"),
        )
        return Measurement(
            variant=variant(), task="t", workload=Workload(), readings=readings, machine=self.HERE, time="now"
        )

    def test_readings_are_found_by_name_and_place(self):
        found = self.measurement()
        assert (found.value("recall"), found.value("recall", "größe")) == (0.9, 0.5)
        assert [reading.place for reading in found.named("recall")] == [None, "größe"]

    def test_what_is_missing_or_unavailable_is_none_and_never_zero(self):
        found = self.measurement()
        assert found.reading("recall", "elsewhere") is None
        assert found.value("latency_p50") is None
        assert found.reading("macs") is not None
        assert found.value("macs") is None

    @pytest.mark.parametrize(
        "change",
        [
            {"cpu": "d"}, {"flags": ()}, {"cores": 4}, {"hypervisor": "KVM"}, {"system": "t"}, {"python": "q"},
            {"versions": options(numpy="3")},
        ],
        ids=str,
    )  # fmt: skip
    def test_another_machine_or_software_has_another_digest(self, change):
        assert replace(self.HERE, **change).digest != self.HERE.digest

    def test_the_state_of_the_moment_leaves_the_digest(self):
        busy = replace(self.HERE, load_average=9.0, pressure=0.5, steal_s=3.0, governor="powersave", memory_bytes=2)
        assert busy.digest == self.HERE.digest


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_a_limit_holds_at_its_bound_and_on_one_side_of_it(value, bound):
    below, above = (Limit(reading="r", relation=relation, bound=bound) for relation in ("<=", ">="))
    assert below.holds(bound)
    assert above.holds(bound)
    assert below.holds(value) == (value <= bound)
    assert (below.holds(value) and above.holds(value)) == (value == bound)


def test_a_goal_protects_one_point_and_errs_once_in_twenty_unless_said_otherwise():
    goal = Goal()
    assert (goal.max_drop, goal.error, goal.margin, goal.workload) == (0.01, 0.05, 0.03, Workload(batch=1))


@pytest.mark.parametrize(
    ("word", "objective", "direction"),
    [
        ("size", "bytes", "minimize"),
        ("memory", "peak_memory", "minimize"),
        ("macs", "macs", "minimize"),
        ("bytes", "bytes", "minimize"),
        ("latency", "latency", "minimize"),
        ("throughput", "throughput", "maximize"),
    ],
)
def test_a_goal_takes_the_words_that_people_type(word, objective, direction):
    goal = Goal(objective=word)
    assert (goal.objective, goal.direction) == (objective, direction)
    assert replace(goal) == goal


def test_a_limit_takes_the_words_that_people_type():
    assert Limit(reading="p99", relation="<=", bound=0.02) == Limit(reading="latency_p99", relation="<=", bound=0.02)
