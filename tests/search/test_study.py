from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest

from trimtab.core import plugins
from trimtab.core.errors import NothingToGain
from trimtab.core.values import Measurement, NoWorse, Ratio, Reading, Settings, Step, Trial, Variant
from trimtab.search import plan
from trimtab.search.halving import Job
from trimtab.search.race import Race
from trimtab.search.study import Study

pytest.importorskip("optuna")

Install = Callable[[str, str, str], None]

SHRINK = """
from dataclasses import replace
from typing import Annotated
from trimtab.core.protocols import Range
from trimtab.core.values import Step, options
class Plugin:
    name = "shrink"
    needs_training = True
    def __init__(self, amount: Annotated[float, Range(0.05, 0.95, 0.01)] = 0.5):
        self.amount = amount
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        model = replace(variant.model, digest=f"{variant.model.digest} less {self.amount}")
        return variant.after(model, Step(technique=self.name, options=options(amount=self.amount)))
"""
LEARN = """
from trimtab.core.values import Step, options
class Plugin:
    name = "learn"
    trains = True
    def __init__(self, epochs: int = 3, share: float = 1.0):
        self.given = options(epochs=epochs, share=share)
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        return variant.after(variant.model, Step(technique=self.name, options=self.given))
"""
QUICK = """
from trimtab.core.values import Step
class Plugin:
    name = "quick"
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        return variant.after(variant.model, Step(technique=self.name))
"""


STUCK = """
from typing import Annotated
from trimtab.core.errors import NothingToGain
from trimtab.core.protocols import Range
class Plugin:
    name = "stuck"
    needs_training = True
    def __init__(self, amount: Annotated[float, Range(0.05, 0.95, 0.01)] = 0.5):
        pass
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        raise NothingToGain("there is nothing here to change")
"""


STEPS = SHRINK.replace("shrink", "steps").replace("less {self.amount}", "less {round(4 * self.amount)}")


def of(step: Step, option: str, usual: float) -> float:
    return float(str(dict(step.options).get(option, usual)))


def amount_of(steps: tuple[Step, ...]) -> float:
    """What is gone: each step leaves its share of what it was given."""
    return 1 - math.prod(1 - of(step, "amount", 0.5) for step in steps if step.technique in ("shrink", "steps"))


def epochs_of(steps: tuple[Step, ...]) -> float:
    return sum(of(step, "epochs", 3) * of(step, "share", 1) for step in steps if step.technique == "learn")


def loss_of(steps: tuple[Step, ...]) -> float:
    """A world in which a network loses what it misses in channels, and training brings most of it back."""
    amount, epochs = amount_of(steps), epochs_of(steps)
    return 0.5 * amount**3 * math.exp(-0.7 * epochs) + 0.02 * amount**4


def trial_of(race: Race, variant: Variant) -> Trial:
    """What the race would find: less time the more is shrunk, and the loss of that world."""
    value, loss = 1 - amount_of(variant.steps), loss_of(variant.steps)
    screening = Ratio(
        reading="latency", variant=variant.key, baseline="b", value=value, low=value, high=value, level=0.95,
        margin=0.03, verdict="inconclusive", blocks=16, processes=1,
    )  # fmt: skip
    quality = NoWorse(
        metric="accuracy", variant="v", baseline="b", max_drop=0.01, error=0.05, method="", items=1000, groups=1000,
        difference=-loss, low=-1.0, high=1.0, better=0, worse=int(1000 * loss), flips=0, proven=False,
    )  # fmt: skip
    macs = Reading(name="macs", value=1e6 * (1 - amount_of(variant.steps)), unit="1", direction="lower", source="law")
    measured = Measurement(
        variant=variant, task="t", workload=race.goal.workload, readings=(macs,), machine=race.machine, time="now"
    )
    return Trial(
        name=variant.label(), steps=variant.steps, settings=variant.settings, variant=variant,
        state="kept" if loss <= 0.01 else "dropped", reason="", screening=screening, quality=quality,
        measurement=measured,
    )  # fmt: skip


@dataclass(slots=True, kw_only=True)
class AtOnce(Race):
    """A race in which techniques are applied at once, without a process."""

    asked: list[str] = field(default_factory=list)
    changing_s: float = 0.0

    def made(self, parent: Variant, step: Step, share: float = 1.0) -> Variant | None:
        technique: Any = plugins.make("techniques", step.technique, step.options)
        self.asked.append(step.technique)
        try:
            variant: Variant = technique.apply(parent, None)
        except NothingToGain:
            return None
        self.variants[variant.steps] = variant
        self.making_s[variant.steps] = 0.01 * epochs_of((step,)) or self.changing_s
        return variant


