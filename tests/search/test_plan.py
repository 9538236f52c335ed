from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from trimtab.core.errors import BadInput
from trimtab.core.machine import machine
from trimtab.core.values import Goal, Limit, NoWorse, Ratio, Settings, Step, Trial, TrialState, Variant
from trimtab.search import plan
from trimtab.search.race import Race

Install = Callable[[str, str, str], None]

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


def test_techniques_that_need_training_are_left_out_unless_they_are_named(install: Install) -> None:
    install("techniques", "coarse", "class Plugin:\n    name = 'coarse'\n    needs_training = True\n")
    assert not {"coarse", "prune", "factorize"} & {technique.name for technique in plan.toolbox().techniques}
    assert not {"coarse"} & {technique.name for technique in plan.toolbox(("openvino",)).techniques}
    chosen = plan.toolbox(("openvino", "coarse", "static-int8")).techniques
    assert {technique.name for technique in chosen} == {"coarse", "static-int8"}


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
    assert [trial.name for trial in plan.untouched_trials(race)] == [race.shop.original.label()]


def test_the_preview_names_what_is_refused_and_why(original: Variant, race: Race) -> None:
    lines = plan.preview(original, race.shop.task, Goal(), machine(), plan.toolbox())
    assert lines[0] == "baseline: as given on onnxruntime"
    assert any(line.startswith("not tried: torch on the model as given: ") for line in lines)
    assert any("static-int8 (calibration: minmax, entropy, percentile" in line for line in lines)


def _kept_with_ratio(race: Race, trial: Trial, value: float) -> None:
    """Pretend that a trial was kept with this time ratio."""
    assert race.trials[0].screening is not None
    screening = replace(race.trials[0].screening, value=value, low=value, high=value)
    race.journal._trials[trial.name] = replace(trial, state="kept", screening=screening)


def tried(
    race: Race,
    *techniques: str,
    runtime: str = "onnxruntime",
    value: float = 1.0,
    state: TrialState = "kept",
    quality: NoWorse | None = None,
    **settings: Any,
) -> Trial:
    """Enter a trial that was never run: these techniques one after the other, timed at that ratio."""
    steps = tuple(Step(technique=name) for name in techniques)
    chosen = Settings(runtime=runtime, **settings)
    variant = replace(race.shop.original, settings=chosen, steps=steps)
    screening = Ratio(
        reading="latency", variant=variant.key, baseline="b", value=value, low=value, high=value, level=0.95,
        margin=0.03, verdict="inconclusive", blocks=16, processes=1,
    )  # fmt: skip
    trial = Trial(
        name=variant.label(), steps=steps, settings=chosen, variant=variant, state=state, reason="",
        screening=screening, quality=quality,
    )  # fmt: skip
    race.journal.add(trial)
    race.names.append(trial.name)
    return trial


def test_settings_of_a_runtime_are_the_fastest_of_each_precision(race: Race) -> None:
    for precision, threads, value in (("fp32", 1, 0.9), ("fp32", 2, 0.5), ("bf16", 2, 0.4)):
        tried(race, runtime="openvino", value=value, precision=precision, threads=threads)
    tried(race, runtime="openvino", value=0.1, state="dropped", precision="fp16")
    tried(race, value=0.2)
    found = plan.settings_of(race.trials, "openvino")
    assert [(settings.precision, settings.threads) for settings in found] == [("bf16", 2), ("fp32", 2)]
    assert plan.settings_of(race.trials, "torch") == []


def test_settings_that_only_seem_faster_do_not_take_the_place_of_the_defaults(race: Race) -> None:
    default = tried(race, value=1.0)
    lucky = tried(race, value=0.97, threads=1)
    wide = replace(lucky, screening=replace(lucky.screening, low=0.9, high=1.05)) if lucky.screening else lucky
    assert plan.settings_of([default, wide], "onnxruntime") == [default.settings]
    assert plan.settings_of([default, lucky], "onnxruntime") == [lucky.settings]


