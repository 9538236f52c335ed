from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.core import plugins
from trimtab.core.values import Goal, Limit, Reading, Settings, Step, Variant, Workload
from trimtab.formats.onnx import save
from trimtab.search.journal import Journal
from trimtab.search.race import (
    METERS,
    Race,
    as_ratio,
    broken_limit,
    foreign_meters,
    outpaced,
    same_weights,
    unread_limit,
)
from trimtab.stats.ratios import ratio

Install = Callable[[str, str, str], None]

ENGINE = '''
"""An engine that does what its first line says."""
import os, time
import numpy as np

class Plugin:
    name = "{name}"

    def refuses(self, variant):
        return None

    def settings(self, machine, workload):
        from trimtab.core.values import Settings
        return [Settings(runtime=self.name)]

    def load(self, variant):
        {load}
        weights = np.eye(4, 3, dtype=np.float32)
        def run(inputs):
            {run}
            return {{"y": inputs["x"] @ weights{wrong}}}
        return run
'''


def engine(name: str, *, load: str = "pass", run: str = "pass", wrong: str = "") -> str:
    return ENGINE.format(name=name, load=load, run=run, wrong=wrong)


def on(variant: Variant, runtime: str) -> Variant:
    return variant.on(Settings(runtime=runtime))


def test_the_model_as_given_is_kept_with_everything_read(race: Race, original: Variant) -> None:
    trial = race.run(original)
    assert trial.state == "kept"
    assert trial.screening is not None
    assert trial.quality is not None
    assert trial.quality.flips == 0
    assert trial.measurement is not None
    assert trial.measurement.value("macs") == 12
    assert trial.measurement.value("parameters") == 12
    assert race.best() == trial


def test_a_trial_is_never_run_twice(race: Race, original: Variant, tmp_path: Path) -> None:
    trial = race.run(original)
    race.close()
    log = trial.log
    assert log is not None
    before = log.stat().st_mtime_ns
    race.names.clear()
    race.journal = Journal(tmp_path / "journal.jsonl")
    assert race.run(original) == trial
    assert log.stat().st_mtime_ns == before
    assert race.trials == [trial]


def test_an_engine_that_crashes_costs_its_own_trial_only(race: Race, original: Variant, install: Install) -> None:
    install("runtimes", "crashing", engine("crashing", load="os.abort()"))
    race.run(original)
    trial = race.run(on(original, "crashing"))
    assert trial.state == "failed"
    assert "SIGABRT" in trial.reason
    assert race.best() is not None


def test_an_engine_a_thousand_times_slower_is_gone_after_one_call(
    race: Race, original: Variant, install: Install
) -> None:
    install("runtimes", "sleepy", engine("sleepy", run="time.sleep(60)"))
    race.run(original)
    trial = race.run(on(original, "sleepy"))
    assert trial.state == "failed"
    assert "longer than its limit" in trial.reason
    assert trial.seconds < 15


def test_a_slower_engine_is_dropped_with_the_reason_before_it_answers_everything(
    race: Race, original: Variant, install: Install
) -> None:
    install("runtimes", "slower", engine("slower", run="time.sleep(0.002)"))
    race.run(original)
    trial = race.run(on(original, "slower"))
    assert trial.state == "dropped"
    assert "× the time of as given" in trial.reason
    assert trial.quality is None


def test_wrong_answers_are_given_up_early(race: Race, original: Variant, install: Install) -> None:
    install("runtimes", "wrong", engine("wrong", wrong=" * np.float32([1, -1, 1])"))
    race.shop = replace(race.shop, goal=Goal(objective="bytes"))
    race.run(original)
    trial = race.run(on(original, "wrong"))
    assert trial.state == "dropped"
    assert "loses about" in trial.reason
    split = race.shop.task.split("select")
    assert split is not None
    assert f"seen on {len(split)} items" not in trial.reason


def test_answers_that_are_not_finite_are_refused(race: Race, original: Variant, install: Install) -> None:
    install("runtimes", "infinite", engine("infinite", wrong=" / np.float32(0)"))
    race.run(original)
    trial = race.run(on(original, "infinite"))
    assert trial.state == "failed"
    assert "NaN or infinity" in trial.reason


def test_a_broken_limit_drops_a_variant_without_running_it(race: Race, original: Variant) -> None:
    limits = (Limit(reading="parameters", relation="<=", bound=3),)
    race.shop = replace(race.shop, goal=replace(race.goal, limits=limits))
    trial = race.run(original)
    assert trial.state == "dropped"
    assert trial.screening is None
    assert "parameters" in trial.reason


