"""States by name, by likeness and by the user's word; what does not fit is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.errors import BadInput
from trimtab.core.values import Signature, TensorSpec
from trimtab.formats.states import find_states, with_states

Shapes = dict[str, list[int | str]]


def signature(inputs: Shapes, outputs: Shapes, kinds: dict[str, str] | None = None) -> Signature:
    def specs(given: Shapes) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=name, dtype=(kinds or {}).get(name, "float32"), shape=tuple(shape))
            for name, shape in given.items()
        )

    return Signature(inputs=specs(inputs), outputs=specs(outputs))


def found(inputs: Shapes, outputs: Shapes) -> dict[str, str]:
    return dict(find_states(signature(inputs, outputs)))


class TestFinding:
    @pytest.mark.parametrize(
        ("source", "end"),
        [
            ("past_key_values.0.key", "present.0.key"),
            ("past_key_values.0.key", "present_key_values.0.key"),
            ("past_3", "present_3"),
            ("cache_k", "new_cache_k"),
            ("h", "hn"),
            ("h0", "hn"),
            ("h_0", "h_n"),
            ("c", "cn"),
            ("h_in", "h_out"),
            ("state", "stateN"),
            ("state", "state_out"),
            ("hidden", "new_hidden"),
            ("in_cache", "out_cache"),
            ("prev_state", "next_state"),
            ("old_memory", "memory"),
            ("memory_in", "memory_out"),
        ],
    )
    def test_names_that_by_convention_mean_it(self, source, end):
        assert found({"x": [1, 8], source: [2, 4]}, {"y": [1, 3], end: [2, 4]}) == {source: end}

    def test_a_cache_may_grow_another_state_may_not(self):
        grown = found({"x": [1], "past_0": [1, "past"]}, {"y": [1], "present_0": [1, "past + 1"]})
        assert grown == {"past_0": "present_0"}
        assert found({"x": [1], "h": [1, 4]}, {"y": [1], "hn": [2, 4]}) == {}

    def test_an_image_in_and_an_image_out_are_no_state(self):
        assert found({"image_in": [1, 3, 8, 8]}, {"image_out": [1, 3, 8, 8]}) == {}

    def test_likeness_of_shape_alone_is_no_state(self):
        assert found({"x": [1, 4], "mask": [1, 4]}, {"y": [1, 4], "z": [1, 4]}) == {}

    def test_another_dtype_is_no_state(self):
        kinds = {"hn": "float16"}
        assert find_states(signature({"x": [1], "h": [4]}, {"y": [1], "hn": [4]}, kinds)) == ()

    def test_a_recurrent_cell_keeps_both_of_its_states(self):
        cell = {"h_in": [1, 4], "c_in": [1, 4]}
        assert found({"x": [1, 8], **cell}, {"y": [1, 2], "h_out": [1, 4], "c_out": [1, 4]}) == {
            "h_in": "h_out",
            "c_in": "c_out",
        }

    def test_an_output_feeds_one_state_only(self):
        assert found({"x": [1], "h": [4], "h0": [4]}, {"y": [1], "hn": [4]}) == {"h": "hn"}


class TestNaming:
    def test_marks_both_ends_and_leaves_the_rest_as_it_was(self):
        given = signature({"x": [1], "a": [2], "h": [2]}, {"y": [1], "b": [2], "hn": [2]})
        marked = with_states(given, (("a", "b"),))
        assert [(spec.name, spec.role, spec.fed_by) for spec in marked.inputs] == [
            ("x", "data", None),
            ("a", "state", "b"),
            ("h", "data", None),
        ]
        assert [spec.role for spec in marked.outputs] == ["data", "state", "data"]
        assert [spec.shape for spec in marked.inputs] == [spec.shape for spec in given.inputs]

    @pytest.mark.parametrize(
        ("pairs", "words"),
        [
            ((("none", "b"),), "'none' ← 'b' is not in the model, which has inputs x, a; outputs y, b, k"),
            ((("a", "none"),), "is not in the model"),
            ((("a", "y"),), r"'a' \(float32 \[2\]\) can't be fed with 'y' \(float32 \[1\]\)"),
            ((("a", "k"),), "shape and dtype must agree"),
            ((("a", "b"), ("a", "b")), "named in two states"),
            ((("a", "b"), ("c", "b")), "named in two states|not in the model"),
        ],
    )
    def test_pairs_that_do_not_fit_are_refused_in_one_line(self, pairs, words):
        given = signature({"x": [1], "a": [2]}, {"y": [1], "b": [2], "k": [2]}, {"k": "int64"})
        with pytest.raises(BadInput, match=words) as caught:
            with_states(given, pairs)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(("source", "end"), [(["n", 4], [3, 4]), ([2, 4], ["?", 4]), ([2, 4], ["?"])])
    def test_a_free_size_may_be_any(self, source, end):
        given = signature({"x": [1], "a": source}, {"y": [1], "b": end})
        assert with_states(given, (("a", "b"),)).states[0].fed_by == "b"

    @given(st.integers(0, 4))
    def test_no_state_changes_nothing_and_names_may_be_of_any_language(self, count):
        inputs: Shapes = {f"вход {number}": [number] for number in range(count)}
        plain = signature(inputs, {"выход": [1]})
        assert with_states(plain, ()) == plain
