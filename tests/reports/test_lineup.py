from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.values import Comparison
from trimtab.reports import lineup

NAME = "static-int8 on openvino"


def test_baselines_come_first_and_the_winner_next(result):
    entries = lineup.lineup(result)
    assert [entry.name for entry in entries[:3]] == ["as given", "best untouched", NAME]
    assert [entry.won for entry in entries[:3]] == [False, False, True]
    assert len(entries) == len(result.trials)


def test_every_finalist_has_a_colour_of_its_own(result):
    colours = [entry.colour for entry in lineup.finalists(result)]
    assert len(set(colours)) == len(colours) == 4
    assert lineup.TRIED not in colours


def test_untouched_that_is_the_model_as_given_is_shown_once(result):
    same = replace(result, untouched=result.as_given)
    assert [entry.part for entry in lineup.lineup(same)].count("untouched") == 0


def test_untouched_that_wins_keeps_its_name_and_is_the_champion(result):
    won = replace(result, winner=result.untouched.name)
    champion = lineup.champion(won)
    assert (champion.name, champion.won) == ("best untouched", True)


def test_no_winner_means_no_champion(unmet):
    assert lineup.champion(unmet) is None


def test_time_is_that_of_the_final_run_and_else_that_of_the_search(result):
    by_name = {entry.name: entry for entry in lineup.lineup(result)}
    assert by_name[NAME].reading("relative_time").value == 1 / 2.9
    assert by_name["nncf-int8 on openvino"].reading("relative_time").value == 0.33
    assert by_name["as given"].reading("relative_time").value == 1.0
    assert by_name["simplify on openvino, f16"].reading("relative_time") is None


def test_ratio_over_another_baseline_is_not_taken_for_one_over_the_model_as_given(result):
    trials = tuple(
        replace(trial, screening=replace(trial.screening, baseline=result.untouched.variant.key))
        if trial.screening
        else trial
        for trial in result.trials
    )
    dropped = next(e for e in lineup.lineup(replace(result, trials=trials)) if e.state == "dropped")
    assert dropped.reading("relative_time") is None


def test_unavailable_reading_is_not_there_to_be_drawn(result):
    given = lineup.original(result)
    assert given.measurement.reading("latency_p99") is not None
    assert given.reading("latency_p99") is None


def test_compared_files_are_called_by_their_names(result):
    variants = [measurement.variant for measurement in result.comparison.measurements[:2]]
    assert lineup.distinct_names([variants[0], replace(variants[1], model=result.trials[2].variant.model)]) == [
        "mnist.onnx",
        "int8.onnx",
    ]


def test_equal_variants_still_get_names_that_differ(result):
    first = result.as_given.variant
    second = replace(first, model=replace(first.model, digest="other"))
    assert len(set(lineup.distinct_names([first, second]))) == 2


def test_comparison_is_against_its_first(result):
    entries = lineup.lineup(
        Comparison(measurements=result.comparison.measurements[:2], ratios=result.comparison.ratios)
    )
    assert entries[0].reading("relative_time").value == 1.0
    assert entries[1].reading("relative_time").value == 1.8 / 2.9


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(POINTS, st.booleans(), st.booleans())
def test_front_holds_exactly_the_points_that_nothing_beats(points, x_higher, y_higher):
    def beats(a, b):
        x = (a[0] - b[0]) * (1 if x_higher else -1)
        y = (a[1] - b[1]) * (1 if y_higher else -1)
        return x >= 0 and y >= 0 and (x, y) != (0, 0)

    best = lineup.front(points, (x_higher, y_higher))
    expected = {i for i, point in enumerate(points) if not any(beats(other, point) for other in points)}
    assert set(best) == expected
    assert [points[i] for i in best] == sorted(points[i] for i in best)


def test_ratios_are_those_of_two_different_variants(result):
    given_, untouched, winner = lineup.lineup(result)[:3]
    ratios = result.comparison.ratios
    assert lineup.ratio_between(ratios, winner, given_).value == 1 / 2.9
    assert lineup.ratio_between(ratios, winner, untouched).value == 1 / 1.8
    assert lineup.ratio_between(ratios, given_, winner) is None, "a ratio has a direction"
    assert lineup.ratio_between(ratios, given_, given_) is None