def test_the_score_is_what_the_goal_wants_small(race: Race, original: Variant) -> None:
    trial = race.run(original)
    assert trial.screening is not None
    assert race.score(trial) == trial.screening.value
    race.shop = replace(race.shop, goal=Goal(objective="macs"))
    assert race.score(trial) == 12
    assert race.score(replace(trial, measurement=None)) == float("inf")


def test_a_technique_that_fails_is_a_failed_trial_with_its_reason(
    race: Race, original: Variant, install: Install
) -> None:
    code = """
class Plugin:
    name = "broken"
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        raise ZeroDivisionError("no such luck")
"""
    install("techniques", "broken", code)
    assert race.made(original, Step(technique="broken")) is None
    assert [(trial.state, trial.name) for trial in race.trials] == [("failed", "broken")]
    assert "no such luck" in race.trials[0].reason


def test_a_technique_with_nothing_to_gain_is_skipped_and_has_not_failed(race: Race, original: Variant) -> None:
    assert race.made(original, Step(technique="simplify")) is None
    assert [trial.state for trial in race.trials] == ["skipped"]
    assert "nothing to simplify" in race.trials[0].reason


def test_without_a_select_split_only_time_counts(race: Race, original: Variant) -> None:
    race.shop = replace(race.shop, task=replace(race.shop.task, splits=()), goal=Goal(max_drop=None))
    trial = race.run(original)
    assert trial.state == "kept"
    assert trial.quality is None


@pytest.mark.parametrize(("value", "broken"), [(5.0, False), (5.1, True)])
def test_limits_hold_up_to_their_bound(value: float, broken: bool) -> None:
    readings = [Reading(name="bytes", value=value), Reading(name="bytes", value=99.0, place="elsewhere")]
    found = broken_limit(readings, [Limit(reading="bytes", relation="<=", bound=5.0)])
    assert (found is not None) == broken


def test_an_unavailable_reading_breaks_no_limit() -> None:
    readings = [Reading(name="bytes", value=None, provenance="unavailable")]
    assert broken_limit(readings, [Limit(reading="bytes", relation="<=", bound=5.0)]) is None


def test_an_engine_whose_package_is_missing_costs_its_own_trial_only(
    race: Race, original: Variant, install: Install
) -> None:
    missing = "from trimtab.core.errors import MissingExtra; raise MissingExtra('magic', 'magic', 'running magic')"
    install("runtimes", "missing", engine("missing", load=missing))
    race.run(original)
    trial = race.run(on(original, "missing"))
    assert trial.state == "failed"
    assert "pip install 'trimtab[magic]'" in trial.reason


def test_limits_are_about_the_whole_model_not_about_one_place() -> None:
    readings = [Reading(name="recall", value=0.1, place="cat"), Reading(name="bytes", value=4.0)]
    limits = [Limit(reading="bytes", relation="<=", bound=5.0), Limit(reading="recall", relation=">=", bound=0.9)]
    assert broken_limit(readings, limits) is None
    assert unread_limit(readings, limits[:1]) is None
    assert unread_limit(readings, limits) == "the limit on recall can't be checked: no meter could read it"
    assert unread_limit([Reading(name="bytes", value=None)], limits[:1]) is not None


def test_a_broken_limit_is_told_with_the_reading_and_the_bound() -> None:
    found = broken_limit([Reading(name="recall", value=0.85)], [Limit(reading="recall", relation=">=", bound=0.9)])
    assert found == "recall is 0.85, the limit is >= 0.9"


def test_only_exports_keep_the_weights() -> None:
    assert same_weights(())
    assert same_weights((Step(technique="export-onnx"), Step(technique="export-openvino")))
    assert not same_weights((Step(technique="export-onnx"), Step(technique="static-int8")))


def test_meters_of_other_distributions_are_those_that_are_not_ours(install: Install) -> None:
    assert set(METERS) == set(plugins.names("meters"))
    assert foreign_meters() == ()
    install("meters", "smell", "class Plugin:\n    name = 'smell'\n")
    assert foreign_meters() == ("smell",)


def test_a_meter_of_another_distribution_is_read_in_every_trial(
    race: Race, original: Variant, install: Install
) -> None:
    code = """
from trimtab.core.values import Reading, Trace
class Plugin:
    name = "smell"
    def read(self, session, variant, task, workload):
        return [Reading(name="smell", value=7.0), Trace(name="whiff", times=(0.0,), values=(1.0,))]
"""
    install("meters", "smell", code)
    race.shop = replace(race.shop, goal=Goal(objective="smell"))
    trial = race.run(original)
    assert trial.state == "kept"
    assert race.score(trial) == 7.0


