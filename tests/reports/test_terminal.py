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
        "−0.20 pt (−0.42 to +0.21 at 90 %) on 1,200 items; about 3,092 items would decide.",
    ]


def test_comparison_ends_with_its_self_test(result):
    assert "against itself: 0.996×" in joined(printed(terminal.comparison_table(result.comparison)))


def test_a_comparison_of_predictions_is_sentences_without_a_table(result):
    proof = replace(result.comparison.quality[0], variant="b.npy", baseline="a.npy")
    text = joined(printed(terminal.comparison_table(Comparison(measurements=(), quality=(proof, proof)))))
    assert text.count("b.npy is proven with 95 % confidence to lose at most 1.0 pt of accuracy against a.npy") == 2
    assert "Variant" not in text


def test_a_model_compared_with_itself_is_told_apart_by_number(result):
    first = result.comparison.measurements[0]
    key = first.variant.key
    ratio = replace(result.comparison.ratios[0], variant=key, baseline=key, value=1.0, verdict="equivalent")
    comparison = Comparison(measurements=(first, first), ratios=(ratio,))
    name = "mnist.onnx, as given on onnxruntime, 2 threads"
    (said,) = terminal.sentences(comparison)
    assert said.startswith(f"{name} (2) is as fast as {name} (1) (")
    assert joined(printed(terminal.comparison_table(comparison), 160)).count("1.00× equivalent") == 1


def test_the_change_of_a_comparison_is_told_in_its_row(result):
    given, other, *_ = result.comparison.measurements
    proof = replace(result.comparison.quality[0], variant=other.variant.key)
    text = printed(terminal.comparison_table(Comparison(measurements=(given, other), quality=(proof,))), 160)
    rows = [line for line in text.splitlines() if "on openvino" in line]
    assert "−0.08 pt" in rows[0]


def test_the_verdict_says_what_kind_it_is_before_the_sentence(result, speed_only, unmet):
    for source, said in ((result, "Proven with 95 % confidence"), (speed_only, "Speed only"), (unmet, "Goal not met")):
        text = joined(printed(terminal.verdict(source)))
        assert text.index(said) < text.index(source.verdict)


def test_notes_follow_the_verdict(result):
    text = joined(printed(terminal.verdict(replace(result, notes=("protecting accuracy instead: 3 missed",)))))
    assert text.endswith(f"{result.verdict} protecting accuracy instead: 3 missed")


def test_without_other_trials_there_is_no_table_of_them(result):
    alone = replace(result, trials=result.trials[:2], winner=None)
    text = joined(printed(terminal.result_table(alone)))
    assert "Why" not in text
    assert "vs as given" in text


def test_baselines_say_how_they_run_and_the_winner_that_it_won(result):
    text = joined(printed(terminal.finalists_table(result), 160))
    assert "best untouched" in text
    assert "openvino, 2 threads" in text
    assert f"{NAME} (winner)" in text


def test_names_of_strangers_can_not_steer_the_terminal(result):
    evil = replace(result.trials[-1], name="\x1b[2Jgone", reason="\x1b]0;title\x07 why\r\nnext")
    text = printed(terminal.trials_table(replace(result, trials=(*result.trials[:-1], evil))), 200)
    assert "�[2Jgone" in text
    assert "�]0;title� why��next" in text
    assert not {"\x1b", "\x07", "\r"} & set(text)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("f1_macro", "Quality"), ("roc_auc", "Quality"), ("cost", "Quality"), ("cpu_use", "Speed"),
        ("latency_end_to_end", "Speed"), ("compression_bytes", "Size"), ("macs_coverage", "Work"), ("joules", "Other"),
    ],
)  # fmt: skip
def test_every_reading_has_its_group(result, name, group):
    alone = replace(result.comparison.measurements[0], readings=(Reading(name=name, value=1.0),))
    lines = [line.strip() for line in printed(terminal.measurement_table(alone)).splitlines() if line.strip()]
    assert lines[2] == group
    assert len(lines) == 4, "head, rule, group, reading"


def test_a_reading_says_where_it_comes_from(result):
    readings = (
        Reading(name="latency_p50", value=1e-3, unit="s", samples=1200),
        Reading(name="bytes", value=5e3, unit="bytes", provenance="counted"),
        Reading(name="peak_memory", value=None, provenance="unavailable", scope="the process died"),
        Reading(name="macs", value=None, provenance="unavailable"),
    )
    text = printed(terminal.measurement_table(replace(result.comparison.measurements[0], readings=readings)), 100)
    for said in ("measured, n = 1,200", "counted", "the process died", "unavailable"):
        assert said in text


