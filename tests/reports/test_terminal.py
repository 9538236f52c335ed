from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from trimtab.core.values import Comparison, Reading
from trimtab.reports import terminal

NAME = "static-int8 on openvino"


def printed(renderable, width=80):
    out = StringIO()
    Console(file=out, width=width, no_color=True).print(renderable)
    return out.getvalue()


def joined(text):
    return " ".join(text.split())


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(result, width):
    tables = (terminal.result_table(result), terminal.comparison_table(result.comparison))
    for text in (printed(table, width) for table in tables):
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text  # nothing is cut off


def test_verdict_is_the_last_thing_to_read(result):
    assert joined(printed(terminal.result_table(result))).endswith(result.verdict)


def test_states_are_words_and_not_only_colours(result):
    text = printed(terminal.trials_table(result), 120)
    for word in ("proven", "unproven", "dropped", "failed", "0.330×", "−0.75 pt"):
        assert word in text


def test_every_ratio_has_its_interval(result):
    text = printed(terminal.finalists_table(result), 120)
    for said in ("2.90× faster", "2.82–2.99", "1.80× faster", "1.75–1.86", "98.4 %", "97.7–99.0"):
        assert said in text


def test_speed_only_warns(speed_only):
    assert "WARNING: Speed only, nothing proven" in printed(terminal.result_table(speed_only))


def test_names_with_brackets_are_shown_as_they_are(result):
    trials = (*result.trials[:-1], replace(result.trials[-1], name="[red]odd[/red]", reason="[/bold] why"))
    text = printed(terminal.trials_table(replace(result, trials=trials)), 160)
    assert "[red]odd[/red]" in text
    assert "[/bold] why" in text


def test_measurement_is_grouped_with_units_and_intervals(result):
    text = printed(terminal.measurement_table(result.comparison.measurements[0]), 100)
    for said in ("Quality", "Speed", "Size", "Work", "2.90 ms", "2.84–2.96", "n too small", "1.69 MB", "52.4 MMACs"):
        assert said in text
    assert "400 samples, 662 needed" in text
    assert "confusion" not in text


def test_many_classes_show_only_the_worst(result):
    classes = tuple(Reading(name="recall", value=number / 100, place=f"class {number}") for number in range(100))
    text = printed(terminal.measurement_table(replace(result.comparison.measurements[0], readings=classes)))
    assert "class 4 " in text
    assert "class 5 " not in text


def test_comparison_says_each_verdict_in_a_sentence(result):
    given, other, *_ = result.comparison.measurements
    other = replace(other, variant=replace(other.variant, model=result.trials[2].variant.model))
    ratio = replace(result.comparison.ratios[0], variant=other.variant.key)
    open_question = replace(
        result.comparison.quality[0], variant=other.variant.key, proven=False, needed=3092, difference=-0.002
    )
    comparison = Comparison(measurements=(given, other), ratios=(ratio,), quality=(open_question,))
    assert terminal.sentences(comparison) == [
        "int8.onnx is 1.61× faster (1.56–1.66) than mnist.onnx.",
        "int8.onnx is not proven to lose at most 1.0 pt of accuracy against mnist.onnx: "
        "−0.20 pt (−0.42 to +0.21) on 1,200 items; about 3,092 items would decide.",
    ]


def test_comparison_ends_with_its_self_test(result):
    assert "against itself: 0.996×" in joined(printed(terminal.comparison_table(result.comparison)))