def test_a_toolbox_is_in_the_order_of_what_its_plug_ins_say(install: Install) -> None:
    for name, order in (("late", 1e9), ("early", -1e9)):
        install("techniques", name, f"class Plugin:\n    name = {name!r}\n    order = {order}\n")
    names = [technique.name for technique in plan.toolbox().techniques]
    assert (names[0], names[-1]) == ("early", "late")
    assert [technique.name for technique in plan.toolbox(("late", "early")).techniques] == ["early", "late"]


def test_a_technique_that_saves_something_else_is_left_out(race: Race, install: Install) -> None:
    code = """
class Plugin:
    name = "thrifty"
    saves = "bytes"
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        from trimtab.core.values import Step
        return variant.after(variant.model, Step(technique=self.name))
"""
    install("techniques", "thrifty", code)
    tools = plan.toolbox(("onnxruntime", "thrifty"))
    assert list(plan.touched(race, tools)) == []
    small = Limit(reading="bytes", relation="<=", bound=1e9)
    for goal in (Goal(objective="bytes"), Goal(limits=(small,))):
        race.shop = replace(race.shop, goal=goal)
        assert [variant.steps[-1].technique for variant in plan.touched(race, tools)] == ["thrifty"]


def test_the_best_untouched_and_the_leaders_are_tried_on_the_other_settings_of_their_engine(race: Race) -> None:
    tried(race, value=1.0)
    tried(race, "dynamic-int8", value=0.5)
    tried(race, "static-int8", value=0.7, state="dropped")
    tools = plan.toolbox(("onnxruntime",))
    for part, techniques in ((plan.tuned, set()), (plan.refined, {"dynamic-int8"})):
        found = list(part(race, tools))
        assert len(found) > 1
        assert {step.technique for variant in found for step in variant.steps} == techniques
        assert {variant.settings.runtime for variant in found} == {"onnxruntime"}


def test_the_baseline_is_tuned_before_anything_is_repaired_or_varied(race: Race) -> None:
    tried(race, value=1.0)
    tried(race, "dynamic-int8", value=0.4, state="dropped", quality=lost(0.012))
    found = list(plan.everything(race, plan.toolbox(("onnxruntime", "dynamic-int8"))))
    plain = [place for place, variant in enumerate(found) if not variant.steps]
    whole = [
        place for place, v in enumerate(found) if v.steps and dict(v.steps[-1].options).get("per_channel") is False
    ]
    assert max(plain) < min(whole)


@pytest.mark.parametrize(("drop", "tries"), [(0.012, True), (0.03, False)])
def test_one_that_lost_little_more_than_allowed_is_tried_with_other_options(
    race: Race, drop: float, tries: bool
) -> None:
    tried(race, value=1.0)
    tried(race, "dynamic-int8", value=0.4, state="dropped", quality=lost(drop))
    found = list(plan.nearly(race, plan.toolbox(("onnxruntime", "dynamic-int8"))))
    assert bool(found) == tries
    assert all(dict(variant.steps[-1].options)["per_channel"] is False for variant in found)


def test_a_leader_on_an_engine_that_may_not_be_used_is_left_as_it_is(race: Race) -> None:
    tried(race, value=1.0)
    assert list(plan.refined(race, plan.toolbox(("openvino",)))) == []


RESCUE = """
from trimtab.core.values import Step, options
class Plugin:
    name = "rescue"
    def __init__(self, technique="", max_drop=0.0):
        self.given = options(technique=technique, max_drop=max_drop)
    def rescue(self, step, max_drop):
        return Step(technique=self.name, options=options(technique=step.technique, max_drop=max_drop))
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        return variant.after(variant.model, Step(technique=self.name, options=self.given))
"""


def lost(drop: float) -> NoWorse:
    return NoWorse(
        metric="accuracy", variant="v", baseline="b", max_drop=0.01, error=0.05, method="", items=1000, groups=1000,
        difference=-drop, low=-1.0, high=1.0, better=0, worse=int(1000 * drop), flips=0, proven=False,
    )  # fmt: skip


