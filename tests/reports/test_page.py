from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from trimtab.core.values import Goal, Limit, Reading, Step, TrialState, Workload
from trimtab.reports import lineup, page

NAME = "static-int8 on openvino"


def with_recalls(result, before, after):
    """The result in which the recalls of the model as given and of the winner are those, by class."""

    def changed(measurement, recalls):
        kept = tuple(r for r in measurement.readings if r.name != "recall")
        return replace(measurement, readings=(*kept, *(Reading(name="recall", value=v, place=c) for c, v in recalls)))

    first, second, third, *others = result.comparison.measurements
    measurements = (changed(first, before.items()), second, changed(third, after.items()), *others)
    return replace(result, comparison=replace(result.comparison, measurements=measurements))


class TestStatus:
    """What the pill says, and what is warned of."""

    def test_a_proven_winner(self, result):
        assert page.status(result) == ("proven", "Proven with 95 % confidence")
        assert page.warnings(result) == []

    def test_speed_only_is_warned_of(self, speed_only):
        assert page.status(speed_only) == ("speed", "Speed only, nothing proven")
        assert "there is no certificate" in page.warnings(speed_only)[0]

    def test_an_unmet_goal(self, unmet):
        assert page.status(unmet) == ("unmet", "Goal not met")
        assert page.warnings(unmet) == []

    def test_a_certificate_that_proves_nothing_is_no_proof(self, result):
        broken = replace(result.certificate, no_worse=replace(result.certificate.no_worse, proven=False))
        assert page.status(replace(result, certificate=broken)) == ("unmet", "Not proven")
        assert len(page.warnings(replace(result, certificate=broken))) == 1

    def test_the_model_as_given_needs_no_proof(self, result):
        stays = replace(result, winner=result.as_given.name, certificate=None)
        assert page.status(stays) == ("speed", "Nothing better found")
        assert page.warnings(stays) == []
        assert page.tiles(stays) == []

    def test_a_variant_that_differs_from_itself_is_warned_of(self, result):
        for verdict, said in (("slower", "1.20× slower (1.10–1.30) than itself"), ("faster", "0.833× faster")):
            test = replace(result.comparison.self_test, verdict=verdict, value=1.2, low=1.1, high=1.3)
            (warning,) = page.warnings(replace(result, comparison=replace(result.comparison, self_test=test)))
            assert warning.startswith(f"The self-test failed: one variant came out {said}")
            assert "run again on a quieter machine" in warning

    def test_warnings_of_the_run_come_last(self, speed_only):
        assert page.warnings(replace(speed_only, warnings=("a", "b")))[1:] == ["a", "b"]


class TestTiles:
    """The few numbers that matter most."""

    def test_tell_what_was_gained_over_both_baselines_and_what_was_lost(self, result):
        assert page.tiles(result) == [
            {"value": "2.90×", "label": "faster than the model as given", "note": "2.82–2.99 at 95 %"},
            {"value": "1.80×", "label": "faster than the best untouched", "note": "1.75–1.86 at 95 %"},
            {"value": "−0.08 pt", "label": "accuracy", "note": "−0.42 to +0.21 at 90 %, 9 of 1,200 answers changed"},
            {"value": "470 kB", "label": "size", "note": "was 1.69 MB"},
        ]

    def test_a_tie_is_not_told_as_a_gain(self, result):
        ratios = tuple(replace(ratio, verdict="equivalent") for ratio in result.comparison.ratios)
        tied = replace(result, comparison=replace(result.comparison, ratios=ratios))
        assert page.tiles(tied)[0]["label"] == "the speed of the model as given, equivalent"

    def test_answers_that_are_numbers_are_not_counted_as_changed(self, result):
        numbers = replace(result, task=replace(result.task, kind="regression"))
        assert page.tiles(numbers)[2]["note"] == "−0.42 to +0.21 at 90 %"

    def test_the_objective_comes_before_the_size(self, result):
        smallest = replace(result, goal=Goal(objective="peak_memory"))
        assert [tile["label"] for tile in page.tiles(smallest)][-2:] == ["peak memory", "size"]

    def test_without_a_winner_there_are_none(self, unmet):
        assert page.tiles(unmet) == []


