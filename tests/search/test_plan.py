from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.machine import machine
from trimtab.core.values import Trial, Variant, Workload
from trimtab.search import plan
from trimtab.search.race import Race

SMALL = ("onnxruntime", "static-int8", "dynamic-int8")


def test_a_toolbox_holds_every_plug_in_or_those_named() -> None:
    everything = plan.toolbox()
    assert {"onnxruntime", "openvino"} <= {runtime.name for runtime in everything.runtimes}
    chosen = plan.toolbox(SMALL)
    assert [runtime.name for runtime in chosen.runtimes] == ["onnxruntime"]
    assert {technique.name for technique in chosen.techniques} == {"static-int8", "dynamic-int8"}
    runtimes_only = plan.toolbox(("openvino",))
    assert [runtime.name for runtime in runtimes_only.runtimes] == ["openvino"]
    assert len(runtimes_only.techniques) == len(everything.techniques)


def test_an_unknown_name_is_one_clear_line() -> None:
    with pytest.raises(BadInput, match=r"'magic' is no runtime and no technique; known are: .*openvino"):
        plan.toolbox(("onnxruntime", "magic"))


def test_runtimes_that_start_slowly_come_last() -> None:
    names = [runtime.name for runtime in plan.toolbox().runtimes]
    assert names[-1] == "torch-compile"


def test_the_model_as_given_is_the_first_of_the_untouched(race: Race) -> None:
    found = list(itertools.islice(plan.untouched(race, plan.toolbox(SMALL)), 4))
    assert found[0] == race.shop.original
    assert all(variant.steps == () for variant in found)


def test_techniques_start_from_the_original_and_never_change_it(race: Race) -> None:
    tools = plan.toolbox(SMALL)
    race.run(race.shop.original)
    found = list(plan.touched(race, tools))
    assert {variant.steps[-1].technique for variant in found} == {"static-int8", "dynamic-int8"}
    assert all(len(variant.steps) == 1 for variant in found)
    assert race.shop.original.steps == ()


def test_promising_defaults_are_varied_one_option_at_a_time(race: Race) -> None:
    tools = plan.toolbox(("onnxruntime", "static-int8"))
    race.run(race.shop.original)
    default = next(iter(plan.touched(race, tools)))
    trial = race.run(default)
    _kept_with_ratio(race, trial, 0.01)
    decided = dict(default.steps[-1].options)  # what the technique found out by itself, such as the processor's needs
    varied = [dict(variant.steps[-1].options) for variant in plan.varied(race, tools)]
    assert {"calibration": "entropy"} in [{k: v for k, v in found.items() if k not in decided} for found in varied]
    assert all(len(found.keys() - decided.keys()) == 1 for found in varied)


def test_hopeless_defaults_are_not_varied(race: Race) -> None:
    tools = plan.toolbox(("onnxruntime", "static-int8"))
    race.run(race.shop.original)
    trial = race.run(next(iter(plan.touched(race, tools))))
    _kept_with_ratio(race, trial, 50.0)
    assert list(plan.varied(race, tools)) == []


def test_untouched_trials_are_those_without_a_technique(race: Race) -> None:
    tools = plan.toolbox(SMALL)
    race.run(race.shop.original)
    race.run(next(iter(plan.touched(race, tools))))
    assert [trial.name for trial in plan.untouched_trials(race, tools)] == [race.shop.original.label()]


def test_a_runtime_that_starts_too_slowly_for_the_budget_is_left_out(race: Race) -> None:
    tools = plan.toolbox()
    race.budget.seconds = 30.0
    assert "torch-compile" not in [runtime.name for runtime in plan._by_cost(tools.runtimes, race)]
    race.budget.seconds = 3600.0
    assert "torch-compile" in [runtime.name for runtime in plan._by_cost(tools.runtimes, race)]


def test_the_preview_names_what_is_refused_and_why(original: Variant, race: Race) -> None:
    lines = plan.preview(original, race.shop.task, Workload(), machine(), plan.toolbox())
    assert lines[0] == "baseline: as given on onnxruntime"
    assert any(line.startswith("not tried: torch on the model as given: ") for line in lines)
    assert any("static-int8 (calibration: minmax, entropy, percentile" in line for line in lines)


def _kept_with_ratio(race: Race, trial: Trial, value: float) -> None:
    """Pretend that a trial was kept with this time ratio."""
    assert race.trials[0].screening is not None
    screening = replace(race.trials[0].screening, value=value, low=value, high=value)
    race.journal._trials[trial.name] = replace(trial, state="kept", screening=screening)