def test_what_is_fast_and_loses_too_much_is_rescued_once_for_each_technique(race: Race, install: Install) -> None:
    install("techniques", "rescue", RESCUE)
    tools = plan.toolbox(("onnxruntime", "rescue"))
    tried(race, value=1.0)
    tried(race, "static-int8", value=0.4, state="dropped", quality=lost(0.03))
    tried(race, "static-int8", value=0.5, state="dropped", quality=lost(0.03), threads=1)
    tried(race, "bf16", value=2.0, state="dropped", quality=lost(0.03))
    tried(race, "dynamic-int8", value=0.3, state="dropped")  # too slow at the time, its answers were never judged
    found = list(plan.rescued(race, tools))
    assert {variant.steps for variant in found} == {found[0].steps}, "bf16 would gain nothing"
    given = dict(found[0].steps[-1].options)
    most = plan.provable_loss(race.trials[1], race.shop.task, 0.01)
    assert given == {"technique": "static-int8", "max_drop": most}


def with_items(race: Race, items: int) -> None:
    """Pretend that every split has that many items."""
    splits = tuple(replace(split, rows=replace(split.rows, shape=(items,))) for split in race.shop.task.splits)
    race.shop = replace(race.shop, task=replace(race.shop.task, splits=splits))


@pytest.mark.parametrize(("drop", "repaired"), [(0.008, True), (0.001, False)])
def test_what_was_kept_but_will_hardly_be_proven_is_rescued_too(
    race: Race, install: Install, drop: float, repaired: bool
) -> None:
    install("techniques", "rescue", RESCUE)
    with_items(race, 5000)
    tried(race, value=1.0)
    tried(race, "static-int8", value=0.4, state="kept", quality=lost(drop))
    assert bool(list(plan.rescued(race, plan.toolbox(("onnxruntime", "rescue"))))) == repaired


@pytest.mark.parametrize(("leader", "repaired"), [(0.008, True), (0.001, False)])
def test_a_leader_that_will_hardly_be_proven_hides_nothing_that_is_worth_a_repair(
    race: Race, install: Install, leader: float, repaired: bool
) -> None:
    install("techniques", "rescue", RESCUE)
    with_items(race, 5000)
    tried(race, value=1.0)
    tried(race, "dynamic-int8", value=0.41, state="kept", quality=lost(leader))
    tried(race, "static-int8", value=0.4, state="dropped", quality=lost(0.03))
    found = list(plan.rescued(race, plan.toolbox(("onnxruntime", "rescue"))))
    rescued = {dict(variant.steps[-1].options)["technique"] for variant in found}
    assert ("static-int8" in rescued) == repaired


@pytest.mark.parametrize(
    ("items", "drop", "least", "most"),
    [
        (100, 0.03, 0.001, 0.001),  # nothing is proven on so few: as little as can be
        (5000, 0.03, 0.0035, 0.005),
        (1_000_000, 0.03, 0.008, 0.008),  # never more than four fifths of what the goal allows
    ],
)
def test_more_items_allow_a_repair_to_lose_more(race: Race, items: int, drop: float, least: float, most: float) -> None:
    trial = tried(race, "static-int8", quality=lost(drop))
    with_items(race, items)
    found = plan.provable_loss(trial, race.shop.task, 0.01)
    assert least <= found <= most
    z, changed = norm.ppf(0.95), 31 / 1001
    if 0.001 < found < 0.008:
        assert found == pytest.approx(0.01 - (z + 0.5) * np.sqrt(changed / items), abs=1e-5)


def test_what_was_trained_has_to_be_better_than_what_was_only_quantized(race: Race) -> None:
    """Its training was ended by the very items that it is chosen by."""
    with_items(race, 5000)
    task, changed = race.shop.task, 6 / 1001
    trials = [
        tried(race, *steps, quality=lost(0.005)) for steps in (("static-int8",), ("prune", "fine-tune"), ("qat",))
    ]
    hoped = [plan.hoped_loss(trial, task, 0.01) for trial in trials]
    error = np.sqrt(changed / 5000)
    assert hoped == pytest.approx([0.01 - (1.645 + luck) * error for luck in (0.5, 1.5, 1.5)])


def test_how_exactly_an_error_of_numbers_is_known_says_how_much_a_repair_may_lose(race: Race) -> None:
    with_items(race, 1000)
    race.shop = replace(race.shop, task=replace(race.shop.task, kind="regression"))
    apart = 0.0002 * norm.ppf(0.95)  # a standard error of 0.0002 on as many items as are left to certify
    known = replace(lost(0.02), low=-0.02 - apart, worse=1000)
    trial = tried(race, "static-int8", quality=known)
    assert plan.hoped_loss(trial, race.shop.task, 0.01) == pytest.approx(0.01 - (1.645 + 0.5) * 0.0002, abs=1e-6)
    assert plan.provable_loss(trial, race.shop.task, 0.01) == pytest.approx(0.008)