def test_few_classes_are_all_shown_and_batch_sizes_always(result):
    classes = [Reading(name="recall", value=number / 20, place=f"class {number}") for number in range(20)]
    sizes = [Reading(name="throughput", value=float(number), place=f"batch={number}") for number in range(1, 31)]
    text = printed(terminal.measurement_table(replace(result.comparison.measurements[0], readings=(*classes, *sizes))))
    assert text.count("class ") == 20
    assert text.count("batch=") == 30


def test_classes_without_a_value_are_not_the_worst(result):
    classes = [Reading(name="recall", value=None, place=f"empty {number}") for number in range(20)]
    classes += [Reading(name="recall", value=0.9, place=f"full {number}") for number in range(6)]
    text = printed(terminal.measurement_table(replace(result.comparison.measurements[0], readings=tuple(classes))))
    assert (text.count("full"), text.count("empty")) == (5, 0)


def test_a_long_reason_takes_a_few_lines_and_its_beginning_stays(result):
    reason = "ValidationError: Data of TensorProto (tensor name: net.0.weight) should be stored in a file " * 5
    trials = (*result.trials[:-1], replace(result.trials[-1], reason=reason))
    short, long = (printed(terminal.trials_table(found), 100) for found in (result, replace(result, trials=trials)))
    assert "ValidationError:" in long
    assert len(long.splitlines()) <= len(short.splitlines()) + 4


def test_what_failed_is_told_beside_the_verdict(result):
    text = joined(printed(terminal.verdict(result)))
    assert text.startswith("Failed: simplify (the worker took longer than its limit of 2.9 s). Proven with")
    worked = replace(result, trials=result.trials[:-1])
    assert "Failed" not in printed(terminal.verdict(worked))


def test_what_proven_is_about_is_said_below_the_table(result):
    said = "“proven” and “unproven” speak of quality only, not of speed"
    assert said in joined(printed(terminal.trials_table(result)))
    untested = tuple(replace(trial, state="kept") for trial in result.trials)
    assert said not in joined(printed(terminal.trials_table(replace(result, trials=untested))))


def test_a_comparison_shows_the_latencies_beside_the_ratios(result):
    text = printed(terminal.comparison_table(result.comparison), 120)
    assert "median latency" in text
    for said in ("2.90 ms", "1.80 ms", "1.00 ms"):
        assert said in text


def test_a_control_that_is_undecided_reads_like_no_failure(result):
    test = replace(result.comparison.self_test, value=1.0, low=0.9, high=1.1, verdict="inconclusive")
    text = joined(printed(terminal.comparison_table(replace(result.comparison, self_test=test))))
    assert text.endswith("noise leaves room for 11.1 %; with more --seconds it narrows.")
    assert "inconclusive" not in text


def test_quality_says_on_which_items_it_was_read(result):
    readings = (
        Reading(name="accuracy", value=0.9, samples=250, scope="select split"),
        Reading(name="roc_auc", value=None, provenance="unavailable", scope="a single class"),
        Reading(name="bytes", value=5e3, unit="bytes", provenance="counted", scope="all files"),
    )
    measured = replace(result.comparison.measurements[0], readings=readings)
    lines = printed(terminal.measurement_table(measured), 100).splitlines()
    assert [" ".join(line.split()) for line in lines if line.strip().startswith(("Quality", "Size"))] == [
        "Quality select split, 250 items", "Size",
    ]  # fmt: skip


def test_a_percentile_is_told_as_the_bound_it_is(result):
    text = printed(terminal.measurement_table(result.comparison.measurements[0]), 100)
    (row,) = [line for line in text.splitlines() if "p90 latency" in line]
    assert "at most 3.48 ms" in row
    assert "99 % sure; seen 3.3" in row


@pytest.mark.parametrize(
    ("looks", "said"), [(1, "tested on once."), (4, "tested on 4 times, earlier runs included: every look weakens")]
)
def test_the_looks_at_the_certify_items_are_told_whatever_was_proven(result, looks, said):
    for shown in (result, replace(result, certificate=None, winner=None)):
        assert said in joined(printed(terminal.verdict(replace(shown, looks=looks))))
        assert "tested on" not in joined(printed(terminal.verdict(shown)))


def test_warnings_of_a_measurement_and_of_a_comparison_are_loud_and_notes_are_told(result):
    measured = replace(result.comparison.measurements[0], warnings=("the data looks odd",))
    assert "WARNING: the data looks odd" in printed(terminal.measurement_table(measured))
    assert "WARNING" not in printed(terminal.measurement_table(result.comparison.measurements[0]))
    compared = replace(result.comparison, warnings=("the data looks odd",), notes=("read at 0.3",))
    lines = [line.strip() for line in printed(terminal.comparison_table(compared)).splitlines()]
    assert "WARNING: the data looks odd" in lines
    assert "read at 0.3" in lines
