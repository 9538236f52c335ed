from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.core import plugins
from trimtab.core.errors import TrimtabError
from trimtab.core.values import Goal, Limit, Settings, Step, Task, Variant, Workload
from trimtab.formats.onnx import save
from trimtab.search import race as module
from trimtab.search.journal import Journal
from trimtab.search.race import (
    METERS,
    Race,
    as_ratio,
    foreign_meters,
    outpaced,
    same_weights,
    unrounded,
)
from trimtab.stats.ratios import ratio
from trimtab.testing.networks import CONVOLUTION

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


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(" / np.float32(0)", "NaN or infinity"), (" * np.float32(0)", "100 % off"), (" * np.float32(-1)", "200 % off")],
)
def test_without_data_what_can_not_be_right_is_dropped_before_it_is_timed(
    race: Race, original: Variant, install: Install, wrong: str, words: str
) -> None:
    blind(race)
    install("runtimes", "broken", engine("broken", wrong=wrong))
    assert race.run(original).state == "kept"
    trial = race.run(on(original, "broken"))
    assert trial.state == "dropped"
    assert words in trial.reason
    assert trial.screening is None


def test_without_data_rounding_is_let_through(race: Race, original: Variant, install: Install) -> None:
    blind(race)
    race.shop = replace(race.shop, goal=replace(race.goal, objective="bytes"))
    install("runtimes", "rough", engine("rough", wrong=" + np.float32(0.1)"))
    race.run(original)
    assert race.run(on(original, "rough")).state == "kept"


def blind(race: Race) -> None:
    race.shop = replace(race.shop, task=replace(race.shop.task, splits=()), goal=Goal(max_drop=None))
    race.outputs = None


def test_one_that_only_seemed_too_slow_and_answers_nothing_sensible_has_failed(
    race: Race, original: Variant, install: Install
) -> None:
    install("runtimes", "overflowing", engine("overflowing", run="time.sleep(0.002)", wrong=" / np.float32(0)"))
    given, slow = race.run(original), race.run(on(original, "overflowing"))
    assert outpaced(slow)
    assert given.screening is not None
    found = race.retimed(slow, given.screening)
    assert found.state == "failed"
    assert "NaN or infinity" in found.reason


def test_what_fails_after_the_search_is_no_longer_kept(race: Race, original: Variant) -> None:
    trial = race.run(original)
    race.fail(trial, "it fell over")
    assert [(each.state, each.reason) for each in race.trials] == [("failed", "it fell over")]
    assert race.best() is None
    assert race.journal.get(trial.name) == trial


@pytest.mark.parametrize(("state", "marked"), [("steady", False), ("warming", False), ("unsteady", True)])
def test_a_screening_without_a_steady_state_is_marked(
    race: Race, original: Variant, monkeypatch: pytest.MonkeyPatch, state: str, marked: bool
) -> None:
    monkeypatch.setattr(module, "warm_up", lambda *given, **more: (1e-4, state))
    trial = race.run(original)
    assert trial.screening is not None
    assert ("no steady state" in trial.screening.cache) == marked


def test_a_broken_limit_drops_a_variant_without_running_it(race: Race, original: Variant) -> None:
    limits = (Limit(reading="parameters", relation="<=", bound=3),)
    race.shop = replace(race.shop, goal=replace(race.goal, limits=limits))
    trial = race.run(original)
    assert trial.state == "dropped"
    assert trial.screening is None
    assert "parameters" in trial.reason


def limited(race: Race, *limits: Limit, **given: Any) -> None:
    """Let the race be about sizes, so that nobody is outpaced, and a good deal of quality may go."""
    race.shop = replace(race.shop, goal=Goal(**{"objective": "bytes", "max_drop": 0.5, "limits": limits, **given}))


def test_memory_is_read_when_a_limit_is_on_it(race: Race, original: Variant) -> None:
    limited(race, Limit(reading="peak_memory", relation="<=", bound=1e6))
    trial = race.run(original)
    assert trial.state == "dropped"
    assert "peak_memory is " in trial.reason
    assert trial.screening is None, "before it was timed"
    assert trial.measurement is not None
    assert trial.measurement.value("peak_memory") > 1e6


@pytest.mark.parametrize(("bound", "state"), [(0.6, "kept"), (0.95, "dropped")])
def test_a_limit_on_quality_is_checked_on_the_whole_select_split(
    race: Race, original: Variant, install: Install, bound: float, state: str
) -> None:
    install("runtimes", "poorer", engine("poorer", wrong=" * np.float32([1, 1, 0])"))
    limited(race, Limit(reading="accuracy", relation=">=", bound=bound))
    assert race.run(original).state == "kept"
    trial = race.run(on(original, "poorer"))
    assert trial.state == state
    assert trial.measurement is not None
    read, split = trial.measurement.reading("accuracy"), race.shop.task.split("select")
    assert read is not None
    assert split is not None
    assert read.value == pytest.approx(0.75, abs=0.1)
    assert (read.samples, read.scope) == (len(split), "select split")
    if state == "dropped":
        assert trial.reason == f"accuracy is {read.value:.6g}, the limit is >= 0.95 (select split)"


