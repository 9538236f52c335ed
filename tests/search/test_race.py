from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.core.values import Goal, Limit, Reading, Settings, Step, Trial, Variant
from trimtab.search.journal import Journal
from trimtab.search.race import Race, broken_limit, settings_of

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


def test_settings_of_a_runtime_are_the_fastest_of_each_precision(race: Race, original: Variant) -> None:
    base = race.run(original)
    assert base.screening is not None

    def made(precision: str | None, threads: int, value: float) -> Trial:
        assert base.screening is not None
        settings = Settings(runtime="openvino", precision=precision, threads=threads)
        screening = replace(base.screening, value=value)
        return replace(base, name=f"{precision}{threads}", settings=settings, screening=screening)

    trials = [made("fp32", 1, 0.9), made("fp32", 2, 0.5), made("bf16", 2, 0.4), base]
    assert [(s.precision, s.threads) for s in settings_of(trials, "openvino")] == [("bf16", 2), ("fp32", 2)]


def test_an_engine_whose_package_is_missing_costs_its_own_trial_only(
    race: Race, original: Variant, install: Install
) -> None:
    missing = "from trimtab.core.errors import MissingExtra; raise MissingExtra('magic', 'magic', 'running magic')"
    install("runtimes", "missing", engine("missing", load=missing))
    race.run(original)
    trial = race.run(on(original, "missing"))
    assert trial.state == "failed"
    assert "pip install 'trimtab[magic]'" in trial.reason