class TestBaselines:
    """The table of both baselines and the winner."""

    def test_every_variant_is_compared_with_every_baseline(self, result):
        table = page.baselines(result)
        assert table["over"] == ["as given", "best untouched"]
        assert table["columns"] == ["median latency", "accuracy", "size", "peak memory"]
        assert {row["name"]: [over["value"] for over in row["over"]] for row in table["rows"]} == {
            "as given": ["1", "–"], "best untouched": ["1.61×", "1"], NAME: ["2.90×", "1.80×"],
        }  # fmt: skip
        assert [row["won"] for row in table["rows"]] == [False, False, True]

    def test_intervals_lie_on_one_logarithmic_axis(self, result):
        overs = [over for row in page.baselines(result)["rows"] for over in row["over"] if not over["same"]]
        gains = [1.8 / 2.9, 1 / 2.9, 1 / 1.8]
        (one,) = {over["one"] for over in overs}
        for over in overs:
            assert 0 < over["low"] < over["middle"] < over["low"] + over["width"] < 100
        scale = [(over["middle"] - one) / -math.log(gain) for over, gain in zip(overs, gains, strict=True)]
        assert scale == pytest.approx([scale[0]] * 3, rel=1e-3), "the distance from 1× is the logarithm of the gain"

    def test_a_variant_that_is_slower_lies_left_of_one(self, result):
        slow = tuple(
            replace(ratio, value=2.0, low=1.9, high=2.1, verdict="slower") for ratio in result.comparison.ratios
        )
        table = page.baselines(replace(result, comparison=replace(result.comparison, ratios=slow)))
        over = table["rows"][-1]["over"][0]
        assert over["low"] + over["width"] < over["one"]
        assert (over["value"], over["word"]) == ("2.00×", "slower")

    def test_one_baseline_has_one_column(self, result):
        table = page.baselines(replace(result, untouched=result.as_given))
        assert table["over"] == ["as given"]
        assert [len(row["over"]) for row in table["rows"]] == [1, 1]


class TestFailures:
    """Which techniques failed, in one line."""

    def with_trials(self, result, *trials):
        made = [replace(result.trials[-1], steps=steps, state=state, reason=reason) for steps, state, reason in trials]
        return page.failures(replace(result, trials=(result.as_given, *made)))

    def test_they_are_grouped_by_technique_with_the_first_line_of_the_reason(self, result):
        export, int8 = Step(technique="export-openvino"), Step(technique="static-int8")
        said = self.with_trials(
            result,
            ((int8,), "failed", "no memory\nTraceback …"),
            ((export, int8), "failed", "another reason"),
            ((Step(technique="simplify"),), "failed", ""),
        )
        assert said == "Failed: static-int8 (no memory), simplify (no reason told)."

    def test_a_technique_that_also_worked_says_how_often_it_failed(self, result):
        int8 = Step(technique="static-int8")
        said = self.with_trials(result, ((int8,), "kept", ""), ((int8,), "failed", "no kernel"))
        assert said == "Failed: static-int8 in 1 of 2 trials (no kernel)."

    def test_a_variant_without_steps_counts_for_its_runtime(self, result):
        assert self.with_trials(result, ((), "failed", "Det-17")) == "Failed: openvino (Det-17)."

    def test_many_are_counted_and_long_reasons_shortened(self, result):
        failed = [((Step(technique=name),), "failed", "why " * 99) for name in "abcde"]
        said = self.with_trials(result, *failed)
        assert said.count("why…") == 3
        assert said.endswith(") and 2 more.")
        assert " d (" not in said

    @pytest.mark.parametrize("state", ["kept", "dropped", "skipped", "proven", "unproven"])
    def test_no_other_state_is_a_failure(self, result, state):
        assert self.with_trials(result, ((Step(technique="simplify"),), state, "nothing to do here")) == ""


def test_every_state_of_a_trial_has_its_words_and_its_place():
    assert set(get_args(TrialState)) == set(page.STATES) == set(lineup._ORDER)


def test_a_missing_reading_is_a_dash_that_sorts_nowhere():
    assert page.cell(None) == {"value": "–", "note": "", "sort": ""}
    unknown = Reading(name="peak_memory", value=None, provenance="unavailable", scope="no process")
    assert page.cell(unknown) == {"value": "unavailable", "note": "no process", "sort": ""}


def test_cells_sort_by_the_exact_number():
    assert float(page.cell(Reading(name="latency_p50", value=0.00123456, unit="s"))["sort"]) == 0.00123456


def test_readings_are_those_of_the_whole_model_and_every_batch_size(result):
    table = page.readings(result)
    names = [row["name"] for row in table["rows"]]
    assert [head["name"] for head in table["names"]] == ["as given", "best untouched", NAME, "bf16 on openvino"]
    assert len(names) == len(set(names))
    assert {"throughput, batch=1", "throughput, batch=32", "accuracy", "MACs"} <= set(names)
    assert not any(name.startswith(("recall", "confusion")) for name in names)
    ways = {row["name"]: row["way"] for row in table["rows"]}
    assert (ways["accuracy"], ways["size"]) == ("higher is better", "lower is better")