def enter(race: Race, variant: Variant) -> None:
    trial = trial_of(race, variant)
    if race.journal.get(trial.name) is None:
        race.journal.add(trial)
    if trial.name not in race.names:
        race.names.append(trial.name)


@pytest.fixture
def ready(race: Race, install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Race]:
    """A race that knows the model as given and has items to train on."""
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    install("techniques", "shrink", SHRINK)
    install("techniques", "learn", LEARN)
    install("techniques", "quick", QUICK)
    splits = race.shop.task.splits
    race = AtOnce(**{each.name: getattr(race, each.name) for each in fields(Race) if not each.name.startswith("_")})
    many = [
        replace(split, rows=replace(split.rows, shape=(10**6,))) if split.name in ("select", "certify") else split
        for split in splits
    ]
    race.shop = replace(race.shop, task=replace(race.shop.task, splits=(*many, replace(splits[0], name="train"))))
    race.latency_s = 1e-4
    enter(race, race.shop.original)
    yield race


def searched(race: Race, *techniques: str, most: int = 900) -> list[Variant]:
    """Return what the plan tries, each judged by the law."""
    found = []
    for variant in plan.trained(race, plan.toolbox(("onnxruntime", *techniques))):
        enter(race, variant)
        found.append(variant)
        if len(found) == most:
            break
    return found


def test_a_changed_network_is_timed_before_it_is_trained(ready: Race) -> None:
    found = searched(ready, "shrink", "learn", most=30)
    first: dict[float, str] = {}
    for variant in found:
        first.setdefault(amount_of(variant.steps), variant.steps[-1].technique)
    assert set(first.values()) == {"shrink"}


def test_the_search_ends_near_the_fastest_network_that_keeps_the_goal(ready: Race) -> None:
    searched(ready, "shrink", "learn")
    best = ready.best()
    assert best is not None
    reachable = max(a / 100 for a in range(5, 96) if 0.02 * (a / 100) ** 4 <= 0.01)
    assert best.screening is not None
    assert best.screening.value <= 1.25 * (1 - reachable)
    assert epochs_of(best.steps) > 0


def test_what_keeps_the_goal_is_quantized_and_what_is_hopeless_is_not(ready: Race) -> None:
    found = searched(ready, "shrink", "learn", "quick")
    quantized = [variant for variant in found if variant.steps[-1].technique == "quick"]
    assert quantized
    assert all(loss_of(variant.steps[:-1]) <= 0.015 for variant in quantized)
    assert all("learn" in {step.technique for step in variant.steps} for variant in quantized)


def test_the_fastest_are_quantized_when_all_training_is_done(ready: Race) -> None:
    found = [variant.steps for variant in searched(ready, "shrink", "learn", "quick")]
    first = next(place for place, steps in enumerate(found) if steps[-1].technique == "quick")
    assert {steps for steps in found[first:] if steps[-1].technique == "learn"} <= set(found[:first])
    assert 1 <= sum(steps[-1].technique == "quick" for steps in found) <= 3


def test_each_rung_goes_on_from_the_weights_of_the_one_below(ready: Race) -> None:
    chains = [variant.steps for variant in searched(ready, "shrink", "learn")]
    climbs = [steps for steps in chains if [step.technique for step in steps] == ["shrink", "learn", "learn"]]
    assert climbs
    for _, first, second in climbs:
        assert epochs_of((first,)) < epochs_of((second,))


def test_a_search_that_goes_on_tries_the_same_again(ready: Race) -> None:
    before = [variant.label() for variant in searched(ready, "shrink", "learn", most=25)]
    ready.names[1:] = []
    assert [variant.label() for variant in searched(ready, "shrink", "learn", most=25)] == before


def test_every_training_is_explained(ready: Race) -> None:
    said: list[str] = []
    trainer, shrink = (t for name in ("learn", "shrink") for t in plan.toolbox((name,)).techniques)
    study = Study(
        race=ready, makers=(shrink,), trainer=trainer, allowed=0.01, plain=ready.trials[0],
        finish=lambda variant: iter(()), said=said.append,
    )  # fmt: skip
    for count, variant in enumerate(study.variants()):
        enter(ready, variant)
        if count == 20:
            break
    assert said
    assert all(text.startswith("training shrink(") and "a chance of" in text for text in said)
    assert isinstance(study.halving.next(2.0, 1e9), Job)


