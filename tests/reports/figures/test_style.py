from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.values import Reading
from trimtab.reports.figures import style

NUMBERS = st.floats(-1e6, 1e6)


def figure_with(*texts):
    with style.styled():
        figure = style.blank(3, 2)
        axes = figure.add_subplot()
        for number, text in enumerate(texts):
            axes.text(0.1, 0.2 * number, text)
        axes.set_xticks([0, 1], texts[:2] if len(texts) > 1 else ["", ""])
    return figure


@given(NUMBERS, st.none() | NUMBERS, st.none() | NUMBERS)
def test_bounds_always_hold_the_value(value, low, high):
    found, below, above = style.bounds(Reading(name="x", value=value, low=low, high=high))
    assert below <= found == value <= above
    assert below in (value, low)
    assert above in (value, high)


@given(st.text(st.characters(categories=["L", "N", "P"]) | st.just(" "), max_size=80), st.integers(5, 40))
def test_wrapping_loses_nothing_but_spaces(name, width):
    wrapped = style.wrapped(name, width)
    assert wrapped.replace("\n", "").replace(" ", "") == name.replace(" ", "")
    assert name.isspace() or all(len(line) <= width for line in wrapped.splitlines())


def test_what_was_set_before_is_back_after_an_error():
    before = dict(mpl.rcParams)
    with pytest.raises(ZeroDivisionError), style.styled():
        assert dict(mpl.rcParams) != before
        raise ZeroDivisionError
    assert dict(mpl.rcParams) == before


def test_equal_figures_are_equal_bytes_even_as_pdf():
    assert style.to_bytes(figure_with("a"), "pdf") == style.to_bytes(figure_with("a"), "pdf")


@pytest.mark.parametrize(
    "name", ["$5–$10", "$\\frac{", "<script>alert(1)</script>", 'a"&<b>', "naïve → 100 %", "a_b^c"], ids=repr
)
def test_names_are_drawn_as_they_are_and_never_read_as_formulas_or_markup(name):
    text = style.inline_svg(figure_with(name, "plain"), "one", "title")
    tree = ElementTree.fromstring(text.replace("xlink:href", "href"))
    shown = ["".join(node.itertext()).strip() for node in tree.iter("text")]
    assert shown.count(name) == 2, "the text and the tick"
    assert not list(tree.iter("script"))


def test_two_figures_on_one_page_share_no_ids():
    ids = [set(re.findall(r'\bid="([^"]+)"', style.inline_svg(figure_with("a"), name, ""))) for name in ("one", "two")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_the_title_is_what_a_screen_reader_says():
    tree = ElementTree.fromstring(
        style.inline_svg(figure_with("a"), "one", 'more than "50 %" & <rising>').replace("xlink:href", "href")
    )
    assert tree.get("role") == "img"
    assert tree.get("aria-label") == 'more than "50 %" & <rising>'
    assert tree.get("width") is None, "the page says how wide it is"


def test_every_colour_has_a_variable_of_its_own():
    assert len(set(style.TOKENS.values())) == len(style.TOKENS)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in style.TOKENS)