class TestClasses:
    """What became of single classes."""

    def test_the_harmed_come_first_and_the_improved_last(self, result):
        found = page.classes(result)
        assert [row["name"] for row in found["rows"]] == ["4", "5", "8", "9"]
        assert [row["harmed"] for row in found["rows"]] == [True, False, False, False]
        assert [row["text"] for row in found["rows"]] == ["−1.7 pt", "−0.83 pt", "+0.83 pt", "+0.83 pt"]
        assert (found["harmed"], found["left"], found["same"]) == (1, 0, 6)

    def test_of_many_changed_classes_the_rest_is_counted(self, result):
        before = {f"c{number}": 0.9 for number in range(50)}
        found = page.classes(with_recalls(result, before, dict.fromkeys(before, 0.8) | {"c7": 0.9}))
        assert (len(found["rows"]), found["left"], found["same"]) == (12, 37, 1)

    def test_a_class_that_only_one_of_the_two_knows_is_left_out(self, result):
        found = page.classes(with_recalls(result, {"a": 0.5, "b": None}, {"a": 0.6, "b": 0.5, "c": 1.0}))
        assert [row["name"] for row in found["rows"]] == ["a"]

    def test_without_recalls_or_a_winner_nothing_is_said(self, speed_only, unmet):
        assert page.classes(speed_only) is None
        assert page.classes(unmet) is None


class TestTried:
    """Everything that was tried, with its log."""

    def test_holds_every_trial_once_with_its_state_in_words(self, result):
        rows = page.tried(result)
        assert sorted(row["name"] for row in rows[2:]) == sorted(trial.name for trial in result.trials[2:])
        assert all(row["means"] == page.STATES[row["state"]] for row in rows)

    def test_an_untimed_trial_took_no_time_to_speak_of(self, result):
        rows = {row["name"]: row["seconds"] for row in page.tried(result)}
        assert (rows[NAME], rows["as given"]) == ("21 s", "–")

    def test_how_is_told_where_the_name_does_not_say_it(self, result):
        rows = {row["name"]: row["how"] for row in page.tried(result)}
        assert rows["best untouched"] == "openvino, 2 threads"
        assert rows[NAME] == "export-openvino → static-int8(method=percentile) on openvino, 2 threads"

    @pytest.mark.parametrize(
        ("log", "link"),
        [
            ("work/logs/a.log", "./work/logs/a.log"),
            ("work/a b#?.log", "./work/a%20b%23%3F.log"),
            ("work/网络.log", "./work/%E7%BD%91%E7%BB%9C.log"),
            ("javascript:alert(1)", "./javascript%3Aalert%281%29"),
            ("work/../../outside.log", ""),
            ("/var/log/other.log", ""),
        ],
    )
    def test_a_log_is_linked_only_inside_the_folder_of_the_report(self, result, tmp_path, log, link):
        trials = (*result.trials[:-1], replace(result.trials[-1], log=tmp_path / log))
        assert page.tried(replace(result, trials=trials), tmp_path)[-1]["log"]["link"] == link

    def test_a_trial_without_a_log_has_none(self, result):
        trials = (*result.trials[:-1], replace(result.trials[-1], log=None))
        assert page.tried(replace(result, trials=trials), Path("/"))[-1]["log"] is None


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        (Goal(), "minimize median latency, lose at most 1.0 pt of accuracy; 1 item per call"),
        (
            Goal(objective="throughput", direction="maximize", max_drop=None, workload=Workload(batch=8)),
            "maximize throughput; 8 items per call",
        ),
        (
            Goal(
                objective="bytes",
                max_drop=0.005,
                limits=(
                    Limit(reading="latency_p99", relation="<=", bound=0.02),
                    Limit(reading="macs", relation="<=", bound=4e7),
                    Limit(reading="accuracy", relation=">=", bound=0.95),
                    Limit(reading="joules", relation="<=", bound=3.0),
                ),
            ),
            "minimize size, lose at most 0.50 pt of accuracy, p99 latency ≤ 20.0 ms, MACs ≤ 40.0 MMACs, "
            "accuracy ≥ 95.0 %, joules ≤ 3.00; 1 item per call",
        ),
    ],
    ids=["defaults", "throughput", "limits"],
)
def test_the_goal_is_one_sentence_with_units(result, goal, said):
    assert page.goal(replace(result, goal=goal)) == said


def test_classes_are_only_spoken_of_where_answers_are_classes(result):
    kinds = ("classification", "binary", "regression", "embedding")
    found = [lineup.classifies(replace(result, task=replace(result.task, kind=kind))) for kind in kinds]
    assert found == [True, True, False, False]