def test_without_items_to_train_on_no_network_is_changed_unless_by_name(race: Race, install: Install) -> None:
    install("techniques", "shrink", SHRINK)
    install("techniques", "learn", LEARN.replace("return None", "return 'nothing to train on'"))
    usual = {technique.name for technique in plan.toolbox().techniques}
    assert not usual & {"shrink", "learn", "prune", "factorize", "fine-tune"}
    assert {"shrink", "learn"} < {technique.name for technique in plan.toolbox(train=True).techniques}
    enter(race, race.shop.original)
    tools = plan.toolbox(("onnxruntime", "shrink", "learn"))
    assert list(plan.trained(race, tools)) == []
    assert [variant.steps[-1].technique for variant in plan.touched(race, tools)] == ["shrink"]


def test_the_trainer_alone_is_never_tried(race: Race, install: Install) -> None:
    install("techniques", "learn", LEARN)
    enter(race, race.shop.original)
    tools = plan.toolbox(("onnxruntime", "learn"))
    assert list(plan.touched(race, tools)) == []
    assert list(plan.trained(race, tools)) == []


def test_candidates_run_as_the_best_untouched_does(ready: Race) -> None:
    settings = Settings(runtime="onnxruntime", threads=1)
    variant = ready.shop.original.on(settings)
    trial = trial_of(ready, variant)
    assert trial.screening is not None
    ready.journal.add(replace(trial, screening=replace(trial.screening, value=0.9, low=0.9, high=0.9)))
    ready.names.append(trial.name)
    assert {each.settings for each in searched(ready, "shrink", "learn", most=8)} == {settings}


def test_a_technique_that_never_changes_anything_is_soon_left(ready: Race, install: Install) -> None:
    install("techniques", "stuck", STUCK)
    searched(ready, "shrink", "stuck", "learn")
    assert isinstance(ready, AtOnce)
    assert ready.asked.count("stuck") <= 3
    assert ready.asked.count("shrink") > 3


def test_proposals_that_make_the_same_network_are_tried_once(ready: Race, install: Install) -> None:
    install("techniques", "steps", STEPS)
    found = searched(ready, "steps", "learn")
    tried = {step for variant in found for step in variant.steps if step.technique == "steps"}
    assert 1 <= len(tried) <= 5, "of any amount one of five networks comes"


def test_a_search_ends_when_no_technique_changes_anything(ready: Race, install: Install) -> None:
    install("techniques", "stuck", STUCK)
    assert searched(ready, "stuck", "learn") == []
    assert isinstance(ready, AtOnce)
    assert ready.asked.count("stuck") == 3


def before_training(race: Race) -> int:
    """Return how many networks are proposed before the first is trained."""
    found = searched(race, "shrink", "learn", most=60)
    return next(place for place, variant in enumerate(found) if epochs_of(variant.steps))


def test_proposals_that_take_long_leave_their_time_to_training(ready: Race) -> None:
    assert isinstance(ready, AtOnce)
    usual = before_training(ready)
    ready.names[1:] = []
    ready.changing_s = 0.11 * ready.budget.left()
    assert before_training(ready) < min(usual, 4), "two of them take more than a fifth of the time"


def test_every_technique_has_its_turn_before_any_has_many(ready: Race, install: Install) -> None:
    for number in range(4):
        code = SHRINK.replace("less", f"by {number} less").replace('"shrink"', f'"shrink-{number}"')
        install("techniques", f"shrink-{number}", code)
    found = searched(ready, *(f"shrink-{number}" for number in range(4)), "learn", most=8)
    tried = [variant.steps[-1].technique for variant in found]
    assert tried[:4] == [f"shrink-{number}" for number in range(4)]


def test_changes_compose(ready: Race, install: Install) -> None:
    install("techniques", "steps", STEPS)
    chains = [[step.technique for step in variant.steps] for variant in searched(ready, "shrink", "steps", "learn")]
    assert any(chain[:2] in (["shrink", "steps"], ["steps", "shrink"]) for chain in chains), "before any training"
    assert any(chain[:3] in (["shrink", "learn", "shrink"], ["shrink", "learn", "steps"]) for chain in chains)
    assert not any(chain[:2] in (["shrink", "shrink"], ["steps", "steps"]) for chain in chains)


def test_what_makes_a_network_of_its_own_is_given_the_original_only(ready: Race, install: Install) -> None:
    install("techniques", "steps", STEPS.replace("needs_training = True", "needs_training = afresh = True"))
    for variant in searched(ready, "shrink", "steps", "learn"):
        assert "steps" not in [step.technique for step in variant.steps[1:]]