def test_a_model_compared_with_itself_is_two_entries_with_a_ratio(result):
    first = result.comparison.measurements[0]
    key = first.variant.key
    itself = replace(result.comparison.ratios[0], variant=key, baseline=key, value=0.99, verdict="equivalent")
    comparison = Comparison(measurements=(first, first), ratios=(itself,))
    one, two = lineup.lineup(comparison)
    assert (one.name, two.name) == ("mnist.onnx, as given on onnxruntime, 2 threads (1)", f"{one.name[:-3]}(2)")
    assert lineup.ratio_between(comparison.ratios, two, one) is itself
    assert two.reading("relative_time").value == 0.99
    assert one.reading("relative_time").value == 1.0


def test_the_champion_of_a_comparison_is_its_second(result):
    measurements = result.comparison.measurements
    assert lineup.champion(Comparison(measurements=measurements)).measurement is measurements[1]
    assert lineup.champion(Comparison(measurements=measurements[:1])) is None


def test_what_only_the_search_read_completes_the_final_measurement(result):
    first, *others = result.comparison.measurements
    fewer = replace(first, readings=tuple(r for r in first.readings if r.name != "bytes"))
    shown = lineup.original(replace(result, comparison=replace(result.comparison, measurements=(fewer, *others))))
    assert shown.reading("bytes").value == 1.69e6
    assert shown.reading("latency_p50").value == 2.9e-3, "the final one is kept where both read it"


def test_more_models_than_colours_are_grey_and_at_most_seven_are_drawn(result):
    first = result.comparison.measurements[0]
    variants = [replace(first.variant, settings=replace(first.variant.settings, threads=n)) for n in range(1, 11)]
    comparison = Comparison(measurements=tuple(replace(first, variant=variant) for variant in variants))
    entries = lineup.lineup(comparison)
    assert [entry.colour for entry in entries[7:]] == [lineup.TRIED] * 3
    assert len({entry.colour for entry in lineup.finalists(comparison)}) == len(lineup.finalists(comparison)) == 7


def test_the_protected_metric_is_what_was_judged(result, speed_only):
    judged = replace(result.trials[2].quality, metric="relative_error")
    trials = (result.trials[0], replace(result.trials[2], quality=judged))
    unlabelled = replace(speed_only, trials=trials, task=replace(result.task, kind="regression"))
    assert lineup.metric(unlabelled) == "relative_error"
    assert lineup.metric(speed_only) == speed_only.task.metric
    assert lineup.metric(result) == lineup.metric(result.comparison) == "accuracy"


def test_names_are_as_short_as_they_can_be(result):
    given_, winner = result.as_given.variant, result.trials[2].variant
    threads = replace(given_, settings=replace(given_.settings, threads=1))
    assert lineup.distinct_names([]) == []
    assert lineup.distinct_names([given_, threads]) == [given_.label(), threads.label()]
    assert lineup.distinct_names([given_, winner])[1].endswith("static-int8(method=percentile) on openvino, 2 threads")
    other = replace(given_, model=replace(given_.model, path=given_.model.path.with_name("other.onnx")))
    assert lineup.distinct_names([given_, other, threads]) == [
        "mnist.onnx, as given on onnxruntime, 2 threads", "other.onnx, as given on onnxruntime, 2 threads",
        "mnist.onnx, as given on onnxruntime, 1 thread",
    ]  # fmt: skip


def test_only_what_somebody_has_is_shown_and_each_once(result):
    entries = lineup.finalists(result)
    names = ("latency_p99", "bytes", "accuracy", "bytes", "joules")
    assert lineup.present(entries, names) == ["bytes", "accuracy"]
    assert lineup.present((), names) == []


def test_a_change_of_quality_bears_the_level_that_its_proof_has(result):
    by_name = {entry.name: entry for entry in lineup.lineup(result)}
    assert by_name[NAME].reading("accuracy_change").level == pytest.approx(0.9)
    assert by_name[NAME].reading("relative_time").level == 0.95
    strict = replace(result.comparison, quality=tuple(replace(q, error=0.01) for q in result.comparison.quality))
    sure = {entry.name: entry for entry in lineup.lineup(replace(result, comparison=strict))}
    assert sure[NAME].reading("accuracy_change").level == pytest.approx(0.98)
