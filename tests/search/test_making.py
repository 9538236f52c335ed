from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trimtab.core.errors import Refused, WorkerTimeout
from trimtab.core.values import Step, Variant, options
from trimtab.search.making import make
from trimtab.search.race import Race

Install = Callable[[str, str, str], None]


def test_a_variant_is_made_once_and_found_again(race: Race, original: Variant, tmp_path: Path) -> None:
    step = Step(technique="dynamic-int8")
    made = make(race.shop, original, step, 60, tmp_path / "log")
    written = made.model.path.stat().st_mtime_ns
    assert make(race.shop, original, step, 60, tmp_path / "log") == made
    assert made.model.path.stat().st_mtime_ns == written
    assert made.steps[-1].technique == "dynamic-int8"


def test_other_options_make_another_variant(race: Race, original: Variant, tmp_path: Path) -> None:
    first = make(race.shop, original, Step(technique="static-int8"), 60, tmp_path / "log")
    other = Step(technique="static-int8", options=options(per_channel=False))
    assert make(race.shop, original, other, 60, tmp_path / "log").model.path != first.model.path


def test_what_a_killed_run_left_half_made_is_made_anew(race: Race, original: Variant, tmp_path: Path) -> None:
    step = Step(technique="dynamic-int8")
    made = make(race.shop, original, step, 60, tmp_path / "log")
    kept = made.model.path.parent / "variant.json"
    kept.unlink()
    made.model.path.write_bytes(b"half")
    assert make(race.shop, original, step, 60, tmp_path / "log").model.digest == made.model.digest
    assert made.model.path.stat().st_size > 4


def test_a_refusal_is_told_with_its_reason(race: Race, original: Variant, tmp_path: Path) -> None:
    made = make(race.shop, original, Step(technique="dynamic-int8"), 60, tmp_path / "log")
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
        found = options(drop=context.evaluate(variant), quick=context.time(variant) < 1)
        return variant.after(variant.model, Step(technique=self.name, options=found))
"""
    install("techniques", "asking", code)
    made = make(race.shop, original, Step(technique="asking"), 60, tmp_path / "log")
    assert dict(made.steps[-1].options) == {"drop": 0.0, "quick": True}
