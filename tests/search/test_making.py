from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput, Refused, WorkerError, WorkerTimeout
from trimtab.core.values import Goal, Step, Variant, options
from trimtab.data.arrays import save_array
from trimtab.data.batches import labels as labels_of
from trimtab.search.making import Makers, Shop, is_made, judged, make
from trimtab.search.race import Race
from trimtab.testing.fakes import FakeSession

Install = Callable[[str, str, str], None]


def test_a_variant_is_made_once_and_found_again(race: Race, original: Variant, tmp_path: Path) -> None:
    step = Step(technique="dynamic-int8")
    assert not is_made(race.shop, original, step)
    made = make(race.shop, original, step, 60, tmp_path / "log")
    written = made.variant.model.path.stat().st_mtime_ns
    assert is_made(race.shop, original, step)
    assert make(race.shop, original, step, 60, tmp_path / "log") == made, "the seconds are those of the first time"
    assert made.seconds > 0
    assert made.variant.model.path.stat().st_mtime_ns == written
    assert made.variant.steps[-1].technique == "dynamic-int8"


def test_other_options_make_another_variant(race: Race, original: Variant, tmp_path: Path) -> None:
    make(race.shop, original, Step(technique="dynamic-int8"), 60, tmp_path / "log")
    for other in (
        Step(technique="dynamic-int8", options=options(per_channel=True)),
        Step(technique="dynamic-int8", seed=1),
        Step(technique="static-int8"),
    ):
        assert not is_made(race.shop, original, other)
    elsewhere = replace(race.shop, task=replace(race.shop.task, digest="other"))
    assert not is_made(elsewhere, original, Step(technique="dynamic-int8"))


def test_what_a_killed_run_left_half_made_is_made_anew(race: Race, original: Variant, tmp_path: Path) -> None:
    step = Step(technique="dynamic-int8")
    made = make(race.shop, original, step, 60, tmp_path / "log").variant
    kept = made.model.path.parent / "variant.json"
    kept.unlink()
    made.model.path.write_bytes(b"half")
    assert make(race.shop, original, step, 60, tmp_path / "log").variant.model.digest == made.model.digest
    assert made.model.path.stat().st_size > 4


def test_a_refusal_is_told_with_its_reason(race: Race, original: Variant, tmp_path: Path) -> None:
    made = make(race.shop, original, Step(technique="dynamic-int8"), 60, tmp_path / "log").variant
    with pytest.raises(Refused, match=r"static-int8: .*quantized"):
        make(race.shop, made, Step(technique="static-int8"), 60, tmp_path / "log")


def test_a_technique_that_hangs_ends_at_its_limit(
    race: Race, original: Variant, tmp_path: Path, install: Install
) -> None:
    code = """
import time
class Plugin:
    name = "hanging"
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        time.sleep(600)
"""
    install("techniques", "hanging", code)
    with pytest.raises(WorkerTimeout):
        make(race.shop, original, Step(technique="hanging"), 2, tmp_path / "log")


def test_a_technique_may_evaluate_and_time_what_it_makes(
    race: Race, original: Variant, tmp_path: Path, install: Install
) -> None:
    code = """
from trimtab.core.values import Step, options
class Plugin:
    name = "asking"
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        drop, near = context.evaluate(variant), context.evaluate(variant, 0.5)
        found = options(drop=drop, near=near, quick=context.time(variant) < 1)
        return variant.after(variant.model, Step(technique=self.name, options=found))
"""
    install("techniques", "asking", code)
    made = make(race.shop, original, Step(technique="asking"), 60, tmp_path / "log").variant
    assert dict(made.steps[-1].options) == {"drop": 0.0, "near": 0.0, "quick": True}


def test_without_data_there_is_nothing_to_evaluate_on(
    race: Race, original: Variant, tmp_path: Path, install: Install
) -> None:
    code = """
from trimtab.core.values import Step
class Plugin:
    name = "asking"
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        context.evaluate(variant)
"""
    install("techniques", "asking", code)
    shop = replace(race.shop, task=replace(race.shop.task, splits=()), answers=None)
    with pytest.raises(Refused, match="there is no select split to evaluate on: give data with --data"):
        make(shop, original, Step(technique="asking"), 60, tmp_path / "log")
    assert not is_made(shop, original, Step(technique="asking"))


