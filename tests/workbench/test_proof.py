"""Who is proven in which order, and that proofs stop at the first failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Opening
from trimtab.core.values import Goal, NoWorse, Settings, Split, Task, Trial, Variant, Workload
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.formats.onnx import OnnxFormat
from trimtab.search.race import Race
from trimtab.testing.networks import PERCEPTRON
from trimtab.workbench.ledger import look
from trimtab.workbench.proof import answers_file, answers_on, finalists, of_itself, prove, prove_all, safety

Enter = Callable[..., Trial]
ITEMS = 700
DATA = PERCEPTRON.inputs(ITEMS, 0)
LABELS = PERCEPTRON.answer(DATA)["scores"].argmax(axis=1)


def verdict(worse: int = 0, items: int = 700, **given_: Any) -> NoWorse:
    parts = {
        "metric": "accuracy", "variant": "v", "baseline": "b", "max_drop": 0.01, "error": 0.05,
        "method": "Tango's score test", "items": items, "groups": items, "difference": -worse / items, "low": -1.0,
        "high": 1.0, "better": 0, "worse": worse, "flips": worse, "proven": False,
    }  # fmt: skip
    return NoWorse(**{**parts, **given_})


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Variant]:
    """The network that is always right, one with a little noise on its weights, one with much, one that overflows."""
    folder = tmp_path_factory.mktemp("networks")
    found = {}
    for name, noise in (("original", 0.0), ("good", 0.002), ("bad", 3.0), ("broken", np.nan)):
        proto = PERCEPTRON.graph(0)
        for tensor in proto.graph.initializer:
            if tensor.name == "w2":
                array = numpy_helper.to_array(tensor)
                changed = array + noise * np.random.default_rng(1).normal(size=array.shape).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(changed, "w2"))
        onnx.save(proto, folder / f"{name}.onnx")
        model = OnnxFormat().open(str(folder / f"{name}.onnx"), Opening(folder=folder))
        found[name] = Variant(model=model, settings=Settings(runtime="onnxruntime", threads=1))
    return found


@pytest.fixture(scope="module")
def task(networks: dict[str, Variant], tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("data")
    return open_task({**DATA, "labels": LABELS}, networks["original"].model, folder, DataRequest())


@pytest.fixture
def certify(task: Task) -> Split:
    split = task.split("certify")
    assert split is not None
    return split


@pytest.fixture
def race(over: Race, networks: dict[str, Variant], task: Task) -> Race:
    """The same race with items to prove on."""
    goal = Goal(max_drop=0.02, workload=Workload(batch=64))
    over.shop = replace(over.shop, task=task, goal=goal, original=networks["original"])
    return over


def names(trials: list[Trial]) -> list[str]:
    return [trial.steps[-1].technique if trial.steps else "untouched" for trial in trials]


class TestFinalists:
    """Which trials are worth a look at the certify split."""

    def test_only_what_gains_over_the_best_untouched_is_proven(self, race: Race, enter: Enter) -> None:
        untouched = enter(value=0.9)
        enter("bf16", value=0.95)
        enter("static-int8", value=0.5)
        enter("dynamic-int8", value=0.4, state="dropped")
        assert set(names(finalists(race, untouched))) == {"untouched", "static-int8"}

    def test_the_safest_is_tested_first(self, race: Race, enter: Enter) -> None:
        untouched = enter(value=1.0)
        enter("static-int8", value=0.3, worse=3)
        enter("nncf-int8", value=0.4, worse=1)
        enter("bf16", value=0.6, worse=0)
        chosen = finalists(race, untouched)
        assert names(chosen)[-2:] == ["nncf-int8", "static-int8"]
        safe = [safety(trial, race.shop.task) for trial in chosen]
        assert safe == sorted(safe, reverse=True)

    def test_there_are_only_a_few_and_the_safest_is_among_them(self, race: Race, enter: Enter) -> None:
        untouched = enter(value=1.0)
        for number in range(8):
            enter("static-int8", value=0.1 + number / 20, worse=5, threads=number + 1)
        safest = enter("bf16", value=0.8, worse=0)
        chosen = finalists(race, untouched)
        assert len(chosen) <= 5
        assert {safest.name, untouched.name} <= {trial.name for trial in chosen}
        assert min(trial.screening.value for trial in chosen if trial.screening) == 0.1, "and the fastest"

    def test_what_hardly_can_be_proven_is_left_out_unless_it_is_the_safest(self, race: Race, enter: Enter) -> None:
        untouched = enter(value=1.0)
        enter("static-int8", value=0.2, worse=40)
        enter("bf16", value=0.6)
        assert "static-int8" not in names(finalists(race, untouched))

    def test_an_untouched_that_was_not_kept_is_not_proven(self, race: Race, enter: Enter) -> None:
        untouched = enter(value=1.0, state="dropped")
        enter("bf16", value=0.6)
        assert names(finalists(race, untouched)) == ["bf16"]

    def test_without_any_gain_there_is_only_the_untouched(self, race: Race, enter: Enter) -> None:
        untouched = enter(value=1.0)
        assert finalists(race, untouched) == [untouched]


@given(worse=st.integers(0, 100), items=st.integers(50, 2000))
def test_more_lost_answers_are_never_safer(task: Task, worse: int, items: int) -> None:
    def trial(lost: int) -> Trial:
        quality = verdict(min(lost, items), items)
        settings = Settings(runtime="onnxruntime")
        return Trial(name="t", steps=(), settings=settings, variant=None, state="kept", reason="", quality=quality)

    assert safety(trial(worse + 1), task) <= safety(trial(worse), task)


def test_safety_counts_standard_errors_of_the_certify_split(task: Task, certify: Split, enter: Enter) -> None:
    trial = enter("bf16", worse=3)
    share, drop = 4 / 701, 3 / 700
    spread = np.sqrt((share - drop**2) / len(certify))
    assert safety(trial, task) == pytest.approx((0.01 - drop) / spread - 1.645)
    assert safety(replace(trial, quality=None), task) == 0.0
    assert safety(trial, Task()) == 0.0


class TestProof:
    """The test on items that the search never saw."""

    def entered(self, networks: dict[str, Variant], enter: Enter, *chosen: str) -> list[Trial]:
        return [enter(value=0.5, threads=n + 2, variant=networks[name], name=name) for n, name in enumerate(chosen)]

    def test_nothing_behind_the_first_failure_is_looked_at(self, race, networks, enter, tmp_path, certify) -> None:
        other = networks["good"].on(Settings(runtime="onnxruntime", threads=2))
        chosen = self.entered({**networks, "other": other}, enter, "good", "bad", "other")
        found = prove_all(race, chosen, tmp_path)
        assert {name: proof.proven for name, proof in found.items()} == {"good": True, "bad": False}
        assert not answers_file(tmp_path, other, certify).exists()
        assert look(certify, "another", tmp_path) == 3, "two looks so far"

    def test_one_that_can_not_answer_has_failed_and_the_others_are_tested(
        self, race, networks, enter, tmp_path, certify
    ) -> None:
        nowhere = networks["good"].on(Settings(runtime="no-such-engine"))
        chosen = self.entered({**networks, "nowhere": nowhere}, enter, "broken", "nowhere", "good")
        found = prove_all(race, chosen, tmp_path)
        assert {name: proof.proven for name, proof in found.items()} == {"good": True}
        assert [trial.state for trial in race.trials] == ["failed", "failed", "kept"]
        assert "failed on the certify split: the output 'scores' holds NaN or infinity" in race.trials[0].reason
        assert "no-such-engine" in race.trials[1].reason

    def test_where_the_original_itself_can_not_answer_nobody_else_is_to_blame(
        self, race, networks, enter, tmp_path
    ) -> None:
        race.shop = replace(race.shop, original=networks["broken"])
        with pytest.raises(BadInput, match="NaN or infinity"):
            prove_all(race, self.entered(networks, enter, "good"), tmp_path)
        assert [trial.state for trial in race.trials] == ["kept"]

    def test_a_proof_is_kept_and_costs_no_second_look(self, race, networks, tmp_path, certify) -> None:
        first = prove(race, networks["good"], certify, tmp_path)
        assert first.items == len(certify)
        assert (first.variant, first.baseline) == (networks["good"].key, networks["original"].key)
        for path in (tmp_path / "answers").iterdir():
            path.unlink()
        assert prove(race, networks["good"], certify, tmp_path) == first
        assert list((tmp_path / "answers").iterdir()) == [], "nothing was answered again"
        assert look(certify, networks["good"].key, tmp_path) == 1

    def test_the_model_as_given_needs_no_statistics(self, race, networks, tmp_path, certify) -> None:
        proof = prove(race, networks["original"], certify, tmp_path)
        assert (proof.proven, proof.method, proof.flips, proof.reason) == (True, "the same variant", 0, "")
        few = verdict(items=50, needed=299, reason="not proven on 50 items")
        assert (of_itself(few).proven, of_itself(few).needed, of_itself(few).reason) == (True, None, "")
        lost = verdict(worse=3, items=50, reason="loses 6 pt")
        assert (of_itself(lost).proven, of_itself(lost).reason) == (False, "loses 6 pt"), "as on another machine"

    def test_speed_only_proves_nothing(self, race, networks, enter, tmp_path) -> None:
        race.shop = replace(race.shop, goal=Goal(max_drop=None))
        assert prove_all(race, self.entered(networks, enter, "good"), tmp_path) == {}
        race.shop = replace(race.shop, goal=Goal(), task=Task())
        assert prove_all(race, race.trials, tmp_path) == {}
        assert list(tmp_path.glob("proofs/*")) == []

    def test_answers_are_given_once_and_kept_whole(self, race, networks, task, certify, tmp_path) -> None:
        outputs = answers_on(task, certify, networks["good"], race.goal, tmp_path)
        assert outputs.shape == (len(certify), 4)
        kept = answers_file(tmp_path, networks["good"], certify)
        assert np.array_equal(np.load(kept), outputs)
        np.save(kept, outputs + 1)
        assert np.array_equal(answers_on(task, certify, networks["good"], race.goal, tmp_path), outputs + 1)
        assert [path.name for path in kept.parent.iterdir()] == [kept.name], "no half-written file"


def test_one_that_a_limit_dropped_is_none_to_beat(over: Race, enter: Enter) -> None:
    given = enter(value=1.0, state="dropped", reason="accuracy is 0.9, the limit is >= 0.95 (select split)")
    slower = enter("bf16", value=2.0)
    assert finalists(over, given) == [slower]
    assert slower not in finalists(over, enter(value=1.0, threads=1)), "beside one that keeps the limits it is none"