def test_a_ratio_keeps_every_number_of_its_estimate(original: Variant) -> None:
    rng = np.random.default_rng(0)
    found = ratio([rng.uniform(1, 2, 30)], [rng.uniform(1, 2, 30)], margin=0.05)
    other = original.on(Settings(runtime="openvino"))
    made = as_ratio(found, other, original, 0.05)
    assert (made.variant, made.baseline, made.margin) == (other.key, original.key, 0.05)
    assert (made.value, made.low, made.high, made.verdict) == (found.value, found.low, found.high, found.verdict)
    assert (made.blocks, made.processes, made.level) == (30, 1, found.level)


def test_a_trial_begins_only_while_trials_and_time_are_left(race: Race, original: Variant) -> None:
    slow = on(original, "torch-compile")  # what starts in a minute is not begun in the last half
    race.budget.seconds = 30.0
    assert race.affords(original)
    assert not race.affords(slow)
    race.budget.seconds = 3600.0
    assert race.affords(slow)
    race.budget.trials = 0
    assert not race.affords(original)


def test_what_is_in_the_journal_is_met_again_whatever_is_left(race: Race, original: Variant) -> None:
    trial = race.run(original)
    race.names.clear()
    race.budget.seconds = 0.0
    assert race.affords(original)
    assert not race.affords(on(original, "openvino"))
    assert race.run(original) == trial


QUICK = """
from trimtab.core.values import Step
class Plugin:
    name = "quick"
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        return variant.after(variant.model, Step(technique=self.name))
"""


def test_when_the_budget_is_spent_only_what_was_made_before_is_returned(
    race: Race, original: Variant, install: Install
) -> None:
    install("techniques", "quick", QUICK)
    step = Step(technique="quick")
    made = race.made(original, step)
    assert made is not None
    race.budget.seconds = 0.0
    assert race.made(original, step) == made
    assert race.made(original, Step(technique="quick", seed=1)) is None
    assert race.trials == [], "it was not tried, so it has not failed"


def test_a_trial_remembers_what_making_its_variant_took(race: Race, original: Variant, install: Install) -> None:
    install("techniques", "quick", QUICK)
    made = race.made(original, Step(technique="quick"))
    assert made is not None
    changed = race.run(made)
    assert 0 < changed.making_s < 60
    assert race.journal.cost(changed) == race.journal.seconds == changed.seconds + changed.making_s
    assert race.run(original).making_s == 0


def test_a_technique_that_fails_is_not_tried_again(race: Race, original: Variant, install: Install) -> None:
    code = "class Plugin:\n    name = 'broken'\n    def refuses(self, variant, task): return 'not today'\n"
    install("techniques", "broken", code)
    for _ in range(2):
        assert race.made(original, Step(technique="broken")) is None
    (trial,) = race.trials
    assert trial.reason == "broken: not today"
    assert trial.variant is None
    assert trial.log is not None
    assert len(race.journal) == 1


def test_the_reference_is_opened_again_after_a_worker_failed(race: Race, original: Variant, install: Install) -> None:
    race.run(original)
    assert race._reference is not None
    race._reference[0].close()  # as when the memory ran out
    install("runtimes", "other", engine("other"))
    assert race.run(on(original, "other")).state == "failed"
    install("runtimes", "third", engine("third"))
    assert race.run(on(original, "third")).state in ("kept", "dropped")


def test_a_model_of_another_fixed_batch_is_never_compared_as_if_it_did_the_same(
    race: Race, original: Variant, tmp_path: Path
) -> None:
    four = fixed(original, 4, tmp_path / "four.onnx")
    race.run(original)
    trial = race.run(four.on(Settings(runtime="onnxruntime", threads=1)))
    assert trial.state == "failed"
    assert "this model takes 4 items per call" in trial.reason
    race.shop = replace(race.shop, goal=Goal(workload=Workload(batch=4)))
    race.close()
    assert race.run(four.on(Settings(runtime="onnxruntime", threads=2))).screening is not None


def fixed(variant: Variant, batch: int, path: Path) -> Variant:
    """Return the tiny network with a batch that is fixed."""
    import onnx

    proto = onnx.load(variant.model.path)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return replace(variant, model=save(proto, path))


@pytest.mark.parametrize("name", ["a b/c:d", "量化 on openvino", "x" * 400, "../../etc/passwd"])
def test_a_log_has_a_name_that_every_file_system_takes(race: Race, name: str) -> None:
    path = race._log(name)
    assert path.parent == race.shop.folder.parent / "logs"
    assert len(path.name.encode()) < 200
    assert path.name.isascii()


def test_outpaced_is_what_was_never_judged(race: Race, original: Variant, install: Install) -> None:
    install("runtimes", "slower", engine("slower", run="time.sleep(0.002)"))
    kept, slow = race.run(original), race.run(on(original, "slower"))
    assert outpaced(slow)
    assert not outpaced(kept)
    assert not outpaced(replace(slow, screening=None)), "dropped for a limit, before it was timed"