def test_what_was_kept_and_is_damaged_says_which_file_to_delete(race: Race, original: Variant, tmp_path: Path) -> None:
    step = Step(technique="dynamic-int8")
    kept = make(race.shop, original, step, 60, tmp_path / "log").variant.model.path.parent / "variant.json"
    kept.write_text("{")
    with pytest.raises(BadInput, match=r"variant\.json is damaged .*; delete it and run again"):
        make(race.shop, original, step, 60, tmp_path / "log")


@pytest.fixture
def many(race: Race) -> tuple[Shop, np.ndarray]:
    """A shop whose select split holds the many items that certify elsewhere, and what the original answers to them."""
    certify = race.shop.task.split("certify")
    assert certify is not None
    task = replace(race.shop.task, splits=(replace(certify, name="select"),))
    labels = labels_of(certify)
    assert labels is not None
    return replace(race.shop, task=task, goal=Goal(max_drop=0.05)), np.eye(3, dtype=np.float32)[labels]


def answering(shop: Shop, outputs: np.ndarray) -> FakeSession:
    """A session that gives these answers in the order of the split."""
    given = iter(outputs)
    return FakeSession(shop.original, lambda inputs: {"y": np.stack([next(given) for _ in inputs["x"]])})


def test_answers_of_the_same_weights_are_looked_at_until_a_hundred_are_alike(many: tuple[Shop, np.ndarray]) -> None:
    shop, original = many
    told = judged(answering(shop, original), shop, original, None, alike=True)
    assert (told.found.items, told.found.flips, told.doubt) == (100, 0, None)
    whole = judged(answering(shop, original), shop, original, None).found
    assert whole.items == len(original), "other weights are looked at to the end"


def test_one_answer_that_differs_is_reason_enough_to_look_at_all(many: tuple[Shop, np.ndarray]) -> None:
    shop, original = many
    other = original.copy()
    other[3] = np.roll(other[3], 1)
    found = judged(answering(shop, other), shop, original, None, alike=True).found
    assert (found.items, found.flips, found.worse) == (len(original), 1, 1)
    assert found.difference == -1 / len(original)


def test_a_hundred_items_of_one_class_tell_nothing_of_the_others(many: tuple[Shop, np.ndarray]) -> None:
    shop, original = many
    (split,) = shop.task.splits
    labels = labels_of(split)
    assert labels is not None
    order = np.argsort(labels != 0, kind="stable")
    same = int((labels == 0).sum())
    kept = save_array("labels", shop.folder / "sorted.npy", labels[order])
    alone = replace(shop, task=replace(shop.task, splits=(replace(split, labels=kept),)))
    found = judged(answering(alone, original[order]), alone, original[order], None, alike=True).found
    assert found.items == max(100, same + 1)


def test_what_is_beyond_hope_is_given_up_early_with_the_reason(many: tuple[Shop, np.ndarray]) -> None:
    shop, original = many
    told = judged(answering(shop, np.roll(original, 1, axis=1)), shop, original, 0.05)
    assert told.doubt is not None
    assert told.doubt.startswith("loses about ")
    assert told.found.items < 60
    assert told.found.difference == -1.0


def test_what_is_learnt_from_answers_some_items_more_before_it_is_given_up(many: tuple[Shop, np.ndarray]) -> None:
    shop, original = many
    half = original.copy()
    half[:40] = np.roll(half[:40], 1, axis=1)
    early = judged(answering(shop, half), shop, original, 0.05)
    told = judged(answering(shop, half), shop, original, 0.05, least=(120, 0))
    assert early.doubt is not None and early.found.items < 120
    assert told.doubt is not None and 120 <= told.found.items < len(original)
    assert told.found.difference == -40 / told.found.items > early.found.difference
    assert f"seen on {told.found.items} items" in told.doubt


def test_what_is_good_enough_beyond_doubt_needs_no_more_items(many: tuple[Shop, np.ndarray]) -> None:
    shop, original = many
    told = judged(answering(shop, original), shop, original, 0.05)
    assert told.doubt is None
    assert told.found.items < len(original)
    assert judged(answering(shop, original), shop, original, 0.05, least=(0, len(original))).found.items == len(
        original
    )