def test_what_the_budget_left_out_is_named(race: Race) -> None:
    tools = plan.toolbox(("onnxruntime", "static-int8", "dynamic-int8", "keep-float", "export-onnx"))
    assert plan.not_tried(race, tools) == ["static-int8", "dynamic-int8"], "an ONNX model needs no export"
    tried(race, "static-int8", state="dropped")
    assert plan.not_tried(race, tools) == ["dynamic-int8"]


def test_without_anything_to_protect_there_is_nothing_to_rescue(race: Race, install: Install) -> None:
    install("techniques", "rescue", RESCUE)
    tried(race, value=1.0)
    tried(race, "static-int8", value=0.4, state="dropped", quality=lost(0.03))
    race.shop = replace(race.shop, goal=Goal(max_drop=None))
    assert list(plan.rescued(race, plan.toolbox(("onnxruntime", "rescue")))) == []


def test_a_technique_that_is_refused_is_never_made(race: Race, install: Install) -> None:
    code = """
class Plugin:
    name = "choosy"
    def refuses(self, variant, task):
        return "not this one"
    def apply(self, variant, context):
        raise AssertionError
"""
    install("techniques", "choosy", code)
    assert list(plan.touched(race, plan.toolbox(("onnxruntime", "choosy")))) == []
    assert race.trials == []


def test_only_what_a_runtime_takes_is_yielded_for_it(race: Race) -> None:
    tools = plan.toolbox(("onnxruntime", "openvino", "torch"))
    tried(race, value=1.0)
    tried(race, "dynamic-int8", runtime="openvino", value=0.5, precision="fp32")
    runtimes = {runtime.name: runtime for runtime in tools.runtimes}
    found = [*plan.untouched(race, tools), *plan.refined(race, tools)]
    assert {variant.settings.runtime for variant in found} == {"onnxruntime", "openvino"}, "torch runs no onnx"
    assert all(runtimes[variant.settings.runtime].refuses(variant) is None for variant in found)


def test_the_preview_names_the_settings_that_an_engine_would_be_tried_on(original: Variant, race: Race) -> None:
    tools = plan.toolbox(("onnxruntime", "dynamic-int8"))
    lines = plan.preview(original, race.shop.task, Goal(), replace(machine(), cores=4), tools)
    for label in ("4 threads", "1 thread", "no spinning"):
        assert f"if among the best two untouched: as given on onnxruntime, {label}" in lines
    assert next(line for line in lines if line.startswith("technique: ")).startswith("technique: dynamic-int8")
    assert not any(line.startswith("not tried") for line in lines)


def test_fusion_off_is_tried_once_on_the_weights_as_given(race: Race) -> None:
    tools = plan.toolbox(("onnxruntime", "openvino", "dynamic-int8"))
    tried(race, value=1.0)
    tried(race, "dynamic-int8", value=0.5)
    off = Settings(runtime="onnxruntime", fusion=False)
    assert [(variant.steps, variant.settings) for variant in plan.unfused(race, tools)] == [((), off)]
    for part in (plan.untouched, plan.tuned, plan.refined):
        assert all(variant.settings.fusion for variant in part(race, tools))
    assert off in [variant.settings for variant in plan.everything(race, tools)]


def previewed(lines: list[str], kind: str) -> list[str]:
    return [line.removeprefix(f"{kind}: ") for line in lines if line.startswith(f"{kind}: ")]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["latency", "bytes"])
