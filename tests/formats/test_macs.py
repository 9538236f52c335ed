"""Einsum counts against numpy, zeros at their zero points, and layers that can't be counted."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.values import Layer, Work
from trimtab.formats.macs import Part, UnknownError, counted, einsum_macs, share_kept, uncounted, within


@st.composite
def einsums(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]]]:
    """Two operands over a few letters, and a result that may leave any of them out."""
    sizes = {letter: draw(st.integers(0, 4)) for letter in "abcde"}
    terms = [draw(st.lists(st.sampled_from("abcde"), max_size=4, unique=True)) for _ in range(2)]
    used = sorted({letter for term in terms for letter in term})
    kept = draw(st.permutations(used))[: draw(st.integers(0, len(used)))]
    shapes = [tuple(sizes[letter] for letter in term) for term in terms]
    return f"{''.join(terms[0])},{''.join(terms[1])}->{''.join(kept)}", shapes


class TestEinsum:
    @given(einsums())
    def test_counts_the_products_that_ones_add_up_to(self, drawn):
        equation, shapes = drawn
        products = int(np.einsum(equation, *map(np.ones, shapes)).sum())
        terms, _, kept = equation.partition("->")
        sums_up = set(terms) - {","} > set(kept)
        assert einsum_macs(equation, shapes) == (products if sums_up else 0)

    @pytest.mark.parametrize(
        ("equation", "shapes"),
        [
            ("...ij,...jk->...ik", [(7, 2, 3, 4), (2, 4, 5)]),
            ("...ij,jk->...ik", [(3, 4), (4, 5)]),
            ("i...,i...->...", [(3, 4, 5), (3, 4, 5)]),
            ("bij,jk", [(2, 3, 4), (4, 5)]),
            ("ii,ij->j", [(3, 3), (3, 4)]),
            (" b i j , b j k -> b i k ", [(2, 3, 4), (2, 4, 5)]),
            ("ij,jk->ik", [(3, 0), (0, 5)]),
        ],
    )
    def test_follows_ellipses_implicit_results_diagonals_and_spaces(self, equation, shapes):
        assert einsum_macs(equation, shapes) == int(np.einsum(equation, *map(np.ones, shapes)).sum())

    def test_an_axis_of_one_is_broadcast(self):
        assert einsum_macs("...j,...j->...", [(1, 4), (6, 4)]) == einsum_macs("...j,...j->...", [(6, 4), (1, 4)]) == 24

    def test_one_operand_multiplies_nothing(self):
        assert einsum_macs("ij->i", [(3, 4)]) == 0

    def test_of_more_than_two_operands_the_order_is_not_known(self):
        with pytest.raises(UnknownError, match="no single order"):
            einsum_macs("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)])

    def test_shapes_of_another_rank_are_malformed(self):
        with pytest.raises(ValueError, match="zip"):
            einsum_macs("ij,jk->ik", [(2, 3, 4), (3, 4)])


class TestShare:
    @given(st.lists(st.integers(-2, 2), min_size=1, max_size=30))
    def test_counts_what_is_not_zero(self, elements):
        assert share_kept(np.array(elements, np.int8), None) == (len(elements) - elements.count(0), len(elements))

    @given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 1), st.integers(0, 2**32 - 1))
    def test_or_not_at_the_zero_point_of_its_channel(self, rows, columns, axis, seed):
        rng = np.random.default_rng(seed)
        content = rng.integers(0, 4, (rows, columns), dtype=np.uint8)
        shape = (rows, 1) if axis == 0 else (1, columns)
        zero = rng.integers(0, 4, shape, dtype=np.uint8)
        assert share_kept(content, zero) == (int((content != zero).sum()), content.size)

    def test_one_zero_point_for_each_channel_may_come_as_a_list(self):
        content = np.array([[5, 5, 0], [7, 5, 7]], np.uint8)
        assert share_kept(content, np.array([5, 7], np.uint8)) == (2, 6)

    def test_one_zero_point_is_for_all(self):
        assert share_kept(np.array([[3, 3], [3, 4]], np.uint8), np.array([3], np.uint8)) == (1, 4)

    def test_zero_points_that_fit_nothing_are_left_out(self):
        assert share_kept(np.array([[0, 1], [2, 3]], np.uint8), np.array([9, 9, 9], np.uint8)) == (3, 4)

    def test_types_that_numpy_lacks_are_counted_too(self):
        import ml_dtypes

        assert share_kept(np.array([0, 1, 2], ml_dtypes.bfloat16), None) == (2, 3)
        assert share_kept(np.array([1, 0, 0], ml_dtypes.int4), None) == (1, 3)

    def test_a_weight_without_elements_hides_nothing(self):
        assert share_kept(np.zeros((0, 3), np.float32), None) == (1, 1)


class TestCounted:
    def test_adds_up_the_parts_and_takes_the_sparser_weight_of_each(self):
        parts = [Part(100, ("half", "tenth")), Part(10, ("half",)), Part(1)]
        shares = {"half": (1, 2), "tenth": (1, 10)}
        layer = counted("l", "MatMul", lambda: parts, lambda part, weight: shares[weight])
        assert layer == Layer(name="l", operator="MatMul", macs=111, nonzero=10 + 5 + 1)

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (UnknownError("its shape is not known"), "its shape is not known"),
            (IndexError("tuple index out of range"), r"not as they should be \(IndexError"),
            (KeyError("pads"), "not as they should be"),
            (TypeError("unsupported operand"), "not as they should be"),
        ],
    )
    def test_says_why_a_rule_finds_nothing(self, error, reason):
        def rule() -> list[Part]:
            raise error

        layer = counted("l", "Conv", rule, lambda part, weight: (1, 1))
        assert (layer.name, layer.operator, layer.macs, layer.nonzero) == ("l", "Conv", None, None)
        assert re.search(reason, layer.reason)

    def test_an_error_of_ours_is_not_hidden(self):
        def rule() -> list[Part]:
            raise AssertionError("a mistake in a rule")

        with pytest.raises(AssertionError):
            counted("l", "Conv", rule, lambda part, weight: (1, 1))


class TestWithin:
    def one(self, macs: int) -> Work:
        return Work(layers=(Layer(name="l", operator="MatMul", macs=macs, nonzero=macs // 2),))

    def test_a_body_counts_every_turn(self):
        assert within("loop", [self.one(10)], 7).layers == (
            Layer(name="loop/l", operator="MatMul", macs=70, nonzero=35),
        )

    def test_a_body_that_never_runs_counts_nothing(self):
        assert within("loop", [self.one(10)], 0).macs == 0

    def test_of_branches_the_largest_counts_and_what_is_open_in_the_others_stays_open(self):
        unknown = uncounted("u", "Mystery")
        small = Work(layers=(*self.one(1).layers, unknown), excluded=(("Relu", 3),))
        large = Work(layers=self.one(10).layers, excluded=(("Add", 2),))
        found = within("if", [small, large], 1)
        assert found.macs == 10
        assert [layer.name for layer in found.uncounted] == ["if/u"]
        assert found.excluded == (("Add", 2),)

    def test_turns_that_are_not_known_leave_the_body_uncounted(self):
        found = within("loop", [self.one(10)], None)
        assert (found.macs, found.coverage) == (0, 0.0)
        assert found.uncounted[0].reason == "it is in a loop of unknown length"
