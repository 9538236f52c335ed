from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.core.errors import BadInput, Refused, WorkerTimeout
from trimtab.core.values import Step, Variant, options
from trimtab.search.making import is_made, make
from trimtab.search.race import Race

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
    first = make(race.shop, original, Step(technique="static-int8"), 60, tmp_path / "log").variant
    for other in (
        Step(technique="static-int8", options=options(per_channel=False)),
        Step(technique="static-int8", seed=1),
    ):
        assert make(race.shop, original, other, 60, tmp_path / "log").variant.model.path != first.model.path


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