def test_the_preview_is_what_a_search_tries(original: Variant, race: Race, objective: str) -> None:
    race.shop = replace(race.shop, goal=Goal(objective=objective))
    tools = plan.toolbox(("onnxruntime", "openvino", "dynamic-int8", "bf16", "simplify", "export-openvino"))
    lines = plan.preview(original, race.shop.task, race.goal, race.machine, tools)
    for part in (plan.untouched, plan.touched, plan.unfused):
        for variant in part(race, tools):
            race.run(variant)
    plain = [trial.name for trial in race.trials if not trial.steps]
    assert sorted(plain) == sorted(previewed(lines, "baseline") + previewed(lines, "best untouched"))
    done = {trial.steps[-1].technique for trial in race.trials if trial.steps}
    assert done == {line.partition(" ")[0] for line in previewed(lines, "technique")}
    assert ("bf16" in done) == (objective == "bytes")
    maybe = previewed(lines, "if among the best two untouched")
    tuned = {variant.label() for variant in plan.tuned(race, tools)} - set(plain)
    assert tuned
    assert tuned <= set(maybe)


def test_the_preview_says_why_something_is_never_tried(original: Variant, race: Race) -> None:
    lines = plan.preview(original, race.shop.task, Goal(max_drop=None), machine(), plan.toolbox())
    for reason in (
        "bf16: it helps only goals and limits on bytes",
        "export-openvino: the engines that it is for run the model without it",
        "export-onnx: it exports PyTorch models, this one is onnx",
        "keep-float: nothing is protected",
    ):
        assert f"not tried: {reason}" in lines
    protected = plan.preview(original, race.shop.task, Goal(), machine(), plan.toolbox())
    assert "repair: keep-float, of what is fast and loses too much" in protected


def test_the_preview_of_a_model_that_must_be_exported_names_what_the_export_opens(
    original: Variant, race: Race
) -> None:
    torch = replace(original, model=replace(original.model, format="torch"), settings=Settings(runtime="torch"))
    tools = plan.toolbox(("torch", "onnxruntime", "export-onnx", "export-openvino", "static-int8"))
    lines = plan.preview(torch, race.shop.task, Goal(), machine(), tools)
    assert "export: export-onnx" in lines
    assert "best untouched: export-onnx on onnxruntime" in lines
    assert "best untouched: export-onnx on onnxruntime, no fusion" in lines
    (technique,) = previewed(lines, "technique")
    assert technique.startswith("static-int8 (")
    assert technique.endswith(", on what export-onnx makes, if it takes that")
    assert any(line.startswith("not tried: export-openvino: ") for line in lines)


LEARNS = """
from trimtab.core.values import Step
class Plugin:
    name = "taught"
    learns = True
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        return variant.after(variant.model, Step(technique=self.name))
"""


def test_what_trains_by_itself_starts_from_what_something_fast_was_made_of_and_lost_too_much(
    race: Race, install: Install
) -> None:
    install("techniques", "taught", LEARNS)
    install("techniques", "learn", LEARNS.replace("taught", "learn").replace("learns", "trains"))
    tools = plan.toolbox(("onnxruntime", "static-int8", "taught"))
    tried(race, value=1.0)
    assert list(plan.touched(race, plan.toolbox(("onnxruntime", "taught")))) == []
    assert list(plan.taught(race, tools)) == [], "nothing is fast and loses too much"
    learnt = (Step(technique="learn"),)
    race.variants[learnt] = replace(race.shop.original, steps=learnt)
    tried(race, "learn", "static-int8", value=0.3, state="dropped", quality=lost(0.03))
    (made,) = plan.taught(race, tools)
    assert [step.technique for step in made.steps] == ["learn", "taught"]
    tried(race, "dynamic-int8", value=0.2, state="dropped", quality=lost(0.03))
    chains = [[step.technique for step in made.steps] for made in plan.taught(race, tools)]
    assert chains == [["taught"], ["learn", "taught"]]
    assert "taught" not in {technique.name for technique in plan.toolbox().techniques}
    assert "taught" in {technique.name for technique in plan.toolbox(train=True).techniques}


def test_what_saves_another_reading_is_not_trained(race: Race, install: Install) -> None:
    install("techniques", "taught", LEARNS + "    saves = 'bytes_compressed'\n")
    tried(race, value=1.0)
    tools = plan.toolbox(("onnxruntime", "taught"))
    assert list(plan.taught(race, tools)) == []
    race.shop = replace(race.shop, goal=replace(race.goal, objective="compressed"))
    assert [variant.steps[-1].technique for variant in plan.taught(race, tools)] == ["taught"]