def test_a_limit_on_times_drops_what_can_not_keep_it_at_its_best(
    race: Race, original: Variant, install: Install
) -> None:
    install("runtimes", "slower", engine("slower", run="time.sleep(0.05)"))
    limited(race, Limit(reading="latency_p99", relation="<=", bound=0.04))
    race.shop = replace(race.shop, task=replace(race.shop.task, splits=()))  # its answers would take too long
    assert race.run(original).state == "kept"
    trial = race.run(on(original, "slower"))
    assert trial.state == "dropped"
    assert trial.reason.startswith("at best latency_p99 is 0.05")


def test_a_limit_on_compression_is_against_the_model_as_given(race: Race, original: Variant) -> None:
    limited(race, Limit(reading="compression_bytes", relation=">=", bound=2.0))
    trial = race.run(original)
    assert (trial.state, trial.reason) == ("dropped", "compression_bytes is 1, the limit is >= 2")


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


def test_a_full_disk_ends_the_run_and_is_no_trial_that_would_stay_failed(
    race: Race, original: Variant, install: Install
) -> None:
    code = """
import errno
class Plugin:
    name = "writing"
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        raise OSError(errno.ENOSPC, "No space left on device")
"""
    install("techniques", "writing", code)
    with pytest.raises(TrimtabError, match=r"the disk is full while writing .*; free some space"):
        race.made(original, Step(technique="writing"))
    assert race.trials == []
    assert len(race.journal) == 0


def test_a_technique_with_nothing_to_gain_is_skipped_and_has_not_failed(race: Race, original: Variant) -> None:
    assert race.made(original, Step(technique="simplify")) is None
    assert [trial.state for trial in race.trials] == ["skipped"]
    assert "nothing to simplify" in race.trials[0].reason


def test_without_a_select_split_only_time_counts(race: Race, original: Variant) -> None:
    race.shop = replace(race.shop, task=replace(race.shop.task, splits=()), goal=Goal(max_drop=None))
    trial = race.run(original)
    assert trial.state == "kept"
    assert trial.quality is None


def test_an_engine_whose_package_is_missing_costs_its_own_trial_only(
    race: Race, original: Variant, install: Install
) -> None:
    missing = "from trimtab.core.errors import MissingExtra; raise MissingExtra('magic', 'magic', 'running magic')"
    install("runtimes", "missing", engine("missing", load=missing))
    race.run(original)
    trial = race.run(on(original, "missing"))
    assert trial.state == "failed"
    assert "pip install 'trimtab[magic]'" in trial.reason


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


@pytest.mark.parametrize("body", ["return [1 / 0]", "return None", "raise SystemError('no\\nsuch luck')"])
def test_a_meter_of_another_distribution_that_fails_is_unavailable_and_the_trial_goes_on(
    race: Race, original: Variant, install: Install, body: str
) -> None:
    code = f"class Plugin:\n    name = 'bad-smell'\n    def read(self, *given):\n        {body}\n"
    install("meters", "bad-smell", code)
    trial = race.run(original)
    assert trial.state == "kept"
    assert trial.measurement is not None
    read = trial.measurement.reading("bad_smell")
    assert read is not None
    assert (read.value, read.provenance) == (None, "unavailable")
    assert read.scope.startswith("the meter bad-smell failed: ")
    assert "\n" not in read.scope


def test_a_race_that_goes_on_knows_what_a_call_of_the_reference_takes(
    race: Race, original: Variant, tmp_path: Path
) -> None:
    trial = race.run(original)
    race.close()
    again = Race(
        shop=race.shop, journal=Journal(tmp_path / "journal.jsonl"), budget=race.budget, progress=race.progress,
        machine=race.machine,
    )  # fmt: skip
    assert again.run(original) == trial
    assert again.latency_s == race.latency_s > 0


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
    assert not race.short
    assert not race.affords(slow)
    assert race.short, "something was not tried for want of time"
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
    once = race.made(original, Step(technique="quick"))
    assert once is not None
    twice = race.made(once, Step(technique="quick", seed=1))
    assert twice is not None
    changed = race.run(twice)
    assert len(changed.making_s) == 2, "also of the step whose variant was not tried"
    assert all(0 < took < 60 for took in changed.making_s)
    expected = changed.seconds + sum(changed.making_s)
    assert race.journal.cost(changed) == race.journal.seconds == pytest.approx(expected)
    assert race.run(original).making_s == ()


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


def test_the_log_of_a_trial_begins_with_what_was_fused_while_it_was_made(race: Race, tmp_path: Path) -> None:
    model = save(CONVOLUTION.graph(0), tmp_path / "convolution.onnx")
    original = Variant(model=model, settings=Settings(runtime="onnxruntime"))
    race.shop = replace(race.shop, original=original, task=Task(), answers=None)
    race.outputs = None
    made = race.made(original, Step(technique="simplify"))
    assert made is not None
    trial = race.run(made)
    assert trial.log is not None, "which is where the report links"
    assert trial.log.read_text().startswith("Conv + BatchNormalization → Conv (")


@pytest.mark.parametrize(
    ("techniques", "expected"),
    [
        ((), True),
        (("export-onnx",), True),
        (("prune", "fine-tune", "export-onnx"), True),
        (("export-onnx", "static-int8"), False),
        (("prune", "fine-tune", "export-onnx", "dynamic-int8"), False),
        (("bf16",), False),
    ],
)
def test_a_network_that_was_changed_and_trained_is_not_rounded_yet(techniques: tuple[str, ...], expected: bool) -> None:
    assert unrounded([Step(technique=name) for name in techniques]) is expected