@pytest.mark.parametrize("most", [None, 0.05])
def test_numbers_are_looked_at_to_the_end(many: tuple[Shop, np.ndarray], most: float | None) -> None:
    shop, original = many
    shop = replace(shop, task=replace(shop.task, kind="regression", metric="mse"))
    (split,) = shop.task.splits
    values = save_array("labels", shop.folder / "values.npy", original.astype(float))
    shop = replace(shop, task=replace(shop.task, splits=(replace(split, labels=values),)))
    told = judged(answering(shop, original + 0.5), shop, original, most, alike=True)
    assert (told.found.items, told.doubt) == (len(original), None)
    assert told.found.difference == pytest.approx(-0.25), "half of a unit squared, and more is worse"


def test_what_answers_like_its_twin_is_taken_to_lose_what_the_twin_lost(many: tuple[Shop, np.ndarray]) -> None:
    shop, original = many
    other = original.copy()
    other[::50] = np.roll(other[::50], 1, axis=1)
    twin = judged(answering(shop, other), shop, original, None)
    asked = answering(shop, other)
    again = judged(asked, shop, original, None, twin=twin)
    assert replace(again.found, variant="") == replace(twin.found, variant="")
    assert again.found.items == len(original)


def test_what_answers_otherwise_than_its_twin_is_looked_at_itself(many: tuple[Shop, np.ndarray]) -> None:
    shop, original = many
    other = original.copy()
    other[60] = np.roll(other[60], 1)
    twin = judged(answering(shop, original), shop, original, None)
    again = judged(answering(shop, other), shop, original, None, twin=twin)
    assert (again.found.items, again.found.worse) == (len(original), 1)


def test_a_twin_that_was_given_up_early_speaks_only_for_what_it_answered(many: tuple[Shop, np.ndarray]) -> None:
    shop, original = many
    bad = np.roll(original, 1, axis=1)
    twin = judged(answering(shop, bad), shop, original, 0.05)
    assert len(twin.outputs) < 60
    again = judged(answering(shop, bad), shop, original, 0.05, twin=twin)
    assert again.doubt == twin.doubt


def test_one_lost_group_is_not_taken_for_many_lost_items(many: tuple[Shop, np.ndarray]) -> None:
    shop, original = many
    (split,) = shop.task.splits
    numbers = save_array("groups", shop.folder / "groups.npy", np.arange(len(original)) // 20)
    grouped = replace(shop, task=replace(shop.task, splits=(replace(split, groups=numbers),)))
    other = original.copy()
    other[:20] = np.roll(other[:20], 1, axis=1)
    assert judged(answering(shop, other), shop, original, 0.05).doubt is not None
    assert judged(answering(grouped, other), grouped, original, 0.05).doubt is None


TIDY = """
import os
class Plugin:
    name, tidy = "{name}", {tidy}
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        print("made by", os.getpid())
        if {fails}:
            raise ValueError("no")
        return variant
"""


def makers_of(logs: list[Path]) -> list[str]:
    return [log.read_text().split("made by ")[1].split()[0] for log in logs]


def test_tidy_techniques_share_a_process_and_each_has_its_own_log(
    race: Race, original: Variant, tmp_path: Path, install: Install
) -> None:
    for name, tidy in (("tidy-one", True), ("tidy-other", True), ("untidy", False)):
        install("techniques", name, TIDY.format(name=name, tidy=tidy, fails=False))
    names = ("tidy-one", "tidy-other", "untidy")
    with Makers() as makers:
        for name in names:
            make(race.shop, original, Step(technique=name), 60, tmp_path / name, makers=makers)
    first, second, third = makers_of([tmp_path / name for name in names])
    assert first == second, "PyTorch is loaded only once"
    assert third != first, "what may leave something behind has a process of its own"


def test_a_process_in_which_something_failed_is_used_no_more(
    race: Race, original: Variant, tmp_path: Path, install: Install
) -> None:
    install("techniques", "tidy", TIDY.format(name="tidy", tidy=True, fails=False))
    install("techniques", "broken", TIDY.format(name="broken", tidy=True, fails=True))
    logs = [tmp_path / name for name in ("a", "b", "c")]
    with Makers() as makers:
        make(race.shop, original, Step(technique="tidy"), 60, logs[0], makers=makers)
        with pytest.raises(WorkerError, match="no"):
            make(race.shop, original, Step(technique="broken"), 60, logs[1], makers=makers)
        make(race.shop, original, Step(technique="tidy", seed=1), 60, logs[2], makers=makers)
    before, broken, after = makers_of(logs)
    assert before == broken != after
